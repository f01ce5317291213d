"""What belongs into the file and what into a request: a client names no pattern, no backend and no credential, and cannot change what
the file says. proves: L-01, N-01, N-03, C-28"""

import pathlib
import re
import subprocess
import uuid

import pytest

import prism
from prism.testing import PrismTestServer, find_binary

ROOT = pathlib.Path(__file__).resolve().parents[2]

# The services that applications call. Their own names may say what they are about (a cache, a view); their fields say what is wanted.
CLIENT_PROTOS = sorted(path for path in (ROOT / "proto" / "prism").rglob("*.proto") if path.parts[-3] not in ("admin",))
ENGINES = r"kafka|nats|jetstream|redis|postgres|sqlite|s3|clickhouse|elasticsearch|opensearch|filesystem"
PATTERNS = r"outbox|claim_check|wal|write_ahead|tier|tiered|cdc|event_sourcing|cqrs"
TUNING = r"threshold|bucket|storage|compression|cleanup|chain|patterns?|backends?"
CREDENTIALS = r"password|secret|access_key|secret_key"
FIELD = re.compile(r"^\s*(?:repeated |optional |map<[^>]+> |[\w.]+ )+(?P<name>\w+) = \d+", re.MULTILINE)


@pytest.mark.parametrize("path", CLIENT_PROTOS, ids=lambda path: path.name)
def test_no_field_names_a_pattern_a_backend_or_a_credential(path: pathlib.Path) -> None:
    text = re.sub(r"//.*", "", path.read_text())
    names = [match["name"] for match in FIELD.finditer(text)]
    words = re.compile(rf"(^|_)({ENGINES}|{PATTERNS}|{TUNING}|{CREDENTIALS})(_|$)")
    assert [name for name in names if words.search(name)] == []


def namespace(threshold: str) -> dict[str, object]:
    return {
        "namespace": "media",
        "client_api": "pubsub",
        "patterns": [{"type": "claim-check", "threshold": threshold, "storage": "s3", "bucket": "payloads"}],
        "backend": {"type": "kafka"},
    }


def test_metadata_tune_nothing() -> None:
    """A request cannot reach a pattern's options: what looks like one is plain metadata, and Prism's own names are refused."""
    with PrismTestServer(config=namespace("1MB")) as server:
        client = server.client()
        client.publish("t", b"x" * 500_000, metadata={"threshold": "1kB", "claim_check.threshold": "1kB", "pattern": "outbox"})
        assert server.get_json("/debug/objects?backend=s3")["count"] == 0
        event = client.consume("t", timeout=60)
        assert len(event.payload) == 500_000
        assert event.metadata["threshold"] == "1kB"
        for name in ("prism-claim-check-id", "prism-threshold"):
            with pytest.raises(prism.PrismError) as refused:
                client.publish("t", b"x", metadata={name: "1"})
            assert refused.value.reason == "METADATA_RESERVED"


@pytest.mark.parametrize("patterns", [[], ["claim-check"], ["outbox"], ["outbox", "claim-check"], ["claim-check", "pub-sub"]], ids=str)
def test_a_namespace_needs_no_code(patterns: list[str]) -> None:
    """A name that nobody has seen before, and whichever patterns: the configuration is all there is. proves: G-02, N-09"""
    name = f"n-{uuid.uuid4().hex[:8]}"
    with PrismTestServer(config={"namespace": name, "patterns": patterns, "backend": {"type": "kafka"}}) as server:
        client = server.client()
        sent = {b"small", b"L" * 1_500_000} if "claim-check" in patterns else {b"small", b"other"}
        for payload in sent:
            assert client.publish("anything", payload).success
        received = {client.consume("anything", timeout=60).payload for _ in sent}
        assert received == sent


NOT_KNOWN = [
    ["outbox", "event-sourcing"],
    ["event-sourcing", "outbox"],
    ["write-ahead-log", "event-sourcing"],
    ["claim-check", "claim-check"],
    ["outbox", "no-such-pattern"],
    ["cqrs", "claim-check"],
]


@pytest.mark.parametrize("patterns", NOT_KNOWN, ids=str)
def test_a_chain_that_is_not_known_to_be_compatible_is_refused(patterns: list[str], tmp_path: pathlib.Path) -> None:
    """proves: N-02"""
    file = tmp_path / "prism.yaml"
    file.write_text(f"namespaces:\n  - name: n\n    patterns: [{', '.join(patterns)}]\n    backend: kafka\n")
    done = subprocess.run([find_binary(), "validate", str(file)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1, done.stdout
    assert "prism.yaml:3" in done.stderr


def test_the_default_port(tmp_path: pathlib.Path) -> None:
    """proves: S-01. Whoever has the port on this machine: the program asks for that one."""
    file = tmp_path / "prism.yaml"
    file.write_text("namespaces:\n  - {name: n, backend: kafka}\n")
    ready = tmp_path / "ready.json"
    process = subprocess.Popen(
        [find_binary(), "dev", str(file), "--admin-port", "0", "--data", str(tmp_path / "data"), "--ready-file", str(ready)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )
    try:
        assert process.stdout is not None
        seen = ""
        for line in process.stdout:
            seen += line
            if "8980" in line:
                break
        assert "127.0.0.1:8980" in seen, seen
    finally:
        process.terminate()
        process.communicate(timeout=30)
