"""What a running server measures, read from its /metrics by a strict reader of Prometheus' text format (0.0.4)."""

from __future__ import annotations

import dataclasses
import math
import re
import time
import urllib.request
from typing import Callable, Mapping

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
SAMPLE = re.compile(rf"({NAME})(?:\{{(.*)\}})? (\S+)")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\["\\n])*)"(?:,|$)')
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}


@dataclasses.dataclass
class Family:
    name: str
    type: str
    help: str
    samples: list[tuple[str, dict[str, str], float]] = dataclasses.field(default_factory=list)

    def labels(self) -> list[str]:
        """Of its series; those of a histogram's buckets without `le`."""
        found = {tuple(label for label in labels if label != "le") for _, labels, _ in self.samples}
        assert len(found) == 1, f"{self.name}: series with different labels: {found}"
        return list(found.pop())


class Scrape:
    def __init__(self, text: str) -> None:
        self.at = time.monotonic()
        self.families: dict[str, Family] = {}
        family: Family | None = None
        helps: dict[str, str] = {}
        for line in text.splitlines():
            if line.startswith("# HELP "):
                name, text_of_help = line[7:].split(" ", 1)
                assert name not in helps, f"{name}: two help texts"
                helps[name] = text_of_help
            elif line.startswith("# TYPE "):
                name, kind = line[7:].split(" ")
                assert name not in self.families and name in helps, line
                family = self.families[name] = Family(name, kind, helps[name])
            else:
                assert family is not None
                match = SAMPLE.fullmatch(line)
                assert match, f"no sample: {line}"
                name, inside, value = match.groups()
                assert name in [family.name + suffix for suffix in SUFFIXES[family.type]], f"{line} under {family.name}"
                labels: dict[str, str] = {}
                at = 0
                while inside and at < len(inside):
                    label = LABEL.match(inside, at)
                    assert label, f"no label at {at}: {line}"
                    labels[label[1]] = re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], label[2])
                    at = label.end()
                family.samples.append((name, labels, float(value)))

    @staticmethod
    def of(admin: str) -> Scrape:
        with urllib.request.urlopen(f"http://{admin}/metrics", timeout=20) as answer:
            assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
            return Scrape(answer.read().decode("utf-8"))

    def samples(self, name: str) -> list[tuple[dict[str, str], float]]:
        """Of a family, or of one of a histogram's parts."""
        for suffix in ("", "_bucket", "_sum", "_count"):
            family = self.families.get(name.removesuffix(suffix) if suffix else name)
            if family and name.endswith(suffix) and name in [family.name + s for s in SUFFIXES[family.type]]:
                return [(labels, value) for sample, labels, value in family.samples if sample == name]
        return []

    def value(self, metric: str, /, **labels: str) -> float:
        """The sum of all samples with these labels; NaN where there is none."""
        found = [value for present, value in self.samples(metric) if labels.items() <= present.items()]
        return sum(found) if found else math.nan


def wait_for(admin: str, what: Callable[[Scrape], bool], timeout: float = 60) -> Scrape:
    """Scrapes until it is so. Fails with the last scrape's families where it is not in time."""
    deadline = time.monotonic() + timeout
    while True:
        scrape = Scrape.of(admin)
        if what(scrape):
            return scrape
        assert time.monotonic() < deadline, f"not within {timeout} s"
        time.sleep(0.05)


def difference(before: Scrape, after: Scrape, name: str, labels: Mapping[str, str]) -> float:
    one, other = before.value(name, **labels), after.value(name, **labels)
    return other - (0 if math.isnan(one) else one)
