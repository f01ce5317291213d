"""`prism top` and `prism profile` against a server under load. proves: N-06"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from typing import Any, Callable, Iterator

import pytest

import traffic
from prism.testing import PrismTestServer, find_binary


def run(server: PrismTestServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PRISM_ADMIN": server.admin}
    return subprocess.run([find_binary(), *arguments], env=environment, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def server() -> Iterator[PrismTestServer]:
    """Publishes go to media (every one is stored), plain (over a stream too) and quiet for as long as it lives."""
    with PrismTestServer(traffic.CONFIG) as running:
        stop = threading.Event()

        def publish(name: str, size: int) -> None:
            with running.client(namespace=name) as client:
                while not stop.is_set():
                    client.publish(name, b"x" * size)

        def stream() -> None:
            with running.client(namespace="work") as client:
                while not stop.is_set():
                    for _ in client.publish_many(("work", b"x") for _ in range(20)):
                        pass

        threads = [threading.Thread(target=publish, args=a) for a in (("media", 5000), ("plain", 10), ("quiet", 10))]
        threads.append(threading.Thread(target=stream))
        for thread in threads:
            thread.start()
        try:
            yield running
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def measured(server: PrismTestServer, *arguments: str, option: str, enough: Callable[[Any], bool]) -> Any:
    """What a command shows of a second, or of longer ones where too little happened in it: machines stand still at times."""
    for seconds in (1, 5, 25):
        shown = run(server, *arguments, option, str(seconds), "--format", "json")
        if shown.returncode == 0 and enough(found := json.loads(shown.stdout)):
            return found
    raise AssertionError(shown)


def test_top_shows_namespaces_patterns_backends_and_jobs(server: PrismTestServer) -> None:
    def enough(top: Any) -> bool:
        rates = [ns["calls_per_second"] for ns in top["namespaces"] if ns["namespace"] == "media"]
        rates += [b["calls_per_second"] for b in top["backends"] if (b["backend"], b["operation"]) == ("s3", "objects.put")]
        rates += [j["items_per_second"] for j in top["jobs"] if (j["namespace"], j["job"]) == ("media", "outbox/relay")]
        return len(rates) == 3 and min(rates) > 0

    top = measured(server, "top", "--once", option="--interval", enough=enough)
    assert 0.9 < top["interval_seconds"] < 60 and top["process"]["resident_bytes"] > 1 << 20
    media = next(ns for ns in top["namespaces"] if ns["namespace"] == "media")
    assert media["calls_per_second"] > 0 and media["published_bytes_per_second"] > 1000
    assert 0 < media["publish_p50_seconds"] <= media["publish_p99_seconds"] < 60
    patterns = {p["pattern"]: p for p in top["patterns"] if p["namespace"] == "media"}
    assert patterns.keys() == {"claim-check", "outbox"}
    for pattern in patterns.values():
        assert pattern["calls_per_second"] > 0 and 0 < pattern["own_p50_seconds"] <= pattern["own_p99_seconds"]
    puts = next(b for b in top["backends"] if (b["backend"], b["operation"]) == ("s3", "objects.put"))
    assert puts["calls_per_second"] > 0 and puts["p99_seconds"] > 0
    relay = next(j for j in top["jobs"] if (j["namespace"], j["job"]) == ("media", "outbox/relay"))
    assert sum(relay["shards"].values()) == 2 and relay["items_per_second"] > 0

    text = run(server, "top", "--once", "--interval", "5", "--namespace", "media").stdout
    assert "media" in text and "claim-check" in text and "objects.put" in text and "outbox/relay" in text
    assert "plain " not in text


def test_top_goes_on_until_it_is_told_to_stop(server: PrismTestServer) -> None:
    command = [find_binary(), "top", "--admin", server.admin, "--interval", "0.2", "--format", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        for _ in range(2):
            assert json.loads(running.stdout.readline())["namespaces"]
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 0


def profile(server: PrismTestServer, name: str, *steps: str) -> dict[str, Any]:
    """With these steps. Of so many publishes that the few under way at its ends do not count."""

    def enough(found: Any) -> bool:
        return found["publishes"] >= 100 and tuple(step["step"] for step in found["steps"]) == steps

    found: dict[str, Any] = measured(server, "profile", name, option="--seconds", enough=enough)
    assert found["mean_seconds"] > 0
    assert abs(sum(step["share"] for step in found["steps"]) - 1) < 0.05
    for step in found["steps"]:
        assert -0.01 <= step["share"] <= 1.01
        if step["parts"]:
            assert abs(sum(part["share"] for part in step["parts"]) - step["share"]) < 0.01
    return found


def test_profile_says_which_step_adds_most(server: PrismTestServer) -> None:
    media = profile(server, "media", "api", "claim-check", "outbox")
    parts = {part["operation"] for step in media["steps"] for part in step["parts"]}
    assert {"s3 objects.put", "postgres sql.atomically", "itself"} <= parts
    assert media["most"] == max(media["steps"], key=lambda step: step["share"])["step"]

    plain = profile(server, "plain", "api", "log")
    assert "kafka log.append" in {part["operation"] for part in plain["steps"][1]["parts"]}

    text = run(server, "top", "--profile", "--namespace", "media", "--interval", "5").stdout
    assert "adds most latency" in text and "claim-check" in text


def test_profile_of_streams_and_of_namespaces_whose_patterns_are_not_measured(server: PrismTestServer) -> None:
    profile(server, "work", "log")
    profile(server, "quiet", "api", "chain")
    assert "pattern_metrics" in run(server, "profile", "quiet", "--seconds", "5").stdout


def test_exit_codes(server: PrismTestServer) -> None:
    assert run(server, "top", "--once", "--admin", "127.0.0.1:1").returncode == 3
    assert run(server, "profile", "media", "--admin", "nonsense").returncode == 3
    nowhere = run(server, "profile", "nowhere")
    assert nowhere.returncode == 1 and "NAMESPACE_NOT_FOUND" in nowhere.stderr and "media" in nowhere.stderr
    assert run(server, "top", "--once", "--namespace", "nowhere").returncode == 1
    nothing = run(server, "profile", "kept", "--seconds", "0.2")
    assert nothing.returncode == 4 and "nothing was published" in nothing.stderr
    assert run(server, "top", "--profile").returncode == 2
