"""Publish and subscribe through the real program, with the Python client, on each kind of chain."""

from __future__ import annotations

import hashlib
import os
import pathlib
from typing import Any, Iterator

import google_crc32c
import grpc
import pytest

import prism
from prism.common.v1 import rpc_status_pb2
from prism.pubsub.v1 import pubsub_pb2, pubsub_pb2_grpc
from prism.queue.v1 import queue_pb2, queue_pb2_grpc
from prism.testing import PrismTestServer


def outbox(table: str) -> dict[str, Any]:
    """Each namespace has a table of its own: whatever stands in it is relayed to that namespace's log."""
    return {"type": "outbox", "database": "postgres", "table": table}


CLAIM_CHECK = {"type": "claim-check", "threshold": "1MB", "storage": "s3"}
KAFKA = {"type": "kafka"}

CONFIG: dict[str, Any] = {
    "namespaces": [
        {"name": "bare", "client_api": "pubsub", "backend": KAFKA},
        {"name": "checked", "client_api": "pubsub", "patterns": [CLAIM_CHECK], "backend": KAFKA},
        {"name": "outboxed", "client_api": "pubsub", "patterns": [outbox("outbox_1")], "backend": KAFKA},
        {"name": "both", "client_api": "pubsub", "patterns": [outbox("outbox_2"), CLAIM_CHECK], "backend": KAFKA},
        {"name": "swapped", "client_api": "pubsub", "patterns": [CLAIM_CHECK, outbox("outbox_3")], "backend": KAFKA},
        {"name": "work", "client_api": "queue", "patterns": [CLAIM_CHECK], "backend": KAFKA},
    ]
}
CHAINS = ["bare", "checked", "outboxed", "both", "swapped", "work"]
LARGE = ["checked", "both", "swapped", "work"]


@pytest.fixture(scope="module")
def server() -> Iterator[PrismTestServer]:
    with PrismTestServer(CONFIG) as it:
        yield it


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    """A topic of the test's own."""
    return "t-" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]


@pytest.mark.parametrize("chain", CHAINS)
def test_everything_arrives_unchanged(server: PrismTestServer, topic: str, chain: str) -> None:
    # proves, C-02, C-29, L-14, O-16, X-24
    payload = bytes(range(256)) * 10
    metadata = {"video_id": "v1", "ümlaut": "wärt", "empty": ""}
    with server.client(namespace=chain) as client:
        result = client.publish(topic, payload, metadata, key="k1", message_id="m-1", content_type="video/mp4")
        assert result.success and result.id == "m-1" and result.position and not result.duplicate
        assert result.durability in (prism.Durability.OS, prism.Durability.FSYNC)
        event = next(client.subscribe(topic, timeout=60))
    assert event.payload == payload and event.metadata == metadata
    assert (event.id, event.key, event.content_type, event.attempt) == ("m-1", "k1", "video/mp4", 1)
    assert event.topic == topic and event.position


@pytest.mark.parametrize("size", [0, 1, 999_999, 1_000_000, 1_000_001, 5_000_000])
@pytest.mark.parametrize("chain", LARGE)
def test_sizes_around_the_threshold(server: PrismTestServer, topic: str, chain: str, size: int) -> None:
    # proves: C-01, C-02, C-18, C-19, C-29
    payload = os.urandom(size)
    with server.client(namespace=chain) as client:
        client.publish(topic, payload, {"n": str(size)})
        event = next(client.subscribe(topic, timeout=60))
    assert event.payload == payload and event.metadata == {"n": str(size)}


