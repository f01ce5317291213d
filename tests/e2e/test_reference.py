"""One declaration: what is parsed is what the JSON Schema, `prism explain` and the reference page say."""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any

import jsonschema
import pytest
import yaml

from program import Cli

ROOT = pathlib.Path(__file__).resolve().parents[2]
RIGHT = sorted([*ROOT.glob("examples/*.yaml"), *ROOT.glob("tests/config/right/**/*.yaml")])
WRONG = sorted(ROOT.glob("tests/config/wrong/**/*.yaml"))
RFC = sorted(ROOT.glob("tests/rfc/**/*.yaml"))


class Loader(yaml.SafeLoader):
    """YAML 1.2's core types, as editors and Prism read them: no dates, and only true and false are booleans."""


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:bool")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))


def load(text: str) -> Any:
    return yaml.load(text, Loader)


@pytest.fixture(scope="module")
def cli() -> Cli:
    return Cli()


@pytest.fixture(scope="module")
def schema(cli: Cli) -> dict[str, Any]:
    done = cli("schema")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def validator(schema: dict[str, Any]) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(schema)


def problems(validator: jsonschema.Draft202012Validator, document: Any) -> list[str]:
    def tell(error: jsonschema.ValidationError) -> str:
        return f"{error.json_path}: {error.message[:200]}" + "".join(f"\n    {tell(inner)}" for inner in error.context or [])

    return [tell(error) for error in validator.iter_errors(document)]


def explain(cli: Cli, *names: str) -> list[dict[str, Any]]:
    done = cli("explain", *names, "--format", "json")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)["matches"]


