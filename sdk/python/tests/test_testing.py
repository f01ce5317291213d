"""PrismTestServer, with a program that stands in for prism. proves: K-04, K-07 (the test server's part)"""

from __future__ import annotations

import gc
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
from typing import Iterator

import pytest

import prism
import prism.testing
from prism.testing import PrismTestServer, find_binary

CONFIG = {"namespace": "test", "client_api": "pubsub", "backend": {"type": "kafka"}}


@pytest.fixture(autouse=True)
def binary(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    program = tmp_path / "prism"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {pathlib.Path(__file__).parent / "fake_prism.py"} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PRISM_BINARY", str(program))
    yield


def test_it_serves_and_leaves_nothing_behind() -> None:
    with PrismTestServer(config=CONFIG) as server:
        folder = server.data.parent
        client = server.client()
        assert client.namespace == "test"
        assert client.publish("t", b"x").success
        assert next(client.subscribe("t", timeout=10)).payload == b"x"
        assert folder.exists() and os.kill(server.pid, 0) is None
        pid = server.pid
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    server.stop()


def test_the_count_waits_for_acknowledgements_and_for_the_clean_up() -> None:
    with PrismTestServer(config=CONFIG) as server:
        client = server.client()
        for _ in range(20):
            client.publish("t", b"x")
            subscriber = client.subscribe("t", timeout=10)
            next(subscriber)
            assert server.s3.object_count() == 0
            subscriber.close()
        client.publish("t", b"x")
        assert server.s3.object_count(bucket="b") == 1
        assert server.objects("other").object_count(timeout=0.05) == 1  # never settled: as it is at the deadline


def test_forms_of_the_configuration(tmp_path: pathlib.Path) -> None:
    whole = {"namespaces": [{"name": "a"}]}
    path = tmp_path / "c.yaml"
    path.write_text(json.dumps(whole))
    for config in (whole, json.dumps(whole), path):
        with PrismTestServer(config, namespace="a") as server:  # type: ignore[arg-type]
            assert json.dumps(whole) in server.log() and server.client().namespace == "a"
    with PrismTestServer(CONFIG) as server:
        expected = {"namespaces": [{"name": "test", "client_api": "pubsub", "backend": {"type": "kafka"}}]}
        assert json.dumps(expected) in server.log()
    with pytest.raises(ValueError, match="namespace"):
        PrismTestServer({"client_api": "pubsub"})


def test_real_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    backends = {"kafka": {"type": "kafka", "brokers": ["127.0.0.1:9092"]}}
    with PrismTestServer(CONFIG, backends=backends) as server:  # fake_prism.py wants `prism serve` for it
        assert '"backends": ' + json.dumps(backends) in server.log()
        assert server.client().publish("t", b"x").success
    asked: list[str] = []

    def default(text: str, data: pathlib.Path) -> dict[str, object] | None:
        asked.append(text)
        return backends if "kafka" in text else None

    monkeypatch.setattr(prism.testing, "default_backends", default)
    with PrismTestServer(CONFIG) as server:
        assert '"backends": ' + json.dumps(backends) in server.log()
    with PrismTestServer({"namespace": "other"}) as server:
        assert "backends" not in server.log()
    assert len(asked) == 2


def test_a_failure_shows_the_servers_own_words() -> None:
    with pytest.raises(RuntimeError, match="it is broken"):
        PrismTestServer({"namespace": "broken"})


def test_kill_and_restart_keep_data_and_address() -> None:
    with PrismTestServer(CONFIG) as server:
        client = server.client()
        hasty = server.client(connect_timeout=0.1)
        subscriber = client.subscribe("t", timeout=20)
        address = server.address
        server.kill()
        with pytest.raises(prism.PrismError):
            hasty.publish("t", b"x")
        server.restart()
        assert server.address == address and (server.data / "starts").read_text() == "xx"
        client.publish("t", b"x")
        assert next(subscriber).payload == b"x"


def test_a_paused_server_answers_nothing_until_it_goes_on() -> None:
    with PrismTestServer(CONFIG) as server:
        client = server.client()
        client.publish("t", b"x")
        server.pause()
        with pytest.raises(prism.Timeout):
            client.publish("t", b"x", timeout=0.2)
        server.resume()
        assert client.publish("t", b"x").success
        server.pause()  # stopping a paused one works


def alive(pid: int) -> bool:
    """Whether there is such a process, and not only the rest of one that nobody has waited for."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while alive(pid):
        assert time.monotonic() < deadline, f"{pid} goes on"
        time.sleep(0.01)


def test_a_restart_against_a_stop_leaves_no_server() -> None:
    for _ in range(5):
        server = PrismTestServer(CONFIG)
        pids = {server.pid}
        errors: list[BaseException] = []
        begun = threading.Barrier(2)

        def restart() -> None:
            begun.wait(10)
            try:
                while True:
                    server.restart()
                    pids.add(server.pid)
            except RuntimeError as stopped:
                errors.append(stopped)

        thread = threading.Thread(target=restart)
        thread.start()
        begun.wait(10)
        server.stop()
        thread.join(30)
        assert not thread.is_alive() and "stopped for good" in str(errors[0])
        for pid in pids:
            wait_gone(pid)
        assert not server.data.parent.exists()


def test_a_server_outlives_the_thread_that_started_it() -> None:
    with PrismTestServer(CONFIG) as server:
        thread = threading.Thread(target=server.restart)
        thread.start()
        thread.join(30)
        assert server.client().publish("t", b"x").success


def test_a_forgotten_server_ends() -> None:
    server = PrismTestServer(CONFIG)
    pid, folder = server.pid, server.data.parent
    del server
    gc.collect()
    wait_gone(pid)
    assert not folder.exists()


@pytest.mark.skipif(shutil.which("setpriv") is None and "CI" not in os.environ, reason="only where setpriv is installed")
def test_a_server_dies_with_its_process() -> None:
    program = (
        "import os, signal, prism.testing\n"
        f"server = prism.testing.PrismTestServer({CONFIG!r})\n"
        "print(server.pid, server.data.parent, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    pid, folder = done.stdout.split()
    wait_gone(int(pid))
    shutil.rmtree(folder)


def test_where_the_program_is_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    assert find_binary() == os.environ["PRISM_BINARY"]
    monkeypatch.setenv("PRISM_BINARY", str(tmp_path / "nothing"))
    with pytest.raises(FileNotFoundError, match="PRISM_BINARY"):
        find_binary()
    checkout = tmp_path / "checkout"
    (checkout / "proto" / "prism").mkdir(parents=True)
    for preset in ("dev", "release"):
        (checkout / "build" / preset).mkdir(parents=True)
        program = checkout / "build" / preset / "prism"
        program.write_text("")
        program.chmod(0o755)
        monkeypatch.delenv("PRISM_BINARY", raising=False)
        monkeypatch.chdir(checkout / "proto")
        assert find_binary() == str(program)
