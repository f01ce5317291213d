"""Bad requests: each a clear error with a stable reason, nothing published, nothing left. proves: A-01, C-27, F-09, L-13, O-19 (see
docs/requirements.md)"""

from __future__ import annotations

from typing import Iterator

import google_crc32c
import grpc
import pytest

import prism
from prism.errors import from_rpc
from prism.pubsub.v1 import pubsub_pb2, pubsub_pb2_grpc
from prism.testing import PrismTestServer
from program import until

Frame = pubsub_pb2.PublishPayloadRequest
CHUNK = b"c" * 100_000
PARTS = 30  # 3 MB: above the claim-check threshold


@pytest.fixture
def stub(server: PrismTestServer) -> Iterator[pubsub_pb2_grpc.PubSubServiceStub]:
    with grpc.insecure_channel(server.address, [("grpc.max_send_message_length", -1)]) as channel:
        yield pubsub_pb2_grpc.PubSubServiceStub(channel)


def refusal(call) -> prism.PrismError:
    with pytest.raises(grpc.RpcError) as failed:
        call()
    return from_rpc(failed.value)


def header(topic: str = "media", **fields) -> Frame:
    return Frame(header=pubsub_pb2.PayloadHeader(topic=topic, **fields))


def chunks(count: int = PARTS) -> list[Frame]:
    return [Frame(chunk=CHUNK) for _ in range(count)]


def trailer(crc: int | None = None, size: int | None = None) -> Frame:
    whole = CHUNK * PARTS
    return Frame(trailer=pubsub_pb2.PayloadTrailer(crc32c=google_crc32c.value(whole) if crc is None else crc, size=len(whole) if size is None else size))


def holds(server: PrismTestServer) -> tuple[int, int]:
    patterns = {part["pattern"]: part["holds"] for part in server.get_json("/debug/inspect?namespace=media")["patterns"]}
    return int(patterns["outbox"]["rows"]), int(patterns["claim-check"]["objects"])


def records(server: PrismTestServer, namespace: str) -> int:
    topics = server.get_json(f"/debug/topics?namespace={namespace}")["topics"]
    return sum(partition["end"] for topic in topics for partition in topic["partitions"])


# Names and APIs


def test_unknown_namespace(stub, server: PrismTestServer) -> None:
    error = refusal(lambda: stub.Publish(pubsub_pb2.PublishRequest(topic="nowhere", payload=b"x")))
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "NAMESPACE_NOT_FOUND")
    assert "plain" in error.hint and error.retry == "never"
    bound = refusal(lambda: stub.Publish(pubsub_pb2.PublishRequest(topic="t", payload=b"x"), metadata=[("prism-namespace", "nowhere")]))
    assert bound.reason == "NAMESPACE_NOT_FOUND"
    subscribing = refusal(lambda: next(stub.Subscribe(pubsub_pb2.SubscribeRequest(topic="nowhere"))))
    assert subscribing.reason == "NAMESPACE_NOT_FOUND"


def test_wrong_api(stub, server: PrismTestServer) -> None:
    error = refusal(lambda: stub.Publish(pubsub_pb2.PublishRequest(topic="tasks", payload=b"x")))
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "WRONG_API")
    assert refusal(lambda: next(stub.Subscribe(pubsub_pb2.SubscribeRequest(topic="tasks")))).reason == "WRONG_API"
    assert records(server, "tasks") == 0


def test_a_method_that_is_not_built_is_named(server: PrismTestServer) -> None:
    with grpc.insecure_channel(server.address) as channel:
        missing = channel.unary_unary("/prism.keyvalue.v1.KeyValueService/Get")
        error = refusal(lambda: missing(b""))
        assert error.code is grpc.StatusCode.UNIMPLEMENTED and error.reason == "METHOD_NOT_AVAILABLE" and "Get" in error.message
        unknown = channel.unary_unary("/prism.nobody.v1.Service/Method")
        assert refusal(lambda: unknown(b"")).code is grpc.StatusCode.UNIMPLEMENTED


def test_an_unknown_session(stub) -> None:
    error = refusal(lambda: stub.Publish(pubsub_pb2.PublishRequest(topic="plain"), metadata=[("prism-session", "made-up")]))
    assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, "SESSION_NOT_FOUND")


# Sizes and fields


def test_an_oversized_unary_is_told_the_streamed_way(stub, server: PrismTestServer) -> None:
    before = records(server, "plain")
    error = refusal(lambda: stub.Publish(pubsub_pb2.PublishRequest(topic="plain", payload=b"x" * 6_000_000)))
    assert error.reason == "PAYLOAD_TOO_LARGE_FOR_UNARY" and "PublishPayload" in error.hint, str(error)
    assert records(server, "plain") == before


def test_a_payload_that_the_log_cannot_hold_is_told_of_claim_check(stub, server: PrismTestServer) -> None:
    before = records(server, "plain")
    whole = [header("plain"), *chunks(), trailer()]
    error = refusal(lambda: stub.PublishPayload(iter(whole)))
    assert error.reason == "PAYLOAD_TOO_LARGE" and "claim-check" in error.hint
    assert records(server, "plain") == before


