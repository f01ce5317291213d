"""Servers that are killed, and a network that delays, cuts, resets and throttles, under load: nothing acknowledged is lost, nothing hangs,
and Prism is at work again within seconds. proves: O-14, O-15, L-13"""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, ContextManager

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "fault"))

import certificates  # noqa: E402
import kinds  # noqa: E402
from checker import digest_of  # noqa: E402
from load import CONFIG, Load, nothing_dangles, until  # noqa: E402
from process import Server  # noqa: E402
from toxiproxy import Proxy  # noqa: E402

import prism  # noqa: E402
from prism.testing import PrismTestServer, find_binary  # noqa: E402

RECOVERY = 30  # seconds until something new is acknowledged, once the fault is over; Kafka's broker alone takes 5 to start
FULL = os.environ.get("PRISM_FAULT") == "full"


def connects(backend: str) -> bool:
    """Whether this program has a connector of that type."""
    done = subprocess.run([find_binary(), "explain", backend], capture_output=True, text=True, timeout=60)
    return re.search(r"^\s*connects\s+yes$", done.stdout, re.MULTILINE) is not None


LOGS = [name for name in ("kafka", "nats", "redis") if connects(name)]


class Place:
    """Servers of this module's own, which may be killed, each behind a proxy."""

    def __init__(self, root: pathlib.Path) -> None:
        certificates.make(root / "certificates")
        self.root = root
        self.servers: dict[str, Server] = {}
        self.proxies: dict[str, Proxy] = {}
        self._toxiproxy = kinds.Toxiproxy(root)
        self._toxiproxy.up()

    def need(self, name: str) -> None:
        if name in self.servers:
            return
        server = kinds.KINDS[name](self.root)
        server.up()
        self.servers[name] = server
        api = self._toxiproxy.variables()["PRISM_TEST_TOXIPROXY"]
        if name == "kafka":  # clients ask the broker for its address: its listener for them says the proxy's
            self.proxies[name] = Proxy(api, name, f"127.0.0.1:{server.port('proxied')}", f"127.0.0.1:{server.port('proxy')}")
        else:
            self.proxies[name] = Proxy(api, name, f"127.0.0.1:{server.port()}")

    def backends(self, log: str) -> dict[str, Any]:
        """Connections by the proxies, to what nobody has used before."""
        for name in (log, "postgres", "s3"):
            self.need(name)
        unique = f"t{uuid.uuid4().hex[:12]}"
        postgres = self.servers["postgres"]
        assert isinstance(postgres, kinds.Postgres)
        assert postgres._sql("postgres", f"CREATE DATABASE {unique}").returncode == 0
        keys = self.servers["s3"].variables()
        connection: dict[str, dict[str, Any]] = {
            "kafka": {"brokers": [self.proxies[log].address], "prefix": f"{unique}.", "session_timeout": "6s", "heartbeat": "1s"},
            "nats": {"servers": [self.proxies[log].address]},
            "redis": {"address": self.proxies[log].address},
        }
        return {
            "kafka": {"type": log, **connection[log]},
            "postgres": {"type": "postgres", "host": "127.0.0.1", "port": self.proxies["postgres"].port, "user": "prism", "database": unique},
            "s3": {
                "type": "s3",
                "endpoint": f"http://{self.proxies['s3'].address}",
                "access_key_id": keys["PRISM_TEST_S3_ACCESS_KEY"],
                "secret_access_key": keys["PRISM_TEST_S3_SECRET_KEY"],
                "create_bucket": True,
            },
        }

    def close(self) -> None:
        for server in [self._toxiproxy, *self.servers.values()]:
            server.down(remove=True)


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="prism-faults-") as folder:
        made = Place(pathlib.Path(folder))
        try:
            yield made
        finally:
            made.close()


def configuration(log: str) -> dict[str, Any]:
    """The load's; without partitions where the log has none to give."""
    namespace = dict(CONFIG["namespaces"][0])  # type: ignore[arg-type]
    namespace["patterns"] = [
        pattern | ({"bucket": f"payloads-{uuid.uuid4().hex[:8]}"} if pattern["type"] == "claim-check" else {}) for pattern in namespace["patterns"]
    ]
    return {"namespaces": [namespace]}


@contextlib.contextmanager
def load(place: Place, log: str) -> Iterator[tuple[PrismTestServer, Load]]:
    with PrismTestServer(configuration(log), namespace="load", backends=place.backends(log)) as server:
        running = Load([server], [server], [server])
        yield server, running
        running.finish()
        print(running.history.counts())
        assert [str(violation) for violation in running.history.check()] == []
        assert nothing_dangles(server) == {"pending_rows": 0, "objects": 0}


def progress(server: PrismTestServer, running: Load, patience: float = RECOVERY) -> None:
    """New publishes are acknowledged, and messages arrive."""
    before = running.history.counts()
    for what in ("acknowledged", "delivered"):
        assert until(lambda: running.history.counts()[what] > before[what] + 5, patience), f"nothing was {what} for {patience} s\n{server.log()[-3000:]}"


