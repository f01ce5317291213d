"""Traces: the tree of RFC-014, W3C's trace context in and out, sampling, switches, and export over gRPC and HTTP to a receiver that may
be down for a while."""

from __future__ import annotations

import copy
import json
import os
import pathlib
import queue
import re
import secrets
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from otlp_receiver import OtlpReceiver, Span
from prism.pubsub.v1 import pubsub_pb2, pubsub_pb2_grpc
from prism.testing import PrismTestServer, find_binary
from program import CONFIG, addresses, until

# Only where the distribution has no exporter that could have been built; continuous integration runs where there is one.
pytestmark = pytest.mark.skipif(
    "CI" not in os.environ and not (pathlib.Path(find_binary()).parent / "prism_otlp.so").exists() and not pathlib.Path("/usr/include/opentelemetry").exists(),
    reason="opentelemetry-cpp is not installed",
)

LARGE = b"v" * 1_500_000  # above the claim check's threshold
ROOT = ""


def config(receiver: OtlpReceiver, protocol: str = "grpc", **traces: Any) -> dict[str, Any]:
    out = copy.deepcopy(CONFIG)
    port = receiver.grpc_port if protocol == "grpc" else receiver.http_port
    out["telemetry"] = {"traces": {"endpoint": f"http://127.0.0.1:{port}", "protocol": protocol, "delay": "20ms"} | traces}
    out["namespaces"].append({"name": "quiet", "client_api": "pubsub", "patterns": [{"type": "outbox", "database": "postgres", "table": "quiet_outbox"}, {"type": "claim-check", "threshold": "1MB", "storage": "s3"}], "backend": "kafka", "observability": {"trace_patterns": False}})
    return out


@pytest.fixture(scope="module")
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as running:
        yield running


@pytest.fixture(scope="module")
def traced(receiver: OtlpReceiver) -> Iterator[PrismTestServer]:
    with PrismTestServer(config(receiver)) as running:
        yield running


@pytest.fixture
def stub(traced: PrismTestServer) -> Iterator[pubsub_pb2_grpc.PubSubServiceStub]:
    with grpc.insecure_channel(traced.address) as channel:
        yield pubsub_pb2_grpc.PubSubServiceStub(channel)


def traceparent(sampled: bool = True) -> tuple[str, str, str]:
    """A new one, its trace id and its span id."""
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    return f"00-{trace}-{span}-{'01' if sampled else '00'}", trace, span


def of_trace(receiver: OtlpReceiver, trace: str, *names: str) -> dict[str, Span]:
    """The spans of one trace by name, as soon as all of these have come."""

    def complete(spans: list[Span]) -> dict[str, Span] | None:
        found = {span["name"]: span for span in spans if span["trace_id"] == trace}
        return found if all(name in found for name in names) else None

    return receiver.wait_for(complete)


TREE = {
    "PubSubService.PublishPayload": None,
    "OutboxPattern.process_publish": "PubSubService.PublishPayload",
    "ClaimCheckPattern.process_publish": "OutboxPattern.process_publish",
    "generate_claim_check_id": "ClaimCheckPattern.process_publish",
    "s3.put_object": "ClaimCheckPattern.process_publish",
    "db.begin_transaction": "OutboxPattern.process_publish",
    "db.insert_outbox": "OutboxPattern.process_publish",
    "db.commit_transaction": "OutboxPattern.process_publish",
    "kafka.produce": "OutboxPattern.process_publish",
}


def check_tree(spans: dict[str, Span], tree: dict[str, str | None]) -> None:
    for name, parent in tree.items():
        expected = ROOT if parent is None else spans[parent]["span_id"]
        assert spans[name]["parent_id"] == expected, f"{name} must be below {parent}"
        assert spans[name]["begin"] <= spans[name]["end"], name
        assert not spans[name]["failed"], spans[name]


