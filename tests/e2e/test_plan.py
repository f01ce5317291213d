"""`prism validate` tells what a namespace promises, `prism plan` what its requirements mean; both before anything runs."""

from __future__ import annotations

import json
import pathlib

import pytest

from prism.testing import PrismTestServer
from program import Cli

REQUIREMENTS = {
    "namespaces": [
        {
            "name": "video",
            "requirements": {"message_size": "5GB", "consistency": "strong", "retention": "3 days", "throughput": "10k msgs/s", "latency": "50ms"},
        }
    ]
}
RFC_EXAMPLE = """namespaces:
  - name: video-processing
    requirements:
      message_size: 5GB              # Prism adds Claim Check
      consistency: strong            # Prism adds Outbox
      retention: 30 days             # Prism adds Tiered Storage
      throughput: 10k msgs/s         # Prism sizes Kafka partitions
"""


def planned(program: Cli, file: pathlib.Path) -> dict:
    return json.loads(program("plan", file, "--format", "json").stdout)


def test_a_namespace_of_requirements_is_served() -> None:
    """proves: G-04, G-05, G-06, G-08"""
    with PrismTestServer(REQUIREMENTS) as server:
        with server.client() as client:
            large = b"x" * 3_000_000
            assert client.publish("video", large).success
            assert client.publish("video", b"small").success
            subscriber = client.subscribe("video")
            assert {next(subscriber).payload, next(subscriber).payload} == {large, b"small"}


def test_plan_prints_the_example_of_the_rfc_and_says_what_is_not_built(program: Cli, tmp_path: pathlib.Path) -> None:
    """proves: G-04, G-05, G-06, G-07, G-08"""
    file = tmp_path / "prism.yaml"
    file.write_text(RFC_EXAMPLE)
    done = program("plan", file)
    assert done.returncode == 1, done
    assert f"{file}:6:18: error: " in done.stderr and "[PATTERN_NOT_AVAILABLE]" in done.stderr
    report = planned(program, file)
    (namespace,) = report["namespaces"]
    assert [p["type"] for p in namespace["derived"]["patterns"]] == ["outbox", "claim-check", "tiered-storage"]
    assert namespace["derived"]["client_api"] == "pubsub"
    assert namespace["derived"]["backend"] == {"type": "kafka", "partitions": 20}
    assert namespace["estimate"]["partitions"] == 20
    for decision in namespace["decisions"]:
        assert decision["because"] and decision["rejected"], decision


def test_the_printed_file_means_the_same_namespace(program: Cli, tmp_path: pathlib.Path) -> None:
    """proves: G-04"""
    file, derived = tmp_path / "wanted.yaml", tmp_path / "derived.yaml"
    file.write_text(json.dumps(REQUIREMENTS))
    done = program("plan", file)
    assert done.returncode == 0, done
    assert "# " in done.stdout and "partitions: 20" in done.stdout and "requirements" not in done.stdout.replace("# ", "")
    derived.write_text(done.stdout)
    first, second = (json.loads(program("validate", path, "--format", "json").stdout) for path in (file, derived))
    assert first["valid"] and second["valid"], (first, second)
    assert first["namespaces"] == second["namespaces"]
    assert program("plan", derived).stdout.strip() != ""  # nothing left to plan: the file stands as it is


