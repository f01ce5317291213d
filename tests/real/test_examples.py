"""The examples on real servers: those of the RFCs, and production.yaml with encrypted connections and passwords.
proves: L-02, L-06, S-12"""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys
from typing import Any

import pytest

import prism
from prism.testing import PrismTestServer, find_binary

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
RFC = ROOT / "tests" / "rfc"


def validate(path: pathlib.Path, environment: dict[str, str] | None = None) -> dict[str, Any]:
    done = subprocess.run(
        [find_binary(), "validate", str(path), "--format", "json"], env=os.environ | (environment or {}), capture_output=True, text=True, timeout=60
    )
    return dict(json.loads(done.stdout))


def production_environment() -> dict[str, str]:
    """What production.yaml asks for, as scripts/production-environment gives it."""
    show = [sys.executable, "-c", "import json, os; print(json.dumps(dict(os.environ)))"]
    done = subprocess.run([ROOT / "scripts" / "production-environment", *show], capture_output=True, text=True, check=True, timeout=60)
    return dict(json.loads(done.stdout))


def test_production_means_the_same_as_quickstart_and_more_durable() -> None:
    quick = validate(EXAMPLES / "quickstart.yaml")
    production = validate(EXAMPLES / "production.yaml", production_environment())
    assert production["valid"], production["diagnostics"]
    assert [d for d in production["diagnostics"] if d["severity"] == "error"] == []
    for before, now in zip(quick["namespaces"], production["namespaces"], strict=True):
        for field in ("name", "client_api", "apis", "chain", "consumer_groups"):
            assert now[field] == before[field]
        assert {backend["binding"] for backend in now["backends"]} == {"configured"}
        changed = {name for name in now["options"] | before["options"] if now["options"].get(name) != before["options"].get(name)}
        assert changed <= {"state"}


def test_production_serves_by_the_guarded_doors(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    environment = production_environment()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    # A database, bucket and topics of this test's own: others use the server too.
    text = (EXAMPLES / "production.yaml").read_text()
    unique = "t" + os.urandom(6).hex()
    psql = ["psql", "-XqAtw", os.environ["PRISM_TEST_POSTGRES"], "-c"]
    subprocess.run([*psql, f"CREATE DATABASE {unique}"], check=True, timeout=60)
    monkeypatch.setenv("POSTGRES_DATABASE", unique)
    text = text.replace("bucket: media-payloads", f"bucket: {unique}").replace("    type: kafka\n    brokers", f"    type: kafka\n    prefix: {unique}.\n    brokers")
    file = tmp_path / "production.yaml"
    file.write_text(text)
    data = tmp_path / "data"
    process = subprocess.Popen(
        [find_binary(), "serve", str(file), "--host", "127.0.0.1", "--port", "0", "--admin-port", "0", "--data", str(data), "--ready-file", str(tmp_path / "ready")],
        stdout=open(tmp_path / "log", "w"), stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        for _ in range(600):
            if (tmp_path / "ready").exists() or process.poll() is not None:
                break
            try:
                process.wait(0.05)
            except subprocess.TimeoutExpired:
                pass
        log = (tmp_path / "log").read_text()
        assert (tmp_path / "ready").exists(), log
        address = json.loads((tmp_path / "ready").read_text())["grpc"]
        payload = os.urandom(3_000_000)
        with prism.Client(address, namespace="media") as client:
            client.publish("media", payload, {"name": "film"})
            event = next(client.subscribe("media", "archive", timeout=60))
            assert event.payload == payload and event.metadata["name"] == "film"
        with prism.Client(address, namespace="orders") as client:
            sent = [client.publish("orders", str(n).encode(), key="k").id for n in range(20)]
            got = client.subscribe("orders", "billing", timeout=60)
            assert [next(got).id for _ in sent] == sent
        for secret in (environment["KAFKA_PASSWORD"], environment["POSTGRES_PASSWORD"], environment["S3_SECRET_KEY"]):
            assert secret not in (tmp_path / "log").read_text()
    finally:
        process.terminate()
        process.wait(30)
        subprocess.run([*psql, f"DROP DATABASE IF EXISTS {unique} WITH (FORCE)"], check=True, timeout=60)


def test_a_queue_on_kafka_needs_no_pattern() -> None:
    # proves: X-27
    with PrismTestServer({"namespace": "tasks", "client_api": "queue", "backend": {"type": "kafka"}}) as server, server.client() as client:
        sent = [client.publish("tasks", b"%d" % n, key="k").id for n in range(10)]
        subscriber = client.subscribe("tasks", timeout=60)
        assert [next(subscriber).id for _ in sent] == sent


def test_a_payload_above_the_logs_limit_goes_by_claim_check(tmp_path: pathlib.Path) -> None:
    # proves: C-26
    namespace = {"name": "large", "client_api": "pubsub", "patterns": [{"type": "claim-check", "threshold": "500KB", "storage": "s3"}], "backend": "kafka"}
    with PrismTestServer({"namespaces": [namespace]}, namespace="large") as server, server.client() as client:
        payload = os.urandom(12_000_000)  # Kafka takes 1 MiB
        client.publish("large", payload)
        assert next(client.subscribe("large", timeout=60)).payload == payload
    namespace["patterns"][0]["threshold"] = "10MB"  # type: ignore[index]
    file = tmp_path / "above.yaml"
    file.write_text(json.dumps({"namespaces": [namespace]}))
    assert "THRESHOLD_ABOVE_LIMIT" in {one["reason"] for one in validate(file)["diagnostics"]}


def servable() -> list[tuple[pathlib.Path, dict[str, Any]]]:
    """The examples of the RFCs that are whole files, and valid today."""
    found = []
    for path in sorted(RFC.glob("*.yaml")):
        if "namespaces:" not in path.read_text():
            continue
        answer = validate(path)
        if answer["valid"] and answer["namespaces"]:
            found.append((path, answer))
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "example" in metafunc.fixturenames:
        cases = servable()
        metafunc.parametrize("example", cases, ids=[path.stem for path, _ in cases])


def test_an_example_of_the_rfcs_works(example: tuple[pathlib.Path, dict[str, Any]]) -> None:
    path, answer = example
    # Its own brokers are somewhere else.
    text = re.sub(r"\bbrokers: .*", f"brokers: [{os.environ['PRISM_TEST_KAFKA']}]", path.read_text())
    with PrismTestServer(text) as server:
        assert server.get_json("/readyz")["ready"], server.log()
        for namespace in answer["namespaces"]:
            if not {"pubsub", "queue"} & set(namespace["apis"]):
                continue
            group = namespace["consumer_groups"][0] if namespace["consumer_groups"] else "group"
            group = group["name"] if isinstance(group, dict) else group
            payloads = [b"small", os.urandom(500_000), os.urandom(11_000_000)]  # the greatest of the examples' thresholds is 10 MB
            with server.client(namespace=namespace["name"]) as client:
                for payload in payloads:
                    client.publish(namespace["name"], payload, key="k")
                subscriber = client.subscribe(namespace["name"], group, timeout=60)
                assert [next(subscriber).payload for _ in payloads] == payloads