def publish_payload(stub: pubsub_pb2_grpc.PubSubServiceStub, topic: str, payload: bytes, metadata: dict[str, str] | None = None, headers: list[tuple[str, str]] | None = None) -> pubsub_pb2.PublishResponse:
    import google_crc32c

    def frames() -> Iterator[pubsub_pb2.PublishPayloadRequest]:
        yield pubsub_pb2.PublishPayloadRequest(header=pubsub_pb2.PayloadHeader(topic=topic, size=len(payload), metadata=metadata or {}))
        for at in range(0, len(payload), 200_000):
            yield pubsub_pb2.PublishPayloadRequest(chunk=payload[at : at + 200_000])
        yield pubsub_pb2.PublishPayloadRequest(trailer=pubsub_pb2.PayloadTrailer(size=len(payload), crc32c=google_crc32c.value(payload)))

    return stub.PublishPayload(frames(), metadata=headers or [], timeout=30)


# proves: M-21, M-22, M-23, M-24, M-25
def test_a_publish_is_the_tree_of_the_rfc(receiver: OtlpReceiver, stub: pubsub_pb2_grpc.PubSubServiceStub) -> None:
    done = publish_payload(stub, "media", LARGE)
    [root] = receiver.wait_for(lambda spans: [s for s in spans if s["attributes"].get("messaging.message.id") == done.id and s["name"] == "PubSubService.PublishPayload"])
    spans = of_trace(receiver, root["trace_id"], *TREE)
    check_tree(spans, TREE)
    # The upload ends before the transaction begins (R-14, R-67), and the relay comes after the commit.
    upload, begin, insert, commit, produce = (spans[name] for name in ("ClaimCheckPattern.process_publish", "db.begin_transaction", "db.insert_outbox", "db.commit_transaction", "kafka.produce"))
    assert upload["end"] <= begin["begin"] <= begin["end"] <= insert["begin"] <= insert["end"] <= commit["begin"]
    assert insert["end"] <= produce["begin"]
    # The names of the engines are the configuration's; attributes say what stands for them.
    assert {key: spans["kafka.produce"]["attributes"].get(key) for key in ("messaging.system", "messaging.destination.name", "messaging.operation.type", "prism.backend", "prism.backend.twin")} == {
        "messaging.system": "kafka",
        "messaging.destination.name": "media",
        "messaging.operation.type": "send",
        "prism.backend": "kafka",
        "prism.backend.twin": "sqlite",
    }
    assert spans["kafka.produce"]["kind"] == "producer"
    assert spans["s3.put_object"]["attributes"]["rpc.service"] == "S3"
    assert spans["s3.put_object"]["attributes"]["prism.backend.twin"] == "filesystem"
    assert spans["s3.put_object"]["attributes"]["prism.bytes"] == len(LARGE)
    assert spans["db.insert_outbox"]["attributes"]["db.system.name"] == "postgresql"
    assert spans["db.insert_outbox"]["attributes"]["db.collection.name"] == "media_outbox"
    assert spans["OutboxPattern.process_publish"]["attributes"]["prism.pattern"] == "outbox"
    assert spans["ClaimCheckPattern.process_publish"]["attributes"]["prism.pattern"] == "claim-check"
    assert spans["PubSubService.PublishPayload"]["kind"] == "server"
    assert spans["PubSubService.PublishPayload"]["attributes"]["prism.namespace"] == "media"
    assert root["resource"]["service.name"] == "prism"
    assert root["resource"]["service.version"]


# proves: M-21, M-23
def test_a_small_publish_without_a_chain_has_only_the_request_and_the_log(receiver: OtlpReceiver, stub: pubsub_pb2_grpc.PubSubServiceStub) -> None:
    parent, trace, span = traceparent()
    stub.Publish(pubsub_pb2.PublishRequest(topic="plain", payload=b"x"), metadata=[("traceparent", parent), ("tracestate", "vendor=1")])
    spans = of_trace(receiver, trace, "PubSubService.Publish", "kafka.produce")
    assert set(spans) == {"PubSubService.Publish", "kafka.produce"}
    assert spans["PubSubService.Publish"]["parent_id"] == span
    assert spans["kafka.produce"]["parent_id"] == spans["PubSubService.Publish"]["span_id"]
    assert spans["PubSubService.Publish"]["trace_state"] == "vendor=1"
    assert spans["PubSubService.Publish"]["attributes"]["rpc.grpc.status_code"] == 0


