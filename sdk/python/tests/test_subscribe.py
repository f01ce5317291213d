"""Subscribing, against a server in memory. proves: A-02, A-07, A-11 (the client's part)"""

from __future__ import annotations

import io
import os
import pathlib
import threading
import time
from datetime import datetime, timezone

import pytest
from fake_server import FakeServer

import prism
from prism.common.v1 import error_pb2


def wait_until(condition: object, timeout: float = 10) -> None:
    deadline = time.monotonic() + timeout
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.005)


def test_an_event_has_what_was_published(client: prism.Client) -> None:
    client.publish("t", b'{"a": 1}', {"x": "y"}, key="k", message_id="m", content_type="application/json")
    with client.subscribe("t", timeout=10) as subscriber:
        event = next(subscriber)
    assert (event.id, event.payload, event.metadata, event.key) == ("m", b'{"a": 1}', {"x": "y"}, "k")
    assert (event.content_type, event.attempt, event.position, event.topic) == ("application/json", 1, "p0", "t")
    assert event.json() == {"a": 1} and event.text == '{"a": 1}' and event.size == 8 and event.error is None
    assert abs((datetime.now(timezone.utc) - event.publish_time).total_seconds()) < 60


def test_auto_ack_acknowledges_what_was_handed_over_and_no_more(server: FakeServer, client: prism.Client) -> None:
    for i in range(10):
        client.publish("t", b"x", message_id=f"m{i}")
    with client.subscribe("t", timeout=10) as subscriber:
        taken = [next(subscriber).id for _ in range(3)]
    assert [settlement[:2] for settlement in server.settlements] == [("ack", id) for id in taken]
    with client.subscribe("t", timeout=10) as subscriber:
        assert {next(subscriber).id for _ in range(7)} == {f"m{i}" for i in range(10)} - set(taken)


def test_the_acknowledgement_is_sent_at_once(server: FakeServer, client: prism.Client) -> None:
    client.publish("t", b"x", message_id="m")
    subscriber = client.subscribe("t", timeout=10)
    next(subscriber)
    assert client.wait_settled(10)
    assert server.settlements == [("ack", "m", None)]


def test_leaving_the_loop_ends_the_subscription(server: FakeServer, client: prism.Client) -> None:
    for i in range(3):
        client.publish("t", b"x", message_id=f"m{i}")
    for event in client.subscribe("t", timeout=10):
        assert event.id == "m0"
        break
    # What it had received and not handed over goes to the next one, though `event` is still there.
    with client.subscribe("t", timeout=10) as subscriber:
        assert {next(subscriber).id, next(subscriber).id} == {"m1", "m2"}


def test_an_event_that_is_kept_can_be_settled(client: prism.Client) -> None:
    client.publish("t", b"x", message_id="m")
    event = next(client.subscribe("t", auto_ack=False, timeout=10))
    assert event.ack().result(10) is prism.SettleStatus.OK


def test_manual_acknowledgement(server: FakeServer, client: prism.Client) -> None:
    for i in range(3):
        client.publish("t", b"x", message_id=f"m{i}")
    with client.subscribe("t", auto_ack=False, timeout=10, ack_deadline=7) as subscriber:
        first, second, third = next(subscriber), next(subscriber), next(subscriber)
        assert first.extend(by=5).result(10) is prism.SettleStatus.OK
        assert first.ack().result(10) is prism.SettleStatus.OK
        assert first.ack().result(10) is prism.SettleStatus.STALE
        assert second.nack(delay=0.01, reason="busy").result(10) is prism.SettleStatus.OK
        again = next(subscriber)
        assert again.id == "m1" and again.attempt == 2
        assert again.ack().result(10) is prism.SettleStatus.OK
        assert third.ack().result(10) is prism.SettleStatus.OK
    assert server.settlements == [
        ("extend", "m0", 5.0), ("ack", "m0", None), ("nack", "m1", 0.01), ("ack", "m1", None), ("ack", "m2", None)
    ]  # fmt: skip
    assert server.opens[0].ack_deadline.ToTimedelta().total_seconds() == 7
    assert first.ack().result(10) is prism.SettleStatus.UNKNOWN  # the subscription is closed


