"""Changes of the configuration while the server serves: prism apply, SIGHUP, a file that changes. proves: R-70, N-04, N-05"""

from __future__ import annotations

import copy
import json
import os
import pathlib
import random
import re
import signal
import threading
import time
import urllib.error
import urllib.request
from typing import Any, Iterator

import grpc
import pytest

import prism
from prism.pubsub.v1 import pubsub_pb2, pubsub_pb2_grpc
from prism.testing import PrismTestServer
from program import Cli, until

BASE: dict[str, Any] = {
    "namespaces": [
        {"name": "orders", "client_api": "pubsub", "patterns": [{"type": "outbox", "database": "postgres", "table": "orders_outbox"}], "backend": "kafka"},
        {"name": "plain", "client_api": "pubsub", "backend": {"type": "kafka", "partitions": 1}},
    ]
}


def changed(**orders: Any) -> dict[str, Any]:
    """BASE with other options of the namespace orders."""
    config = copy.deepcopy(BASE)
    config["namespaces"][0] |= orders
    return config


BATCHES = changed(patterns=[{"type": "outbox", "database": "postgres", "table": "orders_outbox", "publisher": {"batch_size": 7}}])
NO_OUTBOX = changed(patterns=[])


def file_of(server: PrismTestServer) -> pathlib.Path:
    return server._file


def apply(server: PrismTestServer, config: dict[str, Any] | str | pathlib.Path, *options: str) -> Any:
    cli = Cli()
    cli.environment["PRISM_ADMIN"] = server.admin
    if isinstance(config, pathlib.Path):
        return cli("apply", config, *options)
    text = config if isinstance(config, str) else json.dumps(config, indent=2)
    return cli("apply", "-", *options, stdin=text.encode())


def status(server: PrismTestServer) -> Any:
    return server.get_json("/v1/config")


def metrics(server: PrismTestServer) -> str:
    with urllib.request.urlopen(f"http://{server.admin}/metrics", timeout=10) as answer:
        return answer.read().decode()


def metric(server: PrismTestServer, series: str) -> float:
    found = re.search(rf"^{re.escape(series)} (\S+)$", metrics(server), re.MULTILINE)
    assert found, series
    return float(found[1])


def namespaces(server: PrismTestServer) -> dict[str, list[str]]:
    return {ns["name"]: ns["chain"] for ns in server.get_json("/namespaces")["namespaces"]}


def pause(server: PrismTestServer, job: str) -> None:
    server.post(f"/jobs/pause?name={job}")
    until(lambda: all(j["state"] == "paused" for j in server.get_json("/jobs")["jobs"] if j["name"] == job))


@pytest.fixture
def server() -> Iterator[PrismTestServer]:
    with PrismTestServer(BASE, args=("--no-watch",)) as running:
        yield running


def test_apply_shows_what_it_changes_and_the_next_start_serves_it(server: PrismTestServer) -> None:
    next_config = copy.deepcopy(BATCHES)
    next_config["namespaces"].append({"name": "new", "client_api": "queue", "backend": "kafka"})
    before = file_of(server).read_text()
    dry = apply(server, next_config, "--dry-run")
    assert dry.returncode == 5, dry
    assert "~ namespace orders" in dry.stdout and "~ outbox.publisher.batch_size: 1000 -> 7" in dry.stdout and "+ namespace new" in dry.stdout
    assert status(server)["generation"] == 1 and file_of(server).read_text() == before

    done = apply(server, next_config)
    assert done.returncode == 0 and "applied: generation 2" in done.stdout, done
    assert json.loads(file_of(server).read_text()) == next_config
    assert set(namespaces(server)) == {"orders", "plain", "new"}
    assert metric(server, "prism_config_generation") == 2
    assert metric(server, 'prism_config_reloads_total{result="replaced"}') == 1
    assert "the configuration was replaced" in server.log() and "outbox.publisher.batch_size" in server.log()

    again = apply(server, next_config)
    assert again.returncode == 0 and "nothing to do" in again.stdout
    assert apply(server, next_config, "--dry-run").returncode == 0
    # Another spelling of the same, comments and all, is no change, and is kept.
    text = "# by hand\n" + json.dumps(next_config)
    assert "nothing to do" in apply(server, text).stdout and file_of(server).read_text() == text

    as_json = apply(server, BASE, "--dry-run", "--format", "json")
    answer = json.loads(as_json.stdout)
    assert as_json.returncode == 5 and answer["result"] == "would_replace"
    assert {(part["part"], part["name"], part["change"]) for part in answer["changes"]} == {("namespace", "orders", "changed"), ("namespace", "new", "removed")}
    server.restart()
    assert set(namespaces(server)) == {"orders", "plain", "new"}


