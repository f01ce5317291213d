"""A disk that becomes full: each refusal says so, nothing acknowledged is lost, and the server recovers when there is room again.
proves: C-27, O-19 (see docs/requirements.md)"""

from __future__ import annotations

import os
import pathlib
import subprocess
from typing import Iterator

import grpc
import pytest

import prism
from checker import History, digest_of
from load import until
from prism.testing import PrismTestServer, find_binary

SIZE_MB = 48
CONFIG = {
    "namespace": "files",
    "patterns": [
        {"type": "outbox", "database": "postgres"},
        {"type": "claim-check", "threshold": "1MB", "storage": "s3", "cleanup": {"interval": "100ms"}},
    ],
    "backend": {"type": "kafka"},
}


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> Iterator[PrismTestServer]:
    """A server whose data folder is a small file system, which only it sees and which goes with it."""
    data = tmp_path / "data"
    data.mkdir()
    mount = f"mount -t tmpfs -o size={SIZE_MB}m tmpfs {data}"
    unshare = ["unshare", "--mount"] + ([] if os.geteuid() == 0 else ["--map-root-user"])
    tried = subprocess.run([*unshare, "sh", "-c", mount], capture_output=True, text=True)
    if tried.returncode != 0:
        if os.environ.get("CI"):
            pytest.fail(f"no small file system can be mounted here: {tried.stderr}")
        pytest.skip(f"no small file system can be mounted here: {tried.stderr.strip()}")
    program = tmp_path / "prism-on-a-small-disk"
    program.write_text(f"#!/bin/sh\nexec {' '.join(unshare)} sh -c '{mount} && exec \"$0\" \"$@\"' {find_binary()} \"$@\"\n")
    program.chmod(0o755)
    with PrismTestServer(CONFIG, binary=str(program), data=data) as server:
        yield server


def test_a_full_disk_loses_nothing(small_disk: PrismTestServer) -> None:
    history = History(("g",))
    client = small_disk.client()
    refused: list[prism.PrismError] = []

    def publish(name: str, key: str, sequence: int, payload: bytes) -> bool:
        history.publishing(name, key, sequence, digest_of(payload))
        try:
            client.publish("t", payload, key=key, message_id=name, timeout=2)  # refusals are repeated until then
        except prism.PrismError as error:
            refused.append(error)
            return False
        history.acknowledged(name)
        return True

    def all_say_why() -> None:
        for error in refused:
            assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "DISK_FULL"), str(error)
            assert error.hint and error.retry != "unknown_outcome"
        refused.clear()

    # Large payloads until there is no room: a refused upload leaves nothing behind, so that small messages may still find some.
    stored = sum(publish(f"large-{n}", f"large-{n}", 0, os.urandom(5_000_000)) for n in range(14))
    assert 3 <= stored < 12, stored
    all_say_why()
    passed = 0
    while passed < 50 and publish(f"small-{passed}", "small", passed, b"%d" % passed):
        passed += 1
    all_say_why()

    # A stream whose size is not known is refused in the middle of it.
    with pytest.raises(prism.PrismError) as streamed:
        client.publish("t", iter([os.urandom(500_000)] * 100))
    assert streamed.value.reason == "DISK_FULL", str(streamed.value)

    # Whatever was acknowledged arrives, and consuming it makes room.
    def consume() -> None:
        with client.subscribe("t", "g", auto_ack=False, timeout=10, ack_deadline=5) as subscriber:
            while history.missing():
                event = next(subscriber)
                history.delivered("g", event.id, digest_of(event.payload) if event.error is None else None, str(event.error))
                event.ack()
            subscriber.wait_settled(10)

    consume()
    assert [str(violation) for violation in history.check()] == []
    # What was consumed made room.
    assert until(lambda: small_disk.s3.object_count() == 0, 20)
    assert publish("again", "again", 0, os.urandom(25_000_000)), refused
    consume()
    assert [str(violation) for violation in history.check()] == []