def test_the_schema_is_one(schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    space = schema["$defs"]["namespace"]["properties"]
    assert {"name", "pattern", "patterns", "backend", "claim_check", "outbox", "cleanup", "publisher"} <= space.keys()
    threshold = schema["$defs"]["pattern-claim-check"]["properties"]["threshold"]
    assert threshold["default"] == "1MB" and threshold["maximum"] == 64 << 20 and "larger" in threshold["description"]


# proves: F-02, F-03, F-04, F-05, F-12, F-13, F-16
def test_every_right_file_fits_the_schema(cli: Cli, validator: jsonschema.Draft202012Validator) -> None:
    assert len(RIGHT) >= 60 and RFC
    refused = {}
    for file in [*RIGHT, *RFC]:
        if file in RFC and cli("validate", file).returncode != 0:
            continue  # not right: the RFC's printed mistakes, and patterns that this version does not have
        if found := problems(validator, load(file.read_text())):
            refused[str(file.relative_to(ROOT))] = found
    assert not refused, "\n".join(f"{name}: {line}" for name, lines in refused.items() for line in lines)


def test_the_schema_refuses_a_good_share_of_wrong_files(validator: jsonschema.Draft202012Validator) -> None:
    assert len(WRONG) >= 150
    refused = total = 0
    for file in WRONG:
        try:
            document = load(file.read_text())
        except (yaml.YAMLError, UnicodeDecodeError, ValueError):
            continue  # not YAML: no schema is asked
        total += 1
        refused += bool(problems(validator, document))
    assert refused / total > 0.65, f"{refused} of {total}"


@pytest.mark.parametrize(
    "file",
    [
        "namespaces: [{name: a, backend: kafka, patern: outbox}]",
        "namespaces: [{name: a, backend: kafka, pattern: outbocks}]",
        "namespaces: [{name: a, backend: kafka, pattern: outbox, patterns: [outbox]}]",
        "namespaces: [{name: a, backend: kafka, claim_check: {threshold: 1MB}}]",
        "namespaces: [{name: a, backend: kafka, patterns: [claim-check], claim_check: {threshold: 1MX}}]",
        "namespaces: [{name: a, backend: kafka, patterns: [{type: claim-check, treshold: 1MB}]}]",
        "namespaces: [{name: a, backend: kafka, patterns: [{type: claim-check, config: {treshold: 1MB}}]}]",
        "namespaces: [{name: a, backend: kafka, patterns: [{type: claim-check, threshold: 100000000000}]}]",
        "namespaces: [{name: a, backend: kafka, patterns: [{type: outbox, publisher: {mode: poling}}]}]",
        "namespaces: [{name: a, backend: kafka, patterns: [{type: outbox, publisher: {interval: 100 parsecs}}]}]",
        "namespaces: [{name: A, backend: kafka}]",
        "namespaces: [{name: a, backend: {topic: t}}]",
        "namespaces: [{name: a, backend: {type: kafka, partitions: 0}}]",
        "namespaces: [{name: a, backend: {type: kafka, partitions: many}}]",
        "namespaces: [{name: a, backend: kafka, patterns: [{type: write-ahead-log}]}]",
        "namespaces: {name: a, backend: kafka}",
        "namespaces: [{name: a}]\nbackends: {main: {type: sqlite}}",
        "namespaces: [{name: a}]\nbackends: {main: {type: squlite, path: x}}",
        "namespaces: [{name: a}]\nserver: {listen: 80}",
        "name: a",
    ],
)
def test_wrong_ones_are_refused_by_both(cli: Cli, validator: jsonschema.Draft202012Validator, file: str, tmp_path: pathlib.Path) -> None:
    assert problems(validator, load(file))
    path = tmp_path / "wrong.yaml"
    path.write_text(file)
    assert cli("validate", path).returncode == 1


@pytest.mark.parametrize(
    "file",
    [
        "namespaces: [{name: a, backend: kafka, pattern: outbox, database: postgres, publisher: {batch_size: '10'}}]",
        "namespaces: [{name: a, backend: kafka, patterns: [{type: claim-check, config: null}, {type: outbox, enabled: false}]}]",
        "namespaces: [{name: a, backend: kafka, patterns: [{type: wal, enabled: false, batch_size: 3}]}]",
        "namespaces: [{name: a, backend: {type: kafka, partitions: '${env:PARTITIONS}'}}]",
        "namespaces: [{name: a, backend: kafka, pattern: claim-check, claim_check: {storage: s3, bucket: b, cleanup: {strategy: ON-CONSUME, ttl: 30_days}}}]",
        "namespaces: [{name: a, backend: kafka, pattern: claim-check, storage: {}, cleanup: {ttl: null}}]".replace("storage: {}, ", ""),
        "namespaces: [{name: a, backend: main}]\nbackends: {main: sqlite, kafka: {}, files: {type: filesystem, path: x}}".replace("main: sqlite, ", "main: kafka, "),
        "namespaces: [{name: a, backend: {queue: nats-jetstream, topic_prefix: video}}]",
    ],
)
def test_all_spellings_fit(cli: Cli, validator: jsonschema.Draft202012Validator, file: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not problems(validator, load(file))
    cli.environment["PARTITIONS"] = "4"
    path = tmp_path / "right.yaml"
    path.write_text(file)
    done = cli("validate", path)
    assert done.returncode == 0, done.stderr


# proves: F-18, F-19
def test_every_option_may_stand_where_the_reference_says(cli: Cli, validator: jsonschema.Draft202012Validator, tmp_path: pathlib.Path) -> None:
    options = [match for match in explain(cli) if match["kind"] == "option"]
    assert len(options) > 60
    wrong = []
    for option in options:
        for place in option["places"]:
            document = load(place["example"])
            document.setdefault("namespaces", [{"name": "example", "backend": "kafka"}])
            for space in document["namespaces"]:
                space.setdefault("backend", "kafka")
            if option.get("available") != [] and (found := problems(validator, document)):
                wrong.append(f"{option['name']} at {place['path']}: {place['example']}{found}")
            path = tmp_path / "example.yaml"
            path.write_text(json.dumps(document))
            found = json.loads(cli("validate", path, "--format", "json").stdout)["diagnostics"]
            # Whether the sample fits the rest of the file is another question: that it is read where it stands is this one's.
            bad = {"UNKNOWN_OPTION", "WRONG_TYPE", "DUPLICATE_OPTION", "SECTION_WITHOUT_PATTERN"} & {one["reason"] for one in found}
            if bad:
                wrong.append(f"{option['name']} at {place['path']}: {place['example']}{found}")
    assert not wrong, "\n".join(wrong)


def test_explain_finds_by_name_place_and_end(cli: Cli) -> None:
    by_name = explain(cli, "claim_check.threshold")
    assert [match["name"] for match in by_name] == ["claim_check.threshold"]
    option = by_name[0]
    assert option["type"] == "size" and option["unit"] == "bytes" and option["default"] == "1MB" and option["max"] == "64MiB"
    assert {place["path"] for place in option["places"]} == {
        "namespaces[].patterns[].threshold",
        "namespaces[].patterns[].config.threshold",
        "namespaces[].claim_check.threshold",
    }
    for other in ("threshold", "claim-check.threshold", "Threshold", "namespaces[0].patterns[1].threshold"):
        assert explain(cli, other) == by_name, other
    assert {match["name"] for match in explain(cli, "cleanup")} >= {"claim_check.cleanup", "outbox.publisher.cleanup"}
    assert "namespaces[].cleanup" in [place["path"] for place in explain(cli, "claim_check.cleanup")[0]["places"]]
    assert "namespaces[].patterns[].bucket" in [place["path"] for place in explain(cli, "storage.bucket")[0]["places"]]


def test_explain_knows_patterns_backends_units_and_reasons(cli: Cli) -> None:
    outbox = explain(cli, "outbox")[0]
    assert outbox["kind"] == "pattern" and outbox["available"] and "publisher" in outbox["sections"]
    assert "outbox.table" in outbox["options"]
    assert not explain(cli, "wal")[0]["available"]
    assert explain(cli, "sqlite")[0]["kind"] == "backend"
    assert explain(cli, "durations")[0]["kind"] == "topic"
    reason = explain(cli, "UNKNOWN_OPTION")[0]
    assert reason["kind"] == "reason" and reason["group"] == "Configuration files" and "no such option" in reason["description"]
    text = cli("explain", "claim_check.threshold").stdout
    assert "default     1MB" in text and "namespaces[].claim_check.threshold" in text and "threshold: 1MB" in text


def test_every_listed_reason_is_explained(cli: Cli) -> None:
    listed = re.findall(r"^\| `([A-Z0-9_]+)`", (ROOT / "docs" / "reference" / "errors.md").read_text(), re.MULTILINE)
    assert len(listed) > 150
    for reason in (listed[0], listed[len(listed) // 2], listed[-1]):
        found = explain(cli, reason)[0]
        assert found["name"] == reason and found["description"] and found["what_to_do"]


def test_reasons_are_found_as_the_rfcs_spell_them(cli: Cli) -> None:
    for name, reason in (
        ("IncompatiblePattern", "INCOMPATIBLE_PATTERN"),
        ("IncompatiblePatternOrder", "INCOMPATIBLE_PATTERN_ORDER"),
        ("BackendIncompatibleWithPatterns", "BACKEND_INCOMPATIBLE_WITH_PATTERNS"),
        ("unknown-option", "UNKNOWN_OPTION"),
        ("unknownoption", "UNKNOWN_OPTION"),
    ):
        assert explain(cli, name)[0]["name"] == reason


def test_a_wrong_format_is_told_which_there_are(cli: Cli) -> None:
    for command, known in (("explain", "json, text"), ("schema", "json, markdown")):
        done = cli(command, "--format", "yml")
        assert done.returncode == 2 and f"'yml' is not one of {known}" in done.stderr, done
    assert cli("explain", "outbox", "--format", "JSON").stdout.startswith("{")


def test_a_misspelt_name_gets_the_nearest(cli: Cli) -> None:
    done = cli("explain", "treshold")
    assert done.returncode == 1 and "did you mean 'threshold'?" in done.stderr and "NOTHING_OF_THAT_NAME" in done.stderr
    done = cli("explain", "UNKNOWN_OPTON", "--format", "json")
    assert json.loads(done.stdout)["error"]["hint"] == "did you mean 'UNKNOWN_OPTION'?"


def test_the_reference_page_is_up_to_date(cli: Cli) -> None:
    made = cli("schema", "--format", "markdown").stdout
    assert made == (ROOT / "docs" / "reference" / "configuration.md").read_text(), "run `make reference`"


def test_completions_know_the_commands_and_their_values(cli: Cli) -> None:
    bash = cli("completions", "bash").stdout
    assert "explain)" in bash and "schema)" in bash and "json markdown" in bash and "claim_check.threshold" in bash
    assert "explain" in cli("completions", "zsh").stdout and "claim_check.threshold" in cli("completions", "fish").stdout