def test_an_invalid_text_changes_nothing_and_is_said_loudly(server: PrismTestServer) -> None:
    wrong = changed(bakend="kafka")
    wrong["namespaces"][1]["name"] = "Not A Name"
    for options in ((), ("--dry-run",)):
        refused = apply(server, wrong, *options)
        assert refused.returncode == 1, refused
        assert "[UNKNOWN_OPTION]" in refused.stderr and "nothing was changed: generation 1" in refused.stderr
        assert re.search(r"^<stdin>:\d+:\d+: error: ", refused.stderr, re.MULTILINE)
        (file_of(server).parent / "mine.yaml").write_text(json.dumps(wrong))
        named = apply(server, file_of(server).parent / "mine.yaml", *options)
        assert re.search(r"^\S*/mine\.yaml:\d+:\d+: error: ", named.stderr, re.MULTILINE) and "prism.yaml" not in named.stderr
    file_of(server).write_text(json.dumps(wrong))
    os.kill(server.pid, signal.SIGHUP)
    until(lambda: status(server)["last"]["source"] == "signal")
    last = status(server)["last"]
    assert last["result"] == "invalid" and last["diagnostics"] and last["generation"] == 1
    assert metric(server, "prism_config_last_reload_successful") == 0
    assert metric(server, 'prism_config_reloads_total{result="invalid"}') == 3
    assert "the new configuration was not taken up" in server.log()
    assert server.client(namespace="orders").publish("orders", b"x").success
    # What stands in the file and is not served is not overwritten without a word.
    assert "[FILE_CHANGED]" in apply(server, BATCHES).stderr
    file_of(server).write_text(json.dumps(BASE, indent=2))
    assert apply(server, BATCHES).returncode == 0
    assert metric(server, "prism_config_last_reload_successful") == 1


def test_work_is_not_left_behind(server: PrismTestServer) -> None:
    client = server.client(namespace="orders")
    pause(server, "orders/outbox/relay")
    client.publish("orders", b"acknowledged")
    removed = {"namespaces": BASE["namespaces"][1:]}
    for config in (NO_OUTBOX, removed, changed(patterns=[{"type": "outbox", "database": "postgres", "table": "elsewhere"}])):
        dry = apply(server, config, "--dry-run")
        assert dry.returncode == 5 and "in the way now: namespace orders has 1 row of table orders_outbox that is not published" in dry.stdout, dry
        refused = apply(server, config)
        assert refused.returncode == 1 and "[NAMESPACE_HAS_WORK]" in refused.stderr and "--abandon orders" in refused.stderr, refused
    assert status(server)["generation"] == 1 and json.loads(file_of(server).read_text()) == BASE
    assert client.publish("orders", b"served on").success
    # The safe way: let it be done.
    server.post("/jobs/resume?name=orders/outbox/relay")
    until(lambda: "in the way" not in apply(server, NO_OUTBOX, "--dry-run").stdout)
    assert apply(server, NO_OUTBOX).returncode == 0
    assert namespaces(server)["orders"] == ["kafka"]
    subscriber = client.subscribe("orders", timeout=60)
    assert [next(subscriber).payload for _ in range(2)] == [b"acknowledged", b"served on"]
    assert client.wait_settled(60)
    # Or give it up, by name.
    client.publish("orders", b"nobody will read this")
    assert apply(server, removed, "--abandon", "plain").returncode == 1
    for options in ((), ("--dry-run",)):
        unknown = apply(server, removed, "--abandon", "oders", *options)
        assert unknown.returncode == 1 and "[NAMESPACE_NOT_FOUND]" in unknown.stderr and "did you mean 'orders'?" in unknown.stderr, unknown
    given_up = apply(server, removed, "--abandon", "orders")
    assert given_up.returncode == 0 and "abandoned: namespace orders had 1 message in topic orders" in given_up.stdout, given_up
    assert "unfinished work was abandoned" in server.log()


