"""Namespaces that use every feature, and traffic through all of them, so that everything that can be measured is."""

from __future__ import annotations

import contextlib
import os
import pathlib
import sqlite3
from typing import Any

import grpc

import prism
from prism.pubsub.v1 import pubsub_pb2, pubsub_pb2_grpc
from prism.queue.v1 import queue_pb2_grpc
from prism.session.v1 import session_pb2, session_pb2_grpc
from prism.testing import PrismTestServer

CLAIM_CHECK = {"type": "claim-check", "threshold": "1kB", "storage": {"backend": "s3"}, "cleanup": {"interval": "20ms"}}


def outbox(table: str, **publisher: Any) -> dict[str, Any]:
    return {"type": "outbox", "database": "postgres", "table": table, "publisher": {"interval": "20ms", **publisher}}


CONFIG: dict[str, Any] = {
    # Nobody listens there: spans are dropped and counted.
    "telemetry": {"traces": {"endpoint": "http://127.0.0.1:9", "delay": "20ms", "queue": 10, "batch": 5}},
    "namespaces": [
        {"name": "media", "client_api": "pubsub", "patterns": [outbox("media_outbox"), CLAIM_CHECK], "backend": {"type": "kafka", "partitions": 1}},
        {"name": "kept", "client_api": "pubsub", "patterns": [outbox("kept_outbox", cleanup={"strategy": "delete", "retention": "1s"})], "backend": "kafka"},
        {"name": "checked", "client_api": "pubsub", "patterns": [CLAIM_CHECK], "backend": "kafka"},
        {"name": "plain", "client_api": "pubsub", "backend": {"type": "kafka", "partitions": 1}},
        {"name": "work", "client_api": "queue", "backend": "kafka"},
        {
            "name": "quiet",
            "client_api": "pubsub",
            "patterns": [outbox("quiet_outbox"), CLAIM_CHECK],
            "backend": "kafka",
            "observability": {"pattern_metrics": False},
        },
    ]
}

# What run() does, for assertions.
MEDIA_SMALL, MEDIA_LARGE, LARGE_BYTES = 7, 3, 5000
BATCH, STREAM, KEPT = 4, 20, 2


def namespace(name: str) -> list[tuple[str, str]]:
    return [("prism-namespace", name)]


def run(server: PrismTestServer) -> None:
    channel = grpc.insecure_channel(server.address)
    pubsub = pubsub_pb2_grpc.PubSubServiceStub(channel)
    queue = queue_pb2_grpc.QueueServiceStub(channel)
    session = session_pb2_grpc.SessionServiceStub(channel)

    # Through both patterns, small and large, and everything is consumed.
    with server.client(namespace="media") as client:
        subscriber = client.subscribe("media", group="archive", timeout=30)
        for i in range(MEDIA_SMALL):
            client.publish("media", b"x" * 100, key=f"k{i % 2}")
        for _ in range(MEDIA_LARGE):
            client.publish("media", os.urandom(LARGE_BYTES))
        for _ in range(MEDIA_SMALL + MEDIA_LARGE):
            assert next(subscriber).payload
        assert client.wait_settled()
        subscriber.close()
    with server.client(namespace="kept") as client:
        for _ in range(KEPT):
            client.publish("kept", b"kept")
    with server.client(namespace="quiet") as client:
        client.publish("quiet", b"x" * 2000)
        assert client.consume("quiet", timeout=30).payload

    # A batch with one message that is refused, a stream, an upload of a size that is not told.
    batch = [pubsub_pb2.PublishRequest(payload=b"12345") for _ in range(BATCH)]
    batch.append(pubsub_pb2.PublishRequest(payload=b"bad", metadata={"prism-x": "reserved"}))
    answer = pubsub.PublishBatch(pubsub_pb2.PublishBatchRequest(messages=batch), metadata=namespace("plain"), timeout=30)
    assert [r.HasField("error") for r in answer.results] == BATCH * [False] + [True]
    with server.client(namespace="plain") as client:
        for result in client.publish_many(("plain", b"stream") for _ in range(STREAM)):
            assert isinstance(result, prism.PublishResult), result
        client.publish("plain", iter([b"a" * 10, b"b" * 10]))

        # Acknowledged, given back once, extended, settled twice.
        with client.subscribe("plain", group="g", auto_ack=False, timeout=30) as subscriber:
            first = next(subscriber)
            first.extend(20).result(30)
            first.nack().result(30)
            seen = 0
            while seen < BATCH + STREAM + 1:
                event = next(subscriber)
                event.ack().result(30)
                seen += 1
            event.ack().result(30)  # has no effect any more

    # The simple form, the queue's methods, a session's.
    stub: Any = queue
    stub.Publish(pubsub_pb2.PublishRequest(payload=b"job"), metadata=namespace("work"), timeout=30)
    stream = stub.Subscribe(pubsub_pb2.SubscribeRequest(group="workers"), metadata=namespace("work"), timeout=30)
    assert next(stream).payload == b"job"
    stream.cancel()
    opened = session.Open(session_pb2.OpenRequest(namespace="plain"), timeout=30)
    session.Describe(session_pb2.DescribeRequest(session_id=opened.session_id), timeout=30)
    session.Refresh(session_pb2.RefreshRequest(session_id=opened.session_id), timeout=30)
    session.Close(session_pb2.CloseRequest(session_id=opened.session_id), timeout=30)

    # Calls that fail: for no namespace, and for one.
    for name in ("nowhere", "plain"):
        try:
            pubsub.Publish(pubsub_pb2.PublishRequest(payload=b"x", metadata={"prism-x": "y"}), metadata=namespace(name), timeout=30)
            raise AssertionError("it was accepted")
        except grpc.RpcError:
            pass
    channel.close()

    # A payload whose object is gone: its backend says so.
    with server.client(namespace="checked") as client:
        client.publish("checked", b"y" * 2000)
        objects = [path for path in pathlib.Path(server.data).rglob("*") if path.is_file() and "prism-checked" in str(path) and "claim-checks" in str(path)]
        assert objects, "no object was stored"
        for path in objects:
            path.unlink()
        with client.subscribe("checked", auto_ack=False, timeout=30) as subscriber:
            event = next(subscriber)
            assert event.error and event.error.reason == "PAYLOAD_MISSING", event


def break_a_table(server: PrismTestServer) -> None:
    """What is held there cannot be looked up any more."""
    with contextlib.closing(sqlite3.connect(pathlib.Path(server.data) / "postgres.db", timeout=30)) as database:
        database.execute("DROP TABLE kept_outbox")