# proves: M-25
def test_spans_of_patterns_can_be_left_out(receiver: OtlpReceiver, stub: pubsub_pb2_grpc.PubSubServiceStub) -> None:
    parent, trace, _ = traceparent()
    publish_payload(stub, "quiet", LARGE, headers=[("traceparent", parent)])
    expected = {"PubSubService.PublishPayload", "s3.put_object", "db.begin_transaction", "db.insert_outbox", "db.commit_transaction", "kafka.produce"}
    spans = of_trace(receiver, trace, *expected)
    assert set(spans) == expected
    for name in expected - {"PubSubService.PublishPayload"}:
        assert spans[name]["parent_id"] == spans["PubSubService.PublishPayload"]["span_id"], name


# proves: M-23, M-24
def test_the_trace_goes_on_to_subscribers(receiver: OtlpReceiver, stub: pubsub_pb2_grpc.PubSubServiceStub) -> None:
    parent, trace, _ = traceparent()
    publish_payload(stub, "media", LARGE, metadata={"traceparent": parent, "tracestate": "vendor=1", "kind": "video"})
    subscriber, subscriber_trace, subscriber_span = traceparent()
    requests: queue.Queue[pubsub_pb2.SubscribeStreamRequest | None] = queue.Queue()
    requests.put(pubsub_pb2.SubscribeStreamRequest(open=pubsub_pb2.SubscribeStreamRequest.Open(topic="media", group="traced")))
    stream = stub.SubscribeStream(iter(requests.get, None), metadata=[("traceparent", subscriber)], timeout=60)
    event, size = None, 0
    acknowledged = False
    for response in stream:
        for part in response.events.events:
            if part.metadata.get("traceparent", "").split("-")[1:2] == [trace]:
                event = part
            if event is not None and part.id == event.id:
                size += len(part.payload)
                if part.part.last or size == len(LARGE):
                    requests.put(pubsub_pb2.SubscribeStreamRequest(ack=pubsub_pb2.SubscribeStreamRequest.Ack(ack_tokens=[event.ack_token])))
        if response.settled.results:
            acknowledged = True
            break
    stream.cancel()
    requests.put(None)  # nothing more is sent
    assert acknowledged and event is not None and size == len(LARGE)
    assert event.metadata["tracestate"] == "vendor=1" and event.metadata["kind"] == "video"
    # Opening the subscription belongs to the subscriber's trace, a delivery to the message's.
    opened = of_trace(receiver, subscriber_trace, "PubSubService.SubscribeStream")
    assert set(opened) == {"PubSubService.SubscribeStream"}
    assert opened["PubSubService.SubscribeStream"]["parent_id"] == subscriber_span
    spans = of_trace(receiver, trace, "kafka.produce", "PubSubService.Deliver", "ClaimCheckPattern.process_consume", "s3.get_object", "PubSubService.Acknowledge")
    deliver = spans["PubSubService.Deliver"]
    assert event.metadata["traceparent"] == f"00-{trace}-{deliver['span_id']}-01"
    assert deliver["parent_id"] == spans["kafka.produce"]["span_id"]
    assert deliver["kind"] == "consumer"
    assert [link["span_id"] for link in deliver["links"]] == [subscriber_span]
    assert deliver["attributes"]["messaging.consumer.group.name"] == "traced"
    assert spans["ClaimCheckPattern.process_consume"]["parent_id"] == deliver["span_id"]
    assert spans["s3.get_object"]["parent_id"] == spans["ClaimCheckPattern.process_consume"]["span_id"]
    assert spans["s3.get_object"]["attributes"]["prism.bytes"] == len(LARGE)
    assert spans["PubSubService.Acknowledge"]["parent_id"] == deliver["span_id"]


def next_event(stub: pubsub_pb2_grpc.PubSubServiceStub, topic: str, group: str, id: str) -> Any:
    stream = stub.Subscribe(pubsub_pb2.SubscribeRequest(topic=topic, group=group), timeout=30)
    try:
        return next(event for event in stream if event.id == id)
    finally:
        stream.cancel()


