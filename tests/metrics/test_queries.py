"""Each query of the dashboard and of the alerts, against what a running server shows: PromQL that parses, metrics and labels that there
are, functions that fit the metric's kind.
"""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any, Iterator

import promql_parser as promql
import pytest

from conftest import Measured
from scrape import SUFFIXES, Family, Scrape

ROOT = pathlib.Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "prism.json").read_text())
ALERTS = (ROOT / "deploy" / "prometheus" / "alerts.yml").read_text()
ONLY_REAL = [metric for metric in json.loads(pathlib.Path(__file__).with_name("golden.json").read_text()) if "only" in metric]
TARGET = {"job", "instance"}  # labels that Prometheus gives to every series of a target
OF_COUNTERS = {"rate", "irate", "increase"}


def dashboard_queries() -> Iterator[tuple[str, str, str]]:
    """Title, query, legend."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"], target["legendFormat"]


def alert_queries() -> list[tuple[str, str]]:
    """Name, query. The file is plain enough to be read without a YAML parser, and must stay so."""
    found = []
    for block in re.split(r"^      - alert: ", ALERTS, flags=re.M)[1:]:
        name = block.split("\n", 1)[0]
        match = re.search(r"^        expr: (?:\|\n((?:          .*\n)+)|(.*)\n)", block, flags=re.M)
        assert match, name
        found.append((name, match[1] or match[2]))
    return found


def plain(query: str) -> str:
    """Without Grafana's variables."""
    return query.replace("$__rate_interval", "5m").replace("$namespace", ".*").replace("$job", ".*")


class Checker:
    """Labels that an expression's result has; says what is wrong on the way."""

    def __init__(self, scrape: Scrape) -> None:
        self.scrape = scrape
        self.selectors = 0

    def family(self, name: str) -> tuple[Family, str]:
        for metric in ONLY_REAL:
            if metric["name"] == name:
                return Family(name, metric["type"], metric["help"], [(name, dict.fromkeys(metric["labels"], "x"), 0.0)]), ""
        for suffix in ("_bucket", "_sum", "_count", ""):
            family = self.scrape.families.get(name.removesuffix(suffix) if suffix else name)
            if family and name.endswith(suffix) and suffix in SUFFIXES[family.type]:
                return family, suffix
        raise AssertionError(f"there is no metric {name}")

    def selector(self, selector: Any, counters: bool | None) -> set[str]:
        self.selectors += 1
        if selector.name == "up":
            return set(TARGET)
        family, suffix = self.family(selector.name)
        labels = set(family.labels()) | TARGET | ({"le"} if suffix == "_bucket" else set())
        for matcher in selector.matchers.matchers:
            assert matcher.name in labels, f"{selector.name} has no label {matcher.name}: {sorted(labels)}"
        cumulative = family.type in ("counter", "histogram")
        if counters is not None:
            assert cumulative == counters, f"{selector.name} is a {family.type}"
        return labels

    def check(self, node: Any, counters: bool | None = False) -> set[str]:
        match node:
            case promql.NumberLiteral():
                return set()
            case promql.ParenExpr() | promql.UnaryExpr():
                return self.check(node.expr, counters)
            case promql.VectorSelector():
                return self.selector(node, counters)
            case promql.MatrixSelector():
                return self.selector(node.vector_selector, counters)
            case promql.SubqueryExpr():
                return self.check(node.expr, counters)
            case promql.Call():
                function = node.func.name
                labels: set[str] = set()
                for argument in node.args:
                    labels |= self.check(argument, True if function in OF_COUNTERS else counters)
                if function == "histogram_quantile":
                    assert "le" in labels, "a quantile needs the buckets"
                    labels.discard("le")
                return labels
            case promql.AggregateExpr():
                inside = self.check(node.expr, counters)
                assert node.modifier is not None, "an aggregation must say by what"
                kept = set(node.modifier.labels)
                assert kept <= inside, f"{sorted(kept - inside)} are no labels of {sorted(inside)}"
                return kept
            case promql.BinaryExpr():
                left, right = self.check(node.lhs, counters), self.check(node.rhs, counters)
                if not left or not right:  # a number on one side
                    return left | right
                matching = node.modifier.matching if node.modifier else None
                if matching is not None:
                    assert set(matching.labels) <= left & right, f"{matching.labels} are not on both sides"
                else:
                    assert left == right, f"sides with different labels: {sorted(left)} and {sorted(right)}"
                return left | right if matching is not None else left
        raise AssertionError(f"not expected in a query: {type(node)}")