def test_partitions_that_a_topic_has_not_are_refused(server: PrismTestServer) -> None:
    server.client(namespace="plain").publish("plain", b"x")
    more = copy.deepcopy(BASE)
    more["namespaces"][1]["backend"]["partitions"] = 4
    for options in ((), ("--dry-run",)):
        refused = apply(server, more, *options)
        assert refused.returncode == 1 and 'topic "plain" has 1 partition and the file asks for 4' in refused.stderr, refused
        assert "[TOPIC_PARTITIONS_FIXED]" in refused.stderr and "new `topic`" in refused.stderr
    file_of(server).write_text(json.dumps(more))
    os.kill(server.pid, signal.SIGHUP)
    until(lambda: status(server)["last"]["result"] == "refused")
    # A start goes on with what there is, and says so.
    server.restart()
    assert "a topic has other partitions than the file asks for" in server.log()
    notices = {ns["name"]: ns["notices"] for ns in server.get_json("/namespaces")["namespaces"]}
    assert notices["orders"] == [] and [n["reason"] for n in notices["plain"]] == ["TOPIC_PARTITIONS_FIXED"]


def test_what_was_changed_while_the_server_was_stopped_is_not_lost(server: PrismTestServer) -> None:
    client = server.client(namespace="orders")
    pause(server, "orders/outbox/relay")
    for payload in (b"one", b"two"):
        client.publish("orders", payload, key="k")
    server.kill()
    file_of(server).write_text(json.dumps(changed(patterns=[{"type": "outbox", "database": "postgres", "table": "second_outbox"}])))
    server._args = ("--no-watch", "--lease", "1")
    server.restart()
    client.publish("orders", b"three", key="k")
    subscriber = client.subscribe("orders", timeout=60)
    assert [next(subscriber).payload for _ in range(3)] == [b"one", b"two", b"three"]
    # Messages in a topic that nobody reads any more: it says so, and how to go on.
    server.client(namespace="plain").publish("plain", b"left")
    subscriber.close()
    server.kill()
    before = file_of(server).read_text()
    elsewhere = copy.deepcopy(BASE)
    elsewhere["namespaces"][1]["backend"]["topic"] = "elsewhere"
    file_of(server).write_text(json.dumps(elsewhere))
    with pytest.raises(RuntimeError) as refused:
        server.restart()
    said = str(refused.value)
    assert "prism ended with 1" in said and "[NAMESPACE_HAS_WORK]" in said and 'namespace "plain" has 1 message in topic plain' in said, said
    kept = re.search(r"put back what was served before \((\S+)\)", said)
    assert kept and "start with --abandon plain" in said
    assert pathlib.Path(kept[1]).read_text() == before and pathlib.Path(kept[1]).stat().st_mode & 0o777 == 0o600
    server._args = ("--no-watch", "--abandon", "plain")
    server.restart()
    assert "unfinished work was abandoned" in server.log() and server.client(namespace="plain").publish("plain", b"x").success
    server.restart()
    assert "nothing to abandon" not in server.log(), "the same command starts it again"


def test_sighup_reads_the_file_again(server: PrismTestServer) -> None:
    file_of(server).write_text(json.dumps(BATCHES))
    assert status(server)["generation"] == 1, "not by itself"
    os.kill(server.pid, signal.SIGHUP)
    until(lambda: status(server)["generation"] == 2)
    assert status(server)["source"] == "signal"
    os.kill(server.pid, signal.SIGHUP)
    until(lambda: metric(server, 'prism_config_reloads_total{result="unchanged"}') == 1)
    assert status(server)["generation"] == 2