# proves: M-23
def test_messages_of_a_batch_keep_their_own_traces(receiver: OtlpReceiver, stub: pubsub_pb2_grpc.PubSubServiceStub) -> None:
    first, first_trace, first_span = traceparent()
    second, second_trace, second_span = traceparent()
    around, around_trace, _ = traceparent()
    messages = [pubsub_pb2.PublishRequest(topic="orders", payload=b"x", metadata={"traceparent": parent} if parent else {}) for parent in (first, second, "")]
    done = stub.PublishBatch(pubsub_pb2.PublishBatchRequest(messages=messages), metadata=[("traceparent", around)])
    spans = of_trace(receiver, around_trace, "PubSubService.PublishBatch", "OutboxPattern.process_publish", "kafka.produce")
    request = spans["PubSubService.PublishBatch"]
    assert {link["span_id"] for link in request["links"]} == {first_span, second_span}
    assert request["attributes"]["messaging.batch.message_count"] == 3
    for trace, span in ((first_trace, first_span), (second_trace, second_span)):
        assert of_trace(receiver, trace, "kafka.produce")["kafka.produce"]["parent_id"] == span
    # The first record carries its own trace on, below its span.
    event = next_event(stub, "orders", "of-a-batch", done.results[0].response.id)
    assert event.metadata["traceparent"].split("-")[1] == first_trace


# proves: M-23
def test_links_to_the_traces_of_messages_are_bounded(receiver: OtlpReceiver, stub: pubsub_pb2_grpc.PubSubServiceStub) -> None:
    around, trace, _ = traceparent()
    parents = [traceparent() for _ in range(40)]
    stub.PublishBatch(pubsub_pb2.PublishBatchRequest(messages=[pubsub_pb2.PublishRequest(topic="plain", payload=b"x", metadata={"traceparent": parent}) for parent, _, _ in parents]), metadata=[("traceparent", around)])
    request = of_trace(receiver, trace, "PubSubService.PublishBatch")["PubSubService.PublishBatch"]
    assert [link["span_id"] for link in request["links"]] == [span for _, _, span in parents[:32]]
    for _, of_message, _ in parents:
        of_trace(receiver, of_message, "kafka.produce")


# proves: M-23
def test_the_context_of_a_call_comes_before_that_of_its_message(receiver: OtlpReceiver, stub: pubsub_pb2_grpc.PubSubServiceStub) -> None:
    of_call, trace, span = traceparent()
    of_message, _, message_span = traceparent()
    stub.Publish(pubsub_pb2.PublishRequest(topic="plain", payload=b"x", metadata={"traceparent": of_message}), metadata=[("traceparent", of_call)])
    request = of_trace(receiver, trace, "PubSubService.Publish")["PubSubService.Publish"]
    assert request["parent_id"] == span
    assert [link["span_id"] for link in request["links"]] == [message_span]


# proves: M-23
def test_each_attempt_is_a_delivery_and_what_is_given_back_says_so(receiver: OtlpReceiver, traced: PrismTestServer) -> None:
    parent, trace, _ = traceparent()
    with traced.client(namespace="plain") as client, client.subscribe("plain", "attempts", auto_ack=False, start="latest", timeout=60) as subscriber:
        client.publish("plain", b"x", {"traceparent": parent})
        first = next(subscriber)
        first.nack().result(60)
        second = next(subscriber)
        second.ack().result(60)
    spans = receiver.wait_for(lambda spans: (found := [s for s in spans if s["trace_id"] == trace]) and {s["name"] for s in found} >= {"PubSubService.Return", "PubSubService.Acknowledge"} and found)
    deliveries = {s["attributes"]["prism.attempt"]: s["span_id"] for s in spans if s["name"] == "PubSubService.Deliver"}
    assert set(deliveries) == {1, 2}
    [returned] = [s for s in spans if s["name"] == "PubSubService.Return"]
    [acknowledged] = [s for s in spans if s["name"] == "PubSubService.Acknowledge"]
    assert (returned["parent_id"], acknowledged["parent_id"]) == (deliveries[1], deliveries[2])
    assert [event.metadata["traceparent"].split("-")[2] for event in (first, second)] == [deliveries[1], deliveries[2]]