@pytest.mark.parametrize("spool_above", [0, 1000, 64 << 20])
def test_a_large_payload_is_put_together(
    server: FakeServer, client: prism.Client, tmp_path: pathlib.Path, spool_above: int
) -> None:
    data = os.urandom(5_000_001)
    client.publish("t", data, {"a": "b"})
    client.publish("t", b"after")
    with client.subscribe("t", timeout=10, spool_above=spool_above) as subscriber:
        event = next(subscriber)
        assert event.size == len(data) and event.metadata == {"a": "b"}
        assert event.payload == data and event.payload == data  # may be read again
        event.save_to(tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == data
        file = event.open()
        assert file.read(10) == data[:10] and file.seek(-5, io.SEEK_END) and file.read() == data[-5:]
        assert next(subscriber).payload == b"after"


def test_a_damaged_payload_comes_again(server: FakeServer, client: prism.Client) -> None:
    data = os.urandom(300_000)
    client.publish("t", data)
    server.damage = True
    with client.subscribe("t", auto_ack=False, timeout=10) as subscriber:
        event = next(subscriber)
        assert event.error and event.error.reason == "PAYLOAD_CHECKSUM_MISMATCH"
        with pytest.raises(prism.PrismError, match="damaged"):
            _ = event.payload
        event.nack()
        assert next(subscriber).payload == data


def test_auto_ack_gives_back_what_can_be_fetched_later(server: FakeServer, client: prism.Client) -> None:
    client.publish("t", b"x", message_id="m")
    server.payload_error = error_pb2.Error(code=14, reason="BACKEND_UNAVAILABLE", message="down", retry="safe")
    with client.subscribe("t", timeout=10) as subscriber:
        event = next(subscriber)
    assert event.attempt == 2 and event.payload == b"x"
    assert server.settlements == [("nack", "m", 1.0), ("ack", "m", None)]


def test_auto_ack_hands_over_what_is_gone(server: FakeServer, client: prism.Client) -> None:
    client.publish("t", b"x")
    server.payload_error = error_pb2.Error(code=5, reason="PAYLOAD_EXPIRED", message="gone", retry="never")
    with client.subscribe("t", timeout=10) as subscriber:
        event = next(subscriber)
        with pytest.raises(prism.PrismError, match="PAYLOAD_EXPIRED"):
            _ = event.payload
    assert [what for what, _, _ in server.settlements] == ["ack"]


def test_timeout_and_going_on(client: prism.Client) -> None:
    with client.subscribe("t", timeout=0.05) as subscriber:
        with pytest.raises(prism.Timeout):
            next(subscriber)
        with pytest.raises(TimeoutError):
            subscriber.next(timeout=0)
        client.publish("t", b"x")
        assert subscriber.next(timeout=10).payload == b"x"


def test_iteration_ends_when_another_thread_closes(client: prism.Client) -> None:
    subscriber = client.subscribe("t")
    seen: list[prism.Event] = []
    thread = threading.Thread(target=lambda: seen.extend(subscriber))
    thread.start()
    client.publish("t", b"x")
    wait_until(lambda: seen)
    subscriber.close()
    thread.join(10)
    assert not thread.is_alive() and len(seen) == 1
    with pytest.raises(StopIteration):
        next(subscriber)


def test_consume_takes_one(server: FakeServer, client: prism.Client) -> None:
    # proves: A-08 (the client's part)
    client.publish("t", b"one")
    client.publish("t", b"two")
    assert client.consume("t", timeout=10).payload == b"one"
    assert client.consume("t", timeout=10).payload == b"two"
    with pytest.raises(prism.Timeout):
        client.consume("t", timeout=0.05)


def test_groups_and_options_reach_the_server(server: FakeServer, client: prism.Client) -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    for start in ("earliest", "latest", "p7", moment):
        client.subscribe("t", "g", start=start, max_messages=5, max_bytes=6, client_id="me").close()
    assert {(o.group, o.max_messages, o.max_bytes, o.client_id) for o in server.opens} == {("g", 5, 6, "me")}
    assert [o.start.WhichOneof("at") for o in server.opens] == ["edge", "edge", "position", "time"]
    assert server.opens[2].start.position == "p7"
    assert server.opens[3].start.time.ToDatetime(timezone.utc) == moment
    with pytest.raises(ValueError, match="time zone"):
        client.subscribe("t", start=datetime(2026, 1, 1))


def test_a_refused_subscription_raises_at_once(server: FakeServer) -> None:
    with prism.Client(server.address, namespace="missing") as client:
        with pytest.raises(prism.PrismError) as caught:
            client.subscribe("t")
    assert caught.value.reason == "NAMESPACE_NOT_FOUND"


def test_a_lost_connection_is_opened_again(server: FakeServer) -> None:
    with prism.Client(server.address, namespace="test", timeout=10) as client:
        for i in range(3):
            client.publish("t", b"x", message_id=f"m{i}")
        subscriber = client.subscribe("t", auto_ack=False, timeout=20)
        first = next(subscriber)
        server.stop()
        wait_until(lambda: subscriber._subscription._stream.ended)
        assert first.ack().result(10) is prism.SettleStatus.UNKNOWN
        second = FakeServer(server.port)
        try:
            second.topics = server.topics
            assert {next(subscriber).id for _ in range(3)} == {"m0", "m1", "m2"}
        finally:
            second.stop()


def test_a_replaced_namespace_is_subscribed_beside_the_old_stream(server: FakeServer, client: prism.Client) -> None:
    subscriber = client.subscribe("t", auto_ack=False, timeout=20)
    client.publish("t", b"one")
    first = next(subscriber)
    server.generation += 1
    client.publish("t", b"two")
    second = next(subscriber)  # while the first is still out
    assert second.payload == b"two" and len(server.opens) == 2
    assert second.ack().result(10) is prism.SettleStatus.OK
    assert first.ack().result(10) is prism.SettleStatus.OK
    wait_until(lambda: not subscriber._subscription._replaced)
    client.publish("t", b"three")
    assert next(subscriber).payload == b"three" and len(server.opens) == 2
    subscriber.close()


def test_a_connection_lost_for_long_raises(server: FakeServer, client: prism.Client) -> None:
    subscriber = client.subscribe("t", timeout=20, reconnect_for=0)
    server.stop()
    with pytest.raises(prism.PrismError, match="UNAVAILABLE"):
        next(subscriber)
    with pytest.raises(prism.PrismError, match="UNAVAILABLE"):
        next(subscriber)