def test_a_file_that_changes_is_taken_up(tmp_path: pathlib.Path) -> None:
    # As Kubernetes mounts it: prism.yaml -> ..data/prism.yaml, ..data -> a folder for each version.
    def version(name: str, config: dict[str, Any]) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "prism.yaml").write_text(json.dumps(config))
        (tmp_path / "..next").symlink_to(name)
        (tmp_path / "..next").rename(tmp_path / "..data")

    version("..1", BASE)
    link = tmp_path / "prism.yaml"
    link.symlink_to("..data/prism.yaml")
    with PrismTestServer(link) as server:
        version("..2", BATCHES)
        until(lambda: status(server)["generation"] == 2)
        assert status(server)["source"] == "watch"
        (tmp_path / "..1" / "prism.yaml").unlink()  # the old version goes
        version("..3", NO_OUTBOX)
        until(lambda: status(server)["generation"] == 3)

    plain = tmp_path / "editor.yaml"
    plain.write_text(json.dumps(BASE))
    with PrismTestServer(plain) as server:
        (tmp_path / "editor.yaml~").write_text(json.dumps(BATCHES))  # an editor's rename
        (tmp_path / "editor.yaml~").rename(plain)
        until(lambda: status(server)["generation"] == 2)
        plain.write_text("namespaces: [")  # in place, and broken
        until(lambda: status(server)["last"]["result"] == "invalid")
        plain.write_text(json.dumps(BASE))
        until(lambda: status(server)["generation"] == 3)
        assert server.client(namespace="orders").publish("orders", b"x").success


def test_changes_ask_for_the_token(server: PrismTestServer) -> None:
    def ask(path: str, token: str | None) -> int:
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        try:
            with urllib.request.urlopen(urllib.request.Request(f"http://{server.admin}{path}", json.dumps(BATCHES).encode(), headers), timeout=10) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            assert json.loads(error.read())["error"]["reason"] == ("TOKEN_MISSING" if token is None else "TOKEN_WRONG")
            return error.code

    token = pathlib.Path(status(server)["token_file"])
    assert token.stat().st_mode & 0o777 == 0o600
    for wrong in (None, "", "wrong", token.read_text().strip()[:-1]):
        for path in ("/v1/config", "/v1/config?dry_run=1", "/v1/config/reload", "/jobs/pause?name=orders/outbox/relay", "/jobs/resume?name=x"):
            assert ask(path, wrong) == 401
    assert all(job["state"] != "paused" for job in server.get_json("/jobs")["jobs"])
    assert status(server)["generation"] == 1
    assert ask("/v1/config", token.read_text().strip()) == 200
    assert status(server)["generation"] == 2
    unreadable = Cli()
    unreadable.environment |= {"PRISM_ADMIN": server.admin, "PRISM_ADMIN_TOKEN": "wrong"}
    refused = unreadable("apply", "-", stdin=b"namespaces: []")
    assert refused.returncode == 1 and refused.stderr.endswith("nothing was changed\n"), refused
    assert "[TOKEN_WRONG]" in refused.stderr and "PRISM_ADMIN_TOKEN holds another one" in refused.stderr and str(token) in refused.stderr
    away = Cli()("apply", "-", "--admin", "127.0.0.1:1", stdin=b"")
    assert away.returncode == 3 and "no admin server answers at 127.0.0.1:1: the connection was refused" in away.stderr
    assert Cli()("apply", "/no/such/file").returncode == 2


def test_addresses_change_with_the_next_start(server: PrismTestServer) -> None:
    moved = BASE | {"server": {"listen": "127.0.0.1:1"}}
    done = apply(server, moved)
    assert done.returncode == 0 and "takes effect when the server is started again" in done.stdout, done
    assert server.client(namespace="plain").publish("plain", b"x").success


def test_subscriptions_go_on(server: PrismTestServer) -> None:
    client = server.client(namespace="orders")
    other = server.client(namespace="plain")
    subscriber = client.subscribe("orders", auto_ack=False, timeout=60)
    untouched = other.subscribe("plain", timeout=60)
    streams = [s._subscription._stream for s in (subscriber, untouched)]
    client.publish("orders", b"one", key="k")
    first = next(subscriber)
    # Only the way in changes: nobody who consumes notices.
    assert apply(server, BATCHES).returncode == 0
    other.publish("plain", b"plain")
    assert next(untouched).payload == b"plain"
    assert [s._subscription._stream for s in (subscriber, untouched)] == streams
    # The groups change: the subscription is opened again by itself; what is out can still be settled.
    grouped = copy.deepcopy(BATCHES)
    grouped["namespaces"][0]["patterns"].append({"type": "pub-sub"})
    grouped["namespaces"][0]["pub_sub"] = {"consumer_groups": [{"name": "default"}]}
    assert apply(server, grouped).returncode == 0
    until(lambda: subscriber._subscription._stream is not streams[0])
    client.publish("orders", b"unkeyed")
    assert next(subscriber).payload == b"unkeyed", "the new stream brings what comes while the old one is settled"
    assert first.ack().result(60) is prism.SettleStatus.OK
    client.publish("orders", b"two", key="k")
    second = next(subscriber)
    assert (second.payload, second.attempt) == (b"two", 1)
    assert untouched._subscription._stream is streams[1]
    # Gone: the subscription ends with the reason.
    assert second.ack().result(60) is prism.SettleStatus.OK
    gone = apply(server, {"namespaces": BASE["namespaces"][1:]}, "--abandon", "orders")
    assert gone.returncode == 0, gone
    with pytest.raises(prism.PrismError) as ended:
        while True:
            next(subscriber)
    assert ended.value.reason == "NAMESPACE_NOT_FOUND"