# proves: M-24
def test_what_began_here_and_is_not_sampled_is_not_passed_on_and_a_callers_decision_is(receiver: OtlpReceiver) -> None:
    with PrismTestServer(config(receiver, sampling="0%"), namespace="plain") as server, server.client() as client:
        client.publish("plain", b"x")
        parent, trace, _ = traceparent()
        client.publish("plain", b"y", {"traceparent": parent})
        subscriber = client.subscribe("plain", timeout=60)
        first, second = next(subscriber), next(subscriber)
        assert "traceparent" not in first.metadata
        assert second.metadata["traceparent"].split("-")[1] == trace
        of_trace(receiver, trace, "kafka.produce", "PubSubService.Deliver")


# proves: M-24
def test_without_an_endpoint_contexts_are_passed_on_as_they_came(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)
    parent, _, _ = traceparent()
    with PrismTestServer(CONFIG) as server, server.client() as client:
        for topic, payload in (("plain", b"x"), ("media", LARGE)):
            client.publish(topic, payload, {"traceparent": parent, "tracestate": "vendor=1"})
            event = client.consume(topic, timeout=60)
            assert (event.metadata["traceparent"], event.metadata["tracestate"]) == (parent, "vendor=1")


# proves: M-24, M-27
def test_lines_of_a_request_have_the_trace_that_began_here(receiver: OtlpReceiver) -> None:
    with PrismTestServer(config(receiver), namespace="plain", args=("--log-format", "json", "--log-level", "debug")) as server:
        done = server.client().publish("plain", b"x")
        [root] = receiver.wait_for(lambda spans: [s for s in spans if s["attributes"].get("messaging.message.id") == done.id and s["name"] == "PubSubService.Publish"])
        [line] = until(lambda: [line for line in map(json.loads, re.findall(r"^\{.*\}$", server.log(), re.MULTILINE)) if line["message"] == "request answered" and line["method"] == "Publish"])
        assert line["trace_id"] == root["trace_id"]


# proves: M-24
def test_an_unsampled_caller_is_passed_on_and_not_recorded(receiver: OtlpReceiver, stub: pubsub_pb2_grpc.PubSubServiceStub) -> None:
    unsampled, unsampled_trace, _ = traceparent(sampled=False)
    done = stub.Publish(pubsub_pb2.PublishRequest(topic="plain", payload=b"x"), metadata=[("traceparent", unsampled), ("tracestate", "a=1")])
    event = next_event(stub, "plain", "unsampled", done.id)
    assert event.metadata["traceparent"] == unsampled
    assert event.metadata["tracestate"] == "a=1"
    later, later_trace, _ = traceparent()
    stub.Publish(pubsub_pb2.PublishRequest(topic="plain", payload=b"x"), metadata=[("traceparent", later)])
    of_trace(receiver, later_trace, "kafka.produce")
    assert not [span for span in receiver.spans() if span["trace_id"] == unsampled_trace]


@pytest.mark.parametrize("invalid", ["garbage", "00-" + "0" * 32 + "-" + "1" * 16 + "-01", "00-" + "A" * 32 + "-" + "1" * 16 + "-01", "ff-" + "1" * 32 + "-" + "1" * 16 + "-01"])
# proves: M-24
def test_an_invalid_context_is_left_out(receiver: OtlpReceiver, stub: pubsub_pb2_grpc.PubSubServiceStub, invalid: str) -> None:
    done = stub.Publish(pubsub_pb2.PublishRequest(topic="plain", payload=b"x", metadata={"traceparent": invalid, "tracestate": "a=1"}), metadata=[("traceparent", invalid)])
    [root] = receiver.wait_for(lambda spans: [s for s in spans if s["attributes"].get("messaging.message.id") == done.id and s["name"] == "PubSubService.Publish"])
    assert root["parent_id"] == ROOT
    event = next_event(stub, "plain", "invalid", done.id)
    assert event.metadata["traceparent"].split("-")[1] == root["trace_id"]
    assert "tracestate" not in event.metadata