def check(measured: Measured, query: str) -> set[str]:
    checker = Checker(measured.after)
    labels = checker.check(promql.parse(plain(query)))
    assert checker.selectors > 0
    return labels


@pytest.mark.parametrize("title, query, legend", list(dashboard_queries()), ids=lambda v: None)
def test_the_dashboard_asks_for_what_there_is(measured: Measured, title: str, query: str, legend: str) -> None:
    labels = check(measured, query)
    for label in re.findall(r"\{\{(\w+)\}\}", legend):
        assert label in labels, f"{title}: the legend names {label}; there are {sorted(labels)}"


@pytest.mark.parametrize("name, query", alert_queries())
def test_the_alerts_ask_for_what_there_is(measured: Measured, name: str, query: str) -> None:
    labels = check(measured, query)
    block = ALERTS.split(f"- alert: {name}\n")[1].split("- alert: ")[0]
    for label in re.findall(r"\$labels\.(\w+)", block):
        assert label in labels, f"{name} names {label}; there are {sorted(labels)}"
    for key in ("severity:", "summary:", "description:"):
        assert key in block, name


def test_the_dashboard_shows_every_metric(measured: Measured) -> None:
    shown = " ".join(query for _, query, _ in dashboard_queries())
    # RFC-009's names show the same as RFC-014's; when the process began is what uptime says.
    same = {"prism_claim_check_stored_count", "prism_claim_check_storage_bytes", "prism_outbox_unpublished_count", "process_start_time_seconds"}
    # Rates of these are in other panels' terms.
    same |= {"prism_job_rounds_total"}
    missing = [name for name in measured.after.families if name not in shown and name not in same]
    assert not missing, missing


def test_the_dashboard_is_whole() -> None:
    panels = DASHBOARD["panels"]
    assert [p["title"] for p in panels if p["type"] == "row"] == ["Requests", "Delivery", "Patterns", "Jobs", "Backends", "Runtime"]
    assert len({p["id"] for p in panels}) == len(panels)
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        grid = panel["gridPos"]
        own = {(x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])}
        assert not own & cells, f"{panel['title']} lies over another panel"
        cells |= own
        assert grid["x"] + grid["w"] <= 24
    variables = {v["name"] for v in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(panels))) - {"__rate_interval"}
    assert used <= variables, used - variables


def test_no_label_is_one_that_prometheus_gives(measured: Measured) -> None:
    for family in measured.after.families.values():
        assert not TARGET & set(family.labels()), f"{family.name}: Prometheus would rename {TARGET & set(family.labels())}"


def test_a_wrong_query_is_found(measured: Measured) -> None:
    for query in (
        "sum by (namespace) (rate(prism_no_such_total[5m]))",
        "sum by (topic) (rate(prism_requests_total[5m]))",
        'rate(prism_requests_total{topic="x"}[5m])',
        "rate(prism_subscriptions[5m])",
        "sum by (method) (prism_requests_total)",
        "histogram_quantile(0.9, sum by (namespace) (rate(prism_publish_duration_seconds_bucket[5m])))",
        "sum by (namespace) (prism_subscriptions) / sum by (service) (prism_requests_in_flight)",
        "sum(prism_subscriptions)",
    ):
        with pytest.raises(AssertionError):
            check(measured, query)
    with pytest.raises(ValueError):
        promql.parse("sum by (x (y)")