def test_other_subscribers_are_told(server: PrismTestServer) -> None:
    grouped = copy.deepcopy(BASE)
    grouped["namespaces"][0]["patterns"].append({"type": "pub-sub"})
    grouped["namespaces"][0]["pub_sub"] = {"consumer_groups": [{"name": "simple"}, {"name": "cli"}]}
    command = Cli(server.address).start("subscribe", "orders", "--group", "cli", "--count", "2", "--timeout", "60")
    client = server.client(namespace="orders")
    with grpc.insecure_channel(server.address) as channel:
        stub = pubsub_pb2_grpc.PubSubServiceStub(channel)
        events = stub.Subscribe(pubsub_pb2.SubscribeRequest(topic="orders", group="simple"), timeout=60, metadata=(("prism-namespace", "orders"),))
        client.publish("orders", b"one")
        assert next(events).payload == b"one"
        assert command.stdout is not None and command.stdout.readline() == "one\n"
        assert apply(server, grouped).returncode == 0
        with pytest.raises(grpc.RpcError) as ended:
            next(events)
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE and "configuration" in ended.value.details()
    client.publish("orders", b"two")
    out, err = command.communicate(timeout=60)
    assert (command.returncode, out, err) == (0, "two\n", ""), "the command subscribes again by itself"


def test_a_refused_file_is_tried_again_when_its_chance_is_better(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "prism.yaml"
    path.write_text(json.dumps(BASE))
    with PrismTestServer(path) as server:
        pause(server, "orders/outbox/relay")
        server.client(namespace="orders").publish("orders", b"x")
        path.write_text(json.dumps(NO_OUTBOX))
        until(lambda: status(server)["last"]["result"] == "refused")
        server.post("/jobs/resume?name=orders/outbox/relay")
        until(lambda: status(server)["generation"] == 2)
        assert namespaces(server)["orders"] == ["kafka"]


class Traffic:
    """Publishers, each with its own key, and one consumer. Each refused publish is a failure."""

    def __init__(self, server: PrismTestServer, namespace: str, publishers: int) -> None:
        self._server = server
        self._namespace = namespace
        self.failures: list[str] = []
        self.acknowledged = [0] * publishers
        self.received = [0] * publishers
        self.misplaced: list[str] = []
        self._stop = threading.Event()
        self._subscriber = server.client(namespace=namespace).subscribe(namespace, timeout=0.5)
        self._publishers = [threading.Thread(target=self._publish, args=(n,), daemon=True) for n in range(publishers)]
        self._consumer = threading.Thread(target=self._consume, daemon=True)
        self._done = threading.Event()
        for thread in (*self._publishers, self._consumer):
            thread.start()

    def finish(self) -> None:
        self._stop.set()
        for thread in self._publishers:
            thread.join(30)
            assert not thread.is_alive()
        until(lambda: self.received == self.acknowledged or not self._consumer.is_alive(), 60)
        self._done.set()
        self._consumer.join(10)
        assert not self.failures, self.failures[:5]
        assert not self.misplaced, self.misplaced[:5]
        assert self.received == self.acknowledged, "acknowledged, and not delivered"

    def _publish(self, number: int) -> None:
        with grpc.insecure_channel(self._server.address) as channel:
            stub = pubsub_pb2_grpc.PubSubServiceStub(channel)
            while not self._stop.is_set():
                n = self.acknowledged[number]
                request = pubsub_pb2.PublishRequest(topic=self._namespace, payload=f"{number} {n}".encode(), ordering_key=f"key-{number}")
                try:
                    stub.Publish(request, timeout=30, metadata=(("prism-namespace", self._namespace),))
                except grpc.RpcError as error:
                    self.failures.append(str(error))
                    return
                self.acknowledged[number] = n + 1

    def _consume(self) -> None:
        while not self._done.is_set():
            try:
                event = next(self._subscriber)
            except prism.Timeout:
                continue
            except prism.PrismError as error:
                self.failures.append(f"subscription: {error}")
                return
            number, n = map(int, event.payload.split())
            if n > self.received[number]:
                self.misplaced.append(f"{n} of publisher {number} came before {self.received[number]}")
            self.received[number] = max(self.received[number], n + 1)


def resources(server: PrismTestServer) -> tuple[int, int]:
    """Resident bytes and open files of the server."""
    pages = int(pathlib.Path(f"/proc/{server.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir(f"/proc/{server.pid}/fd"))


# The full form takes a minute: PRISM_LIVE_CHANGE_SECONDS=60.
def test_reload_under_load_fails_no_request(server: PrismTestServer) -> None:
    seconds = float(os.environ.get("PRISM_LIVE_CHANGE_SECONDS", "12"))
    changes = max(40, round(200 * seconds / 60))
    stored = changed(
        patterns=[
            {"type": "outbox", "database": "postgres", "table": "orders_outbox", "publisher": {"batch_size": 50}},
            {"type": "claim-check", "threshold": "1MB", "storage": "s3"},
        ]
    )
    other_table = changed(patterns=[{"type": "outbox", "database": "postgres", "table": "second_outbox"}])
    turns = [BATCHES, NO_OUTBOX, BASE, other_table, stored, BASE, NO_OUTBOX, other_table]
    traffic = [Traffic(server, "orders", publishers=4), Traffic(server, "plain", publishers=2)]
    before = (0, 0)
    begun = time.monotonic()
    refused = 0
    for i in range(changes):
        while (done := apply(server, turns[i % len(turns)])).returncode != 0:
            # A machine that stood still for over a second: the work did not shrink, and the change is for later.
            assert "[NAMESPACE_HAS_WORK]" in done.stderr and refused < changes // 10, done
            refused += 1
        if i == changes // 4:
            before = resources(server)
        time.sleep(max(0.0, begun + (i + 1) * seconds / changes - time.monotonic()))
    after = resources(server)
    for each in traffic:
        each.finish()
        assert min(each.acknowledged) > changes // 4, "it was under load"
    assert status(server)["generation"] == changes + 1
    assert after[1] <= before[1] + 10, f"open files grew from {before[1]} to {after[1]}"
    assert after[0] <= before[0] * 1.25 + (32 << 20), f"memory grew from {before[0]} to {after[0]} bytes"


def test_a_kill_in_the_middle_of_a_change_loses_nothing() -> None:
    dice = random.Random(7)
    configs = [NO_OUTBOX, BASE, changed(patterns=[{"type": "outbox", "database": "postgres", "table": "second_outbox"}])]
    with PrismTestServer(BASE, args=("--no-watch", "--lease", "1")) as server:
        acknowledged: list[str] = []
        for round_number in range(6):
            client = server.client(namespace="orders", timeout=5)
            for n in range(20):
                name = f"{round_number} {n}"
                client.publish("orders", name.encode(), key="k")
                acknowledged.append(name)
            changing = threading.Thread(target=apply, args=(server, configs[round_number % len(configs)]), daemon=True)
            changing.start()
            time.sleep(dice.uniform(0.0, 0.08))
            server.kill()
            changing.join(30)
            client.close()
            served = json.loads(file_of(server).read_text())
            assert served in [BASE, *configs], "the file is whole, whenever the server was killed"
            server.restart()
            assert namespaces(server)["orders"][-1] == "kafka"
        # An outbox is drained before the file changes: what was acknowledged is where the served file looks for it.
        client = server.client(namespace="orders")
        subscriber = client.subscribe("orders", timeout=60)
        seen: dict[str, None] = {}
        while len(seen) < len(acknowledged):
            seen[next(subscriber).payload.decode()] = None
        assert list(seen) == acknowledged, "first occurrences come in the order in which they were acknowledged"