# proves: M-21
def test_a_refused_request_is_a_failed_span(receiver: OtlpReceiver, stub: pubsub_pb2_grpc.PubSubServiceStub) -> None:
    parent, trace, _ = traceparent()
    with pytest.raises(grpc.RpcError):
        stub.Publish(pubsub_pb2.PublishRequest(topic="nowhere", payload=b"x"), metadata=[("traceparent", parent)])
    span = of_trace(receiver, trace, "PubSubService.Publish")["PubSubService.Publish"]
    assert span["failed"] and span["attributes"]["error.type"] == "NAMESPACE_NOT_FOUND"
    assert span["attributes"]["rpc.grpc.status_code"] == grpc.StatusCode.NOT_FOUND.value[0]


# proves: M-21
def test_each_part_of_a_stream_is_a_trace(receiver: OtlpReceiver, stub: pubsub_pb2_grpc.PubSubServiceStub) -> None:
    frame = pubsub_pb2.PublishStreamRequest(messages=[pubsub_pb2.PublishRequest(topic="plain", payload=b"x", message_id=f"part-{secrets.token_hex(4)}") for _ in range(3)])
    results = [result for response in stub.PublishStream(iter([frame]), timeout=30) for result in response.results]
    assert len(results) == 3
    receiver.wait_for(lambda spans: [s for s in spans if s["name"] == "PubSubService.PublishStream" and s["attributes"]["messaging.batch.message_count"] == 3 and s["parent_id"] == ROOT])


# proves: M-24
def test_http_export_with_headers_and_compression(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "spans.jsonl"
    monkeypatch.setenv("OTLP_TOKEN", "s3cret-token")
    with OtlpReceiver(out) as receiver, PrismTestServer(config(receiver, "http/protobuf", headers={"x-token": "${env:OTLP_TOKEN}"}, compression="gzip"), namespace="plain") as server:
        server.client().publish("plain", b"x")
        receiver.wait_for(lambda spans: [s for s in spans if s["name"] == "kafka.produce"])
        assert {span["protocol"] for span in receiver.spans()} == {"http"}
        assert receiver.spans()[0]["headers"]["x-token"] == "s3cret-token"
    assert "kafka.produce" in {json.loads(line)["name"] for line in out.read_text().splitlines()}


# proves: M-24
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_export_over_tls(tmp_path: pathlib.Path, protocol: str) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    with OtlpReceiver(tls=(certificate, key)) as receiver:
        port = receiver.grpc_port if protocol == "grpc" else receiver.http_port
        with PrismTestServer(config(receiver, protocol, endpoint=f"https://localhost:{port}", certificate=str(certificate)), namespace="plain") as server:
            server.client().publish("plain", b"x")
            receiver.wait_for(lambda spans: [s for s in spans if s["name"] == "kafka.produce"])


# proves: M-24
def test_the_environment_configures_export_as_for_any_program(monkeypatch: pytest.MonkeyPatch) -> None:
    with OtlpReceiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{receiver.http_port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "orders-proxy")
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        with PrismTestServer(CONFIG, namespace="plain") as server:
            server.client().publish("plain", b"x")
        # The program has ended: it sent what was left.
        assert receiver.named("kafka.produce")
        assert receiver.spans()[0]["resource"]["service.name"] == "orders-proxy"
        assert receiver.spans()[0]["resource"]["deployment.environment.name"] == "test"


# proves: M-24
def test_sampling_by_ratio() -> None:
    with OtlpReceiver() as receiver:
        with PrismTestServer(config(receiver, sampling="10%"), namespace="plain") as server, grpc.insecure_channel(server.address) as channel:
            stub = pubsub_pb2_grpc.PubSubServiceStub(channel)
            calls = [stub.Publish.future(pubsub_pb2.PublishRequest(topic="plain", payload=b"x")) for _ in range(2000)]
            for call in calls:
                call.result()
        requests = receiver.named("PubSubService.Publish")
        assert 120 <= len(requests) <= 280  # six standard deviations about 200
        assert {span["trace_id"] for span in receiver.named("kafka.produce")} == {span["trace_id"] for span in requests}


def metric(server: PrismTestServer, name: str) -> float:
    text = urllib.request.urlopen(f"http://{server.admin}/metrics", timeout=10).read().decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if re.match(rf"{name}[ {{]", line))