def test_a_file_passes_through_without_being_held(server: PrismTestServer, topic: str, tmp_path: pathlib.Path) -> None:
    # proves: C-18, C-25
    source = tmp_path / "source"
    block = os.urandom(1 << 20)
    with open(source, "wb") as file:
        for _ in range(100):
            file.write(block)
        file.write(b"end")
    with server.client(namespace="both") as client:
        client.publish(topic, source, content_type="video/mp4")
        event = next(client.subscribe(topic, timeout=60, spool_above=1 << 20))
        event.save_to(tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()
    assert event.size == (100 << 20) + 3 and event.content_type == "video/mp4"


@pytest.mark.parametrize("chain", ["checked", "both", "swapped", "work"])
def test_two_groups_fetch_for_themselves_and_the_object_goes_after_both(topic: str, chain: str) -> None:
    # proves: C-10, C-22, C-23, C-24
    payload = os.urandom(2_000_000)
    with PrismTestServer(CONFIG) as server, server.client(namespace=chain) as client:
        first = client.subscribe(topic, "first", auto_ack=False, timeout=60)
        second = client.subscribe(topic, "second", auto_ack=False, timeout=60)
        client.publish(topic, payload)
        one, two = next(first), next(second)
        assert one.payload == payload and two.payload == payload
        assert server.s3.object_count(timeout=1) == 1
        assert one.ack().result(60) is prism.SettleStatus.OK
        assert server.s3.object_count(timeout=1) == 1  # time enough for the clean-up to err
        assert two.ack().result(60) is prism.SettleStatus.OK
        assert server.s3.object_count(timeout=60) == 0


@pytest.mark.parametrize("chain", CHAINS)
def test_order_by_key_over_a_stream(server: PrismTestServer, topic: str, chain: str) -> None:
    # proves: O-15, L-11 (order through the chain)
    keys, each = 7, 200
    messages = [
        prism.Message(topic, f"{key}:{i}", key=f"k{key}", message_id=f"{key}-{i}") for i in range(each) for key in range(keys)
    ]
    with server.client(namespace=chain) as client:
        results = list(client.publish_many(messages))
        assert [r.id for r in results if isinstance(r, prism.PublishResult)] == [m.message_id for m in messages]
        seen: dict[str, list[int]] = {}
        with client.subscribe(topic, timeout=60) as subscriber:
            while sum(map(len, seen.values())) < keys * each:
                key, _, number = next(subscriber).text.partition(":")
                seen.setdefault(key, []).append(int(number))
    assert all(numbers == list(range(each)) for numbers in seen.values()) and len(seen) == keys


@pytest.mark.parametrize("chain", CHAINS)
def test_what_is_given_back_comes_again(server: PrismTestServer, topic: str, chain: str) -> None:
    with server.client(namespace=chain) as client:
        client.publish(topic, b"x", message_id="m")
        with client.subscribe(topic, auto_ack=False, timeout=60) as subscriber:
            event = next(subscriber)
            assert event.extend(by=60).result(60) is prism.SettleStatus.OK
            assert event.nack(reason="busy").result(60) is prism.SettleStatus.OK
            assert event.ack().result(60) is prism.SettleStatus.STALE
            again = next(subscriber)
            assert again.id == "m" and again.attempt == 2
            assert again.ack().result(60) is prism.SettleStatus.OK
            assert again.ack().result(60) is prism.SettleStatus.STALE
            with pytest.raises(prism.Timeout):
                subscriber.next(timeout=0.3)


def test_a_group_goes_on_where_it_was_and_what_was_not_acknowledged_comes_again(server: PrismTestServer, topic: str) -> None:
    with server.client(namespace="bare") as client:
        for i in range(4):
            client.publish(topic, str(i))
        with client.subscribe(topic, auto_ack=False, timeout=60) as subscriber:
            events = [next(subscriber) for _ in range(4)]
            events[0].ack()
            events[2].ack()
        with client.subscribe(topic, timeout=60) as subscriber:
            assert sorted(next(subscriber).text for _ in range(2)) == ["1", "3"]


def test_where_a_new_group_begins(server: PrismTestServer, topic: str) -> None:
    with server.client(namespace="bare") as client:
        positions = [client.publish(topic, str(i), key="k").position for i in range(3)]
        with client.subscribe(topic, "late", start="latest", timeout=60) as subscriber:
            client.publish(topic, "3", key="k")
            assert next(subscriber).text == "3"
        with client.subscribe(topic, "after", start=positions[1], timeout=60) as subscriber:
            assert [next(subscriber).text for _ in range(2)] == ["2", "3"]
        with client.subscribe(topic, "all", timeout=60) as subscriber:
            assert [next(subscriber).text for _ in range(4)] == ["0", "1", "2", "3"]


def test_consume_takes_one_message(server: PrismTestServer, topic: str) -> None:
    # proves: A-08
    with server.client(namespace="bare") as client:
        client.publish(topic, "1", key="k")
        client.publish(topic, "2", key="k")
        assert client.consume(topic, timeout=60).text == "1"
        assert client.consume(topic, timeout=60).text == "2"


@pytest.mark.parametrize("chain", ["bare", "both"])
def test_everything_survives_a_kill(topic: str, chain: str) -> None:
    with PrismTestServer(CONFIG) as server, server.client(namespace=chain) as client:
        large = os.urandom(3_000_000) if chain == "both" else b"small"
        client.publish(topic, large, message_id="first")
        subscriber = client.subscribe(topic, auto_ack=False, timeout=30)
        assert next(subscriber).payload == large
        server.kill()
        server.restart()
        client.publish(topic, b"after", message_id="second")
        payloads = {}
        while len(payloads) < 2:
            event = next(subscriber)
            payloads[event.id] = event.payload
            event.ack()
        assert payloads == {"first": large, "second": b"after"}


# Errors


def error_of(call: Any) -> prism.PrismError:
    with pytest.raises(prism.PrismError) as caught:
        call()
    return caught.value


def test_unknown_namespace_names_the_nearest(server: PrismTestServer, topic: str) -> None:
    with server.client(namespace="bera", api="pubsub") as client:
        error = error_of(lambda: client.publish(topic, b"x"))
        assert error.reason == "NAMESPACE_NOT_FOUND" and error.code is grpc.StatusCode.NOT_FOUND and error.retry == "never"
        assert "bare" in str(error)
        assert error_of(lambda: client.publish(topic, b"x" * 2_000_000)).reason == "NAMESPACE_NOT_FOUND"
        assert error_of(lambda: client.subscribe(topic)).reason == "NAMESPACE_NOT_FOUND"
        (result,) = client.publish_many([(topic, b"x")])
        assert isinstance(result, prism.PrismError) and result.reason == "NAMESPACE_NOT_FOUND"


def test_the_wrong_api_is_refused(server: PrismTestServer, topic: str) -> None:
    # proves: F-09 (its last part)
    with server.client(namespace="work", api="pubsub") as client:
        error = error_of(lambda: client.publish(topic, b"x"))
        assert error.reason == "WRONG_API" and error.code is grpc.StatusCode.FAILED_PRECONDITION
        assert error_of(lambda: client.subscribe(topic)).reason == "WRONG_API"


def test_reserved_and_oversized_metadata(server: PrismTestServer, topic: str) -> None:
    with server.client(namespace="bare") as client:
        assert error_of(lambda: client.publish(topic, b"x", {"prism-id": "1"})).reason == "METADATA_RESERVED"
        assert error_of(lambda: client.publish(topic, b"x", {"a": "1" * 70_000})).reason == "METADATA_TOO_LARGE"
        with pytest.raises(prism.Timeout):
            client.subscribe(topic).next(timeout=0.3)


def test_a_payload_that_the_log_does_not_take(server: PrismTestServer, topic: str) -> None:
    # proves: C-26 (the other side: without a claim check the hint names it)
    with server.client(namespace="bare") as client:
        error = error_of(lambda: client.publish(topic, b"x" * 40_000_000))
        assert "TOO_LARGE" in error.reason and "claim" in error.hint
        with pytest.raises(prism.Timeout):
            client.subscribe(topic).next(timeout=0.3)


def frames(topic: str, *rest: pubsub_pb2.PublishPayloadRequest, **header: Any) -> Iterator[pubsub_pb2.PublishPayloadRequest]:
    yield pubsub_pb2.PublishPayloadRequest(header=pubsub_pb2.PayloadHeader(topic=topic, **header))
    yield from rest


def chunk(data: bytes) -> pubsub_pb2.PublishPayloadRequest:
    return pubsub_pb2.PublishPayloadRequest(chunk=data)


def trailer(crc32c: int, size: int) -> pubsub_pb2.PublishPayloadRequest:
    return pubsub_pb2.PublishPayloadRequest(trailer=pubsub_pb2.PayloadTrailer(crc32c=crc32c, size=size))


@pytest.mark.parametrize(
    "chain, size", [("bare", 9), ("bare", 900_000), ("checked", 9), ("checked", 2_000_000), ("both", 9), ("both", 2_000_000)]
)
def test_broken_payload_streams_publish_nothing(topic: str, chain: str, size: int) -> None:
    # proves: C-27
    data = (b"123456789" * (size // 9 + 1))[:size]
    crc = google_crc32c.value(data)
    with (
        PrismTestServer(CONFIG) as server,
        server.client(namespace=chain) as client,
        grpc.insecure_channel(server.address) as channel,
    ):
        publish = pubsub_pb2_grpc.PubSubServiceStub(channel).PublishPayload
        broken = {
            "PAYLOAD_STREAM_INCOMPLETE": frames(topic, chunk(data)),
            "PAYLOAD_CHECKSUM_MISMATCH": frames(topic, chunk(data), trailer(crc ^ 1, size)),
            "PAYLOAD_SIZE_MISMATCH": frames(topic, chunk(data), trailer(crc, size + 1)),
            "PAYLOAD_SIZE_MISMATCH ": frames(topic, chunk(data), trailer(crc, size), size=size - 1),
            "FRAME_OUT_OF_ORDER": iter([chunk(data)]),
            "FRAME_OUT_OF_ORDER ": frames(topic, chunk(data), trailer(crc, size), chunk(data)),
        }
        for reason, stream in broken.items():
            with pytest.raises(grpc.RpcError) as caught:
                publish(stream, metadata=[("prism-namespace", chain)], timeout=60)
            assert reason_of(caught.value) == reason.strip()
        subscriber = client.subscribe(topic)
        with pytest.raises(prism.Timeout):
            subscriber.next(timeout=0.3)
        assert server.s3.object_count() == 0
        assert publish(frames(topic, chunk(data), trailer(crc, size)), metadata=[("prism-namespace", chain)], timeout=60).success
        assert subscriber.next(timeout=60).payload == data
        assert server.s3.object_count() == 0


def reason_of(error: Any) -> str:
    (encoded,) = [value for key, value in error.trailing_metadata() if key == "grpc-status-details-bin"]
    status = rpc_status_pb2.Status.FromString(encoded)
    (info,) = [d for d in status.details if d.type_url == "type.googleapis.com/google.rpc.ErrorInfo"]
    parsed = rpc_status_pb2.ErrorInfo.FromString(info.value)
    assert status.code == error.code().value[0] and parsed.domain == "prism" and parsed.metadata["retry"]
    return parsed.reason


def test_what_is_not_built_says_so(server: PrismTestServer, topic: str) -> None:
    with grpc.insecure_channel(server.address) as channel:
        queue = queue_pb2_grpc.QueueServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            queue.Pull(queue_pb2.PullRequest(topic=topic), metadata=[("prism-namespace", "work")], timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED and "Pull" in caught.value.details()
        request = pubsub_pb2.PublishRequest(topic=topic, payload=b"x")
        request.deliver_at.GetCurrentTime()
        with pytest.raises(grpc.RpcError) as caught:
            pubsub_pb2_grpc.PubSubServiceStub(channel).Publish(request, metadata=[("prism-namespace", "bare")], timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED and reason_of(caught.value) == "FIELD_NOT_AVAILABLE"


@pytest.mark.parametrize("service, chain", [("pubsub", "both"), ("queue", "work")])
def test_the_simple_subscription(server: PrismTestServer, topic: str, service: str, chain: str) -> None:
    # proves
    payload = os.urandom(2_500_000)
    with server.client(namespace=chain) as client, grpc.insecure_channel(server.address) as channel:
        stub = (pubsub_pb2_grpc.PubSubServiceStub if service == "pubsub" else queue_pb2_grpc.QueueServiceStub)(channel)
        client.publish(topic, b"small", {"a": "1"}, key="k")
        client.publish(topic, payload, {"b": "2"}, key="k")
        metadata = [("prism-namespace", chain)]
        stream = stub.Subscribe(pubsub_pb2.SubscribeRequest(topic=topic), metadata=metadata, timeout=30)
        first = next(stream)
        assert first.payload == b"small" and dict(first.metadata) == {"a": "1"} and not first.ack_token
        parts, heads = b"", []
        for event in stream:
            assert event.part.offset == len(parts)
            parts += event.payload
            heads.append(dict(event.metadata))
            if event.part.last:
                break
        assert parts == payload and heads[0] == {"b": "2"}
        stream.cancel()
        client.publish(topic, b"after", key="k")  # the group goes on behind what was written to the stream
        assert next(client.subscribe(topic, timeout=60)).text == "after"


def test_sessions_bind_to_a_namespace(server: PrismTestServer, topic: str) -> None:
    # proves: S-10
    with server.client(namespace="bare") as client:
        opened = client.open_session()
        assert opened.client_api == "pubsub" and opened.namespace == "bare" and opened.server_version
        client.namespace = None  # the session alone says it
        client.publish(topic, b"x")
        assert next(client.subscribe(topic, timeout=60)).payload == b"x"


def test_an_unbound_client_names_a_namespace(server: PrismTestServer) -> None:
    with server.client(namespace=None) as client:
        client.publish("bare", b"x")
        assert next(client.subscribe("bare", timeout=60)).payload == b"x"
        assert error_of(lambda: client.publish("nowhere", b"x")).reason in ("NAMESPACE_NOT_FOUND", "TOPIC_NOT_FOUND")


def test_health_and_reflection_answer(server: PrismTestServer) -> None:
    with grpc.insecure_channel(server.address) as channel:
        health = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert health(b"", timeout=10) == b"\x08\x01"  # SERVING
        reflection = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
        answers = reflection(iter([b"\x3a\x00"]), timeout=10)  # list_services: ""
        assert b"prism.pubsub.v1.PubSubService" in next(answers)
