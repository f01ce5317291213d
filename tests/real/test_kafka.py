"""Two servers on a real Kafka: one of them, or the broker, is killed under load. proves: L-02, L-24"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "fault"))

from load import CONFIG, GROUPS, TOPIC, Load, nothing_dangles, until  # noqa: E402

import prism  # noqa: E402
from prism.testing import PrismTestServer  # noqa: E402

SERVERS = pathlib.Path(__file__).parents[2] / "scripts" / "servers"
FULL = os.environ.get("PRISM_FAULT") == "full"
# Leases are in the database that both servers have.
SHARED = {"namespaces": [namespace | {"state": "postgres"} for namespace in CONFIG["namespaces"]]}  # type: ignore[operator]


def shared_broker() -> str:
    if value := os.environ.get("PRISM_TEST_KAFKA"):
        return value
    if os.environ.get("CI") == "1" or os.environ.get("PRISM_REQUIRE_SERVERS") == "1":
        pytest.fail("PRISM_TEST_KAFKA is not set: scripts/servers up kafka")
    pytest.skip("no server kafka (PRISM_TEST_KAFKA)")


def backends(folder: pathlib.Path, broker: str) -> dict[str, Any]:
    return {
        "kafka": {"type": "kafka", "brokers": [broker], "prefix": f"f{uuid.uuid4().hex[:10]}.", "session_timeout": "6s", "heartbeat": "1s"},
        "postgres": {"type": "sqlite", "path": str(folder / "rows.db")},
        "s3": {"type": "filesystem", "path": str(folder / "objects")},
    }


@pytest.fixture
def broker(tmp_path: pathlib.Path) -> Iterator[tuple[str, list[str]]]:
    """One of this test's own: its address, and the command that stops and starts it."""
    shared_broker()
    servers = [str(SERVERS), "--quiet", "--dir", str(tmp_path / "servers")]
    subprocess.run([*servers, "up", "kafka"], check=True, timeout=180)
    try:
        lines = subprocess.run([*servers, "env"], check=True, timeout=60, capture_output=True, text=True).stdout.splitlines()
        yield next(line.split("=", 1)[1] for line in lines if line.startswith("export PRISM_TEST_KAFKA=")), servers
    finally:
        subprocess.run([*servers, "down", "--remove"], check=False, timeout=60)


def consume_the_rest(server: PrismTestServer) -> None:
    """Acknowledges what came again at the end, after a change of hands, and was not settled when the load stopped."""
    for group in GROUPS:
        with server.client(timeout=10) as client, client.subscribe(TOPIC, group, auto_ack=False, timeout=10) as subscriber:
            try:
                for event in subscriber:
                    event.ack()
            except prism.Timeout:
                pass


def test_a_killed_server_hands_its_partitions_over(tmp_path: pathlib.Path) -> None:
    given = backends(tmp_path, shared_broker())
    with (
        PrismTestServer(SHARED, namespace="load", data=tmp_path / "a", backends=given) as first,
        PrismTestServer(SHARED, namespace="load", data=tmp_path / "b", backends=given) as second,
    ):
        load = Load([first, second], [first, second], [first, second], consumers=2)
        for _ in range(12 if FULL else 3):
            before = load.acknowledged()
            assert until(lambda: load.acknowledged() > before + 20, 60), first.log()[-3000:]
            second.kill()
            before = load.acknowledged()
            assert until(lambda: load.acknowledged() > before + 20, 60), first.log()[-3000:]
            second.restart()
        load.finish()
        print(load.history.counts())
        assert [str(violation) for violation in load.history.check()] == []
        consume_the_rest(first)
        assert nothing_dangles(first) == {"pending_rows": 0, "objects": 0}


@pytest.mark.skipif(not FULL, reason="of the full run: librdkafka 2.0 has been seen to end the process when a broker is killed (src/backends/kafka/README.md)")
def test_nothing_is_lost_when_the_broker_is_killed(tmp_path: pathlib.Path, broker: tuple[str, list[str]]) -> None:
    address, servers = broker
    given = backends(tmp_path, address)
    with (
        PrismTestServer(SHARED, namespace="load", data=tmp_path / "a", backends=given) as first,
        PrismTestServer(SHARED, namespace="load", data=tmp_path / "b", backends=given) as second,
    ):
        load = Load([first, second], [first, second], [first, second], consumers=2)
        for _ in range(8 if FULL else 2):
            before = load.history.counts()["delivered"]
            assert until(lambda: load.history.counts()["delivered"] > before + 20, 90), first.log()[-3000:] + second.log()[-3000:]
            subprocess.run([*servers, "kill", "kafka"], check=True, timeout=60)
            subprocess.run([*servers, "up", "kafka"], check=True, timeout=180)
        load.finish()
        print(load.history.counts())
        assert [str(violation) for violation in load.history.check()] == []
        consume_the_rest(first)
        assert nothing_dangles(first) == {"pending_rows": 0, "objects": 0}