def test_reserved_metadata_and_fields_to_come(stub) -> None:
    reserved = refusal(lambda: stub.Publish(pubsub_pb2.PublishRequest(topic="plain", metadata={"prism-x": "y"})))
    assert (reserved.code, reserved.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "METADATA_RESERVED")
    request = pubsub_pb2.PublishRequest(topic="plain")
    request.ttl.seconds = 5
    later = refusal(lambda: stub.Publish(request))
    assert (later.code, later.reason) == (grpc.StatusCode.UNIMPLEMENTED, "FIELD_NOT_AVAILABLE") and "ttl" in str(later)


def test_an_empty_batch_and_one_bad_entry_among_good_ones(stub) -> None:
    assert refusal(lambda: stub.PublishBatch(pubsub_pb2.PublishBatchRequest())).reason == "EMPTY_BATCH"
    messages = [pubsub_pb2.PublishRequest(topic=topic, payload=b"x") for topic in ("plain", "nowhere", "plain")]
    results = stub.PublishBatch(pubsub_pb2.PublishBatchRequest(messages=messages)).results
    assert [result.WhichOneof("result") for result in results] == ["response", "error", "response"]
    assert results[1].error.reason == "NAMESPACE_NOT_FOUND"


# Broken chunk streams

BROKEN = {
    "cut before the trailer": ([header(), *chunks()], "PAYLOAD_STREAM_INCOMPLETE"),
    "only a header": ([header()], "PAYLOAD_STREAM_INCOMPLETE"),
    "nothing at all": ([], "PAYLOAD_STREAM_INCOMPLETE"),
    "wrong checksum": ([header(), *chunks(), trailer(crc=1)], "PAYLOAD_CHECKSUM_MISMATCH"),
    "wrong size in the trailer": ([header(), *chunks(), trailer(size=5)], "PAYLOAD_SIZE_MISMATCH"),
    "shorter than announced": ([header(size=len(CHUNK) * PARTS + 1), *chunks(), trailer()], "PAYLOAD_SIZE_MISMATCH"),
    "longer than announced": ([header(size=len(CHUNK) * PARTS - 1), *chunks(), trailer()], "PAYLOAD_SIZE_MISMATCH"),
    "a chunk first": ([*chunks(1), header(), trailer()], "FRAME_OUT_OF_ORDER"),
    "a second header": ([header(), *chunks(), header(), trailer()], "FRAME_OUT_OF_ORDER"),
    "something after the trailer": ([header(), *chunks(), trailer(), *chunks(1)], "FRAME_OUT_OF_ORDER"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_chunk_stream_publishes_nothing(stub, server: PrismTestServer, what: str) -> None:
    frames, reason = BROKEN[what]
    before, log = holds(server), records(server, "media")
    error = refusal(lambda: stub.PublishPayload(iter(frames)))
    if what == "nothing at all":  # no header either: both are true
        assert error.reason in (reason, "FRAME_OUT_OF_ORDER")
    else:
        assert error.reason == reason, str(error)
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT and error.message
    assert records(server, "media") == log
    assert holds(server)[0] == before[0]
    # What a refused upload may have stored is swept as an orphan (here after 2 s).
    until(lambda: holds(server)[1] <= before[1])


def test_a_client_that_goes_away_publishes_nothing(stub, server: PrismTestServer) -> None:
    before, log = holds(server), records(server, "media")

    def frames() -> Iterator[Frame]:
        yield header()
        yield from chunks()
        call.cancel()
        yield trailer()

    call = stub.PublishPayload.future(frames())
    with pytest.raises((grpc.RpcError, grpc.FutureCancelledError)):
        call.result()
    until(lambda: holds(server) == before)
    assert records(server, "media") == log


# Acknowledgements


def test_a_stale_and_an_invented_ack(server: PrismTestServer) -> None:
    client = server.client(namespace="plain")
    client.publish("stale", b"x")
    with client.subscribe("stale", "g", auto_ack=False, timeout=60) as subscriber:
        event = next(subscriber)
        assert event.nack().result(60) is prism.SettleStatus.OK
        again = next(subscriber)
        assert again.id == event.id and again.attempt == event.attempt + 1
        assert event.ack().result(60) is prism.SettleStatus.STALE
        assert again.ack().result(60) is prism.SettleStatus.OK
        assert again.ack().result(60) is prism.SettleStatus.STALE
        again._token = b"made up"
        assert again.ack().result(60) is prism.SettleStatus.INVALID


def test_a_subscription_that_does_not_begin_with_open(stub) -> None:
    request = pubsub_pb2.SubscribeStreamRequest
    error = refusal(lambda: list(stub.SubscribeStream(iter([request(ack=request.Ack(ack_tokens=[b"x"]))]))))
    assert error.reason == "FRAME_OUT_OF_ORDER"


# Names


def test_errors_repeat_no_more_of_a_name_than_a_person_reads(server: PrismTestServer) -> None:
    client = server.client(namespace="plain")
    for call in (
        lambda: server.client(namespace=None).publish("t" * 5_000, b"x"),
        lambda: client.publish("t", b"x", metadata={"prism-" + "k" * 5_000: "1"}),
        lambda: client.publish("t" * 5_000, b"x"),
    ):
        with pytest.raises(prism.PrismError) as refused:
            call()
        assert refused.value.retry == "never" and refused.value.reason
        assert len(str(refused.value)) < 400
        assert all(len(value) < 400 for value in refused.value.metadata.values())