# proves: M-24
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_receiver_that_is_down_holds_nothing_up_and_gets_what_waited_when_it_is_back(protocol: str) -> None:
    receiver = OtlpReceiver(reserve=True)
    with PrismTestServer(config(receiver, protocol), namespace="plain") as server:
        server.client().publish("plain", b"while it is down", timeout=60)
        until(lambda: "traces cannot be exported" in server.log())
        assert metric(server, "prism_trace_spans_exported_total") == 0
        with receiver:
            receiver.wait_for(lambda spans: {"kafka.produce", "PubSubService.Publish"} <= {s["name"] for s in spans})
            until(lambda: "traces are exported again" in server.log())
            assert metric(server, "prism_trace_spans_dropped_total") == 0


# proves: M-24
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_full_queue_drops_and_counts(protocol: str) -> None:
    with OtlpReceiver() as receiver:
        receiver.refuse = True
        with PrismTestServer(config(receiver, protocol, queue=10, batch=5), namespace="plain") as server:
            client = server.client()
            for _ in range(50):
                client.publish("plain", b"x")
            until(lambda: metric(server, "prism_trace_spans_dropped_total") >= 85)  # of 100: 10 wait, a batch of 5 is being tried


# proves: M-27
def test_a_failing_receiver_is_logged_now_and_then_and_its_secrets_never(tmp_path: pathlib.Path) -> None:
    with OtlpReceiver() as receiver:
        settings = config(receiver, headers={"authorization": "Bearer hidden-token"})
        receiver.refuse = True
        file, ready = tmp_path / "prism.yaml", tmp_path / "ready.json"
        file.write_text(json.dumps(settings))
        command = [find_binary(), "dev", str(file), "--port", "0", "--admin-port", "0", "--data", str(tmp_path / "data"), "--ready-file", str(ready), "--log-format", "json"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            try:
                address = addresses(ready, process)["grpc"]
                with grpc.insecure_channel(address) as channel:
                    stub = pubsub_pb2_grpc.PubSubServiceStub(channel)
                    for _ in range(5):
                        stub.Publish(pubsub_pb2.PublishRequest(topic="plain", payload=b"x"), timeout=10)
                line = ""
                assert process.stderr is not None
                while "traces cannot be exported" not in line:
                    line = process.stderr.readline()
                    assert line
            finally:
                process.send_signal(signal.SIGTERM)
                rest = process.communicate(timeout=60)[1]
        first = json.loads(line)
        assert first["level"] == "warn" and first["reason"] == "TRACE_EXPORT_FAILED" and first["url"].startswith("http://127.0.0.1:")
        again = [json.loads(text) for text in rest.splitlines() if "traces cannot be exported" in text]
        assert len(again) <= 2  # repeats are counted, not written
        assert "hidden-token" not in line + rest


# proves: M-24
def test_a_missing_module_is_said_at_the_start(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    alone = tmp_path / "bin" / "prism"
    alone.parent.mkdir()
    shutil.copy(find_binary(), alone)
    file = tmp_path / "prism.yaml"
    file.write_text(json.dumps({**CONFIG, "telemetry": {"traces": {"endpoint": "http://127.0.0.1:4317"}}}))
    done = subprocess.run([str(alone), "dev", str(file), "--port", "0", "--admin-port", "0", "--data", str(tmp_path / "data")], capture_output=True, text=True, timeout=60, env={k: v for k, v in os.environ.items() if not k.startswith("OTEL_")})
    assert done.returncode == 2
    assert "OTLP_NOT_AVAILABLE" in done.stderr