def test_plan_keeps_secrets_secret(program: Cli, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program.environment["PRISM_TEST_SECRET"] = "hunter2"
    file = tmp_path / "prism.yaml"
    file.write_text(
        "backends:\n  postgres: {type: postgres, host: db, password: '${env:PRISM_TEST_SECRET}'}\n"
        "namespaces:\n  - name: a\n    requirements: {consistency: strong}\n"
    )
    for form in ("yaml", "json"):
        done = program("plan", file, "--format", form)
        assert "hunter2" not in done.stdout + done.stderr
        assert "${env:PRISM_TEST_SECRET}" in done.stdout, done


def test_plan_prints_no_secret_that_the_file_holds_and_means_the_same(program: Cli, tmp_path: pathlib.Path) -> None:
    file, derived = tmp_path / "prism.yaml", tmp_path / "derived.yaml"
    file.write_text(
        "backends:\n  postgres: {type: postgres, host: db, user: me, password: hunter2}\n"
        "  s3: {access_key_id: me, secret_access_key: hunter3}\n"
        "telemetry: {traces: {endpoint: 'http://otel:4317/?token=hunter4', headers: {x: hunter5}}}\n"
        "namespaces:\n  - name: a\n    requirements: {consistency: strong}\n"
    )
    for form in ("yaml", "json"):
        done = program("plan", file, "--format", form)
        assert done.returncode == 0, done
        assert "hunter" not in done.stdout + done.stderr
    derived.write_text(program("plan", file).stdout)
    variables = {
        "PRISM_BACKENDS_POSTGRES_PASSWORD": "hunter2",
        "PRISM_BACKENDS_S3_SECRET_ACCESS_KEY": "hunter3",
        "PRISM_TELEMETRY_TRACES_ENDPOINT": "hunter4",
        "PRISM_TELEMETRY_TRACES_HEADERS_X": "hunter5",
    }
    assert sorted(planned(program, file)["variables"]) == sorted(variables)
    assert all(f"#   {name}\n" in derived.read_text() for name in variables)
    assert "is not set" in program("validate", derived).stderr
    program.environment.update(variables)
    again = json.loads(program("validate", derived, "--format", "json").stdout)
    assert again["valid"] and again["warnings"] == 0, again


def test_a_wrong_file_without_requirements_is_not_said_to_stand_as_it_is(program: Cli, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "prism.yaml"
    file.write_text("namespaces: [{name: a, patern: outbox, backend: kafka}]")
    done = program("plan", file)
    assert done.returncode == 1 and "did you mean 'pattern'?" in done.stderr
    assert "requirements" not in done.stderr and done.stdout == ""
    file.write_text("namespaces: [{name: a, backend: kafka}]")
    done = program("plan", file)
    assert done.returncode == 0 and "no namespace has requirements" in done.stderr


def test_of_thousands_of_errors_a_hundred_are_printed(program: Cli, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "prism.yaml"
    file.write_text("namespaces:\n  - name: a\n    backend: kafka\n    patterns:\n      - type: outbox\n" + "".join(f"        x{i}: 1\n" for i in range(5000)))
    done = program("validate", file)
    assert done.returncode == 1
    assert done.stderr.count("[UNKNOWN_OPTION]") == 100
    assert "4900 more errors are not shown [TOO_MANY_ERRORS]" in done.stderr and "prism.yaml: 5000 errors" in done.stderr
    report = json.loads(program("validate", file, "--format", "json").stdout)
    assert (report["errors"], report["warnings"], report["truncated"]) == (5000, 0, True)
    assert len(report["diagnostics"]) == 101 and report["diagnostics"][-1]["reason"] == "TOO_MANY_ERRORS"


def test_plan_exit_codes(program: Cli, tmp_path: pathlib.Path) -> None:
    assert program("plan", tmp_path / "missing.yaml").returncode == 2
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("namespaces:\n  - name: a\n    requirements: {mesage_size: 5GB}\n")
    done = program("plan", wrong)
    assert done.returncode == 1 and "did you mean 'message_size'?" in done.stderr and done.stdout == ""


def test_validate_tells_chain_jobs_and_guarantees(program: Cli, tmp_path: pathlib.Path) -> None:
    """proves: L-18, L-11"""
    file = tmp_path / "prism.yaml"
    file.write_text("namespaces:\n  - name: orders\n    patterns: [outbox, claim-check]\n    backend: {type: kafka, replication: 1}\n")
    text = program("validate", file)
    assert text.returncode == 0, text
    assert "claim-check -> outbox -> kafka" in text.stdout
    assert "acks=all is no fsync" in text.stdout
    assert "not atomic with rows that the application writes" in " ".join(text.stdout.split())
    (namespace,) = json.loads(program("validate", file, "--format", "json").stdout)["namespaces"]
    assert [job["name"] for job in namespace["jobs"]] == ["orders/claim-check/cleaner", "orders/claim-check/sweeper", "orders/outbox/relay"]
    assert namespace["reordered"]
    guarantees = namespace["guarantees"]
    assert guarantees["delivery"]["level"] == "at-least-once"
    assert guarantees["atomicity"]["level"] == "call"
    assert guarantees["durability"]["survives"]["power_loss"] == "no"
    for claim in ("delivery", "order", "atomicity", "freshness"):
        assert all(reason["step"] and reason["why"] for reason in guarantees[claim]["because"])
    (embedded,) = json.loads(program("validate", file, "--embedded", "--format", "json").stdout)["namespaces"]
    assert embedded["guarantees"]["durability"]["survives"] == {"process_kill": "yes", "power_loss": "yes", "disk_loss": "no", "site_power_loss": "yes"}
    assert {backend["binding"] for backend in embedded["backends"]} == {"embedded"}


def test_a_refused_chain_names_the_rfcs_fields(program: Cli, tmp_path: pathlib.Path) -> None:
    """proves: L-15, L-16, L-17, X-08"""
    file = tmp_path / "prism.yaml"
    for body, reason, details in (
        ("client_api: reader, patterns: [outbox], backend: postgres", "INCOMPATIBLE_PATTERN", {"pattern": "outbox", "api": "reader"}),
        ("patterns: [outbox, event-sourcing], backend: kafka", "INCOMPATIBLE_PATTERN", {"pattern": "event-sourcing", "conflicts_with": "outbox"}),
        ("patterns: [tiered-storage, outbox], backend: kafka", "INCOMPATIBLE_PATTERN_ORDER", {"first": "tiered-storage", "second": "outbox"}),
        ("patterns: [claim-check], backend: s3", "BACKEND_INCOMPATIBLE_WITH_PATTERNS", {"backend": "s3", "pattern": "claim-check"}),
    ):
        file.write_text("namespaces: [{name: a, " + body + "}]")
        done = program("validate", file, "--format", "json")
        assert done.returncode == 1
        found = [d for d in json.loads(done.stdout)["diagnostics"] if d["reason"] == reason]
        assert found and details.items() <= found[0]["details"].items(), done.stdout
        assert found[0]["hint"]