# A killed broker is of the full run: librdkafka 2.0 has been seen to end the process then (src/backends/kafka/README.md).
@pytest.mark.parametrize("who", ["postgres", "s3", *(LOGS if FULL else [])])
def test_a_server_is_killed_under_load(place: Place, who: str) -> None:
    log = who if who in LOGS else "kafka"
    with load(place, log) as (server, running):
        progress(server, running, 60)
        for _ in range(6 if FULL else 2):
            place.servers[who].send(signal.SIGKILL)
            time.sleep(0.5)  # operations meet the refusal
            place.servers[who].up()
            progress(server, running)


Fault = Callable[[Proxy], ContextManager[None]]
FAULTS: dict[str, Fault] = {
    "latency": lambda proxy: proxy.toxic("latency", latency=150, jitter=50),
    "cut": lambda proxy: proxy.cut(),
    "reset": lambda proxy: proxy.toxic("reset_peer", timeout=200),
    "silence": lambda proxy: proxy.toxic("timeout", timeout=0),
    "bandwidth": lambda proxy: proxy.toxic("bandwidth", rate=256),
}


@pytest.mark.parametrize("log", LOGS if FULL else ["kafka"])
def test_the_network_fails_under_load(place: Place, log: str) -> None:
    with load(place, log) as (server, running):
        progress(server, running, 60)
        for name, fault in FAULTS.items():
            for who in (log, "postgres", "s3"):
                print(name, who)
                with fault(place.proxies[who]):
                    time.sleep(3 if FULL else 1.5)
                progress(server, running)


def test_a_server_that_stands_still_hangs_nobody(place: Place) -> None:
    """It is there and does not answer: operations end by their deadlines."""
    with load(place, "kafka") as (server, running):
        progress(server, running, 60)
        for who in ("postgres", "s3"):
            place.servers[who].send(signal.SIGSTOP)
            try:
                payload, began = os.urandom(100_000), time.monotonic()
                running.history.publishing(f"probe-{who}", f"probe-{who}", 0, digest_of(payload))
                with server.client(timeout=2) as client, pytest.raises(prism.PrismError) as failure:
                    client.publish("events", payload, key=f"probe-{who}", message_id=f"probe-{who}")
                assert time.monotonic() - began < 8, failure
            finally:
                place.servers[who].send(signal.SIGCONT)
            progress(server, running)


@pytest.mark.parametrize("who", ["postgres", "kafka", "s3"])
def test_started_while_a_server_is_down(place: Place, who: str, tmp_path: pathlib.Path) -> None:
    """What does not need it is served at once; the rest says whom it waits for, and is served when that one comes."""
    backends = place.backends("kafka") | {"file": {"type": "sqlite", "path": str(tmp_path / "log.db")}}
    config = configuration("kafka")
    config["namespaces"].append({"name": "apart", "client_api": "pubsub", "backend": "file"})
    place.servers[who].send(signal.SIGKILL)
    with PrismTestServer(config, namespace="load", backends=backends) as server:
        with server.client(namespace="apart") as client:
            client.publish("apart", b"served")
            assert next(client.subscribe("apart", timeout=20)).payload == b"served"
        answer = server.get_json("/readyz")
        assert answer["ready"] and "apart" in answer["namespaces"]
        assert [(one["name"], one["backend"]) for one in answer["affected"]] == [("load", who)], answer
        assert answer["affected"][0]["reason"] == "BACKEND_UNAVAILABLE"
        place.servers[who].up()
        assert until(lambda: server.get_json("/readyz")["affected"] == [], RECOVERY), server.get_json("/readyz")
        with server.client() as client:
            for size in (10, 100_000):
                client.publish("events", bytes(size), key="k")
            subscriber = client.subscribe("events", "one", timeout=60)
            assert [len(next(subscriber).payload) for _ in range(2)] == [10, 100_000]


@pytest.mark.parametrize("log", LOGS if FULL else ["kafka"])
def test_two_processes_share_the_work_and_one_is_killed(place: Place, log: str) -> None:
    """Separate processes with nothing in common but the servers: consumers of both share the partitions, and lose none as they come and go."""
    backends = place.backends(log)
    config = configuration(log)
    config["namespaces"][0]["state"] = "postgres"
    arguments = ("--lease", "3")
    with (
        PrismTestServer(config, namespace="load", backends=backends, args=arguments) as first,
        PrismTestServer(config, namespace="load", backends=backends, args=arguments) as second,
    ):
        running = Load([first, second], [first, second], [first, second], consumers=2)
        progress(first, running, 60)
        for n in range(10 if FULL else 3):
            victim = (first, second)[n % 2]
            victim.kill()
            progress((second, first)[n % 2], running)
            victim.restart()
            progress(victim, running)
        running.finish()
        print(running.history.counts())
        assert [str(violation) for violation in running.history.check()] == []
        assert nothing_dangles(first) == {"pending_rows": 0, "objects": 0}
