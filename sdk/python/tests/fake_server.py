"""A small server that speaks the contract from memory, with faults on demand: it tests the client alone."""

from __future__ import annotations

import threading
import time
import uuid
from collections import defaultdict, deque
from concurrent import futures
from typing import Any, Iterator

import google_crc32c
import grpc
from google.protobuf import any_pb2, duration_pb2

from prism.common.v1 import error_pb2, rpc_status_pb2
from prism.pubsub.v1 import pubsub_pb2 as pb
from prism.pubsub.v1 import pubsub_pb2_grpc
from prism.queue.v1 import queue_pb2_grpc
from prism.session.v1 import session_pb2, session_pb2_grpc

PART = 128 * 1024


def abort(context: Any, code: grpc.StatusCode, reason: str, message: str, **info: str) -> Any:
    """Fails a call as the server does: with details that carry the type URLs of google.rpc."""
    retry_after = info.pop("retry_after", None)
    details = [rpc_status_pb2.ErrorInfo(reason=reason, domain="prism", metadata=info)]
    if retry_after:
        details.append(
            rpc_status_pb2.RetryInfo(retry_delay=duration_pb2.Duration(nanos=int(float(retry_after) * 1e9)))
        )
    packed = [
        any_pb2.Any(
            type_url="type.googleapis.com/google.rpc." + detail.DESCRIPTOR.name, value=detail.SerializeToString()
        )
        for detail in details
    ]
    status = rpc_status_pb2.Status(code=code.value[0], message=message, details=packed)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, message)


class FakeServer(pubsub_pb2_grpc.PubSubServiceServicer, session_pb2_grpc.SessionServiceServicer):
    def __init__(self, port: int = 0) -> None:
        self.changed = threading.Condition()
        self.topics: dict[str, list[pb.PublishRequest]] = defaultdict(list)
        self.cursors: dict[tuple[str, str], int] = defaultdict(int)
        self.redeliver: dict[tuple[str, str], deque[tuple[float, int, int]]] = defaultdict(deque)
        self.settlements: list[tuple[str, str, Any]] = []  # (what, event id, value)
        self.headers: list[dict[str, str]] = []
        self.opens: list[pb.SubscribeStreamRequest.Open] = []
        self.fail: deque[tuple[grpc.StatusCode, str, str, dict[str, str]]] = deque()  # the next unary calls
        self.damage = False  # spoil the next large payload
        self.payload_error: error_pb2.Error | None = None
        self.sessions: set[str] = set()
        self.api = "pubsub"
        self.opened = 0
        self.stopping = False
        self.generation = 0  # streams of an earlier one are told to open again, and bring nothing more
        self.server = grpc.server(
            futures.ThreadPoolExecutor(20), options=[("grpc.max_receive_message_length", 4 << 20), ("grpc.so_reuseport", 0)]
        )
        pubsub_pb2_grpc.add_PubSubServiceServicer_to_server(self, self.server)
        queue_pb2_grpc.add_QueueServiceServicer_to_server(_Queue(self), self.server)
        session_pb2_grpc.add_SessionServiceServicer_to_server(self, self.server)
        self.port = self.server.add_insecure_port(f"127.0.0.1:{port}")
        self.address = f"127.0.0.1:{self.port}"
        self.server.start()

    def stop(self) -> None:
        with self.changed:
            self.stopping = True
            self.changed.notify_all()
        self.server.stop(0).wait()

    def published(self, topic: str) -> list[pb.PublishRequest]:
        with self.changed:
            return list(self.topics[topic])

    # Sessions

    def Open(self, request: session_pb2.OpenRequest, context: Any) -> session_pb2.OpenResponse:
        self._enter(context, request.namespace)
        session = uuid.uuid4().hex
        self.sessions.add(session)
        self.opened += 1
        return session_pb2.OpenResponse(session_id=session, namespace=request.namespace, client_api=self.api)

    def Close(self, request: session_pb2.CloseRequest, context: Any) -> session_pb2.CloseResponse:
        self.sessions.discard(request.session_id)
        return session_pb2.CloseResponse()

    # Publishing

    def _enter(self, context: Any, namespace: str = "") -> None:
        headers = dict(context.invocation_metadata())
        self.headers.append(headers)
        if (namespace or headers.get("prism-namespace")) == "missing":
            abort(
                context, grpc.StatusCode.NOT_FOUND, "NAMESPACE_NOT_FOUND", "there is no namespace 'missing'",
                hint="did you mean 'test'?", retry="never", namespace="missing",
            )  # fmt: skip
        if self.fail and not namespace:
            code, reason, message, info = self.fail.popleft()
            abort(context, code, reason, message, **info)

    def _append(self, request: pb.PublishRequest) -> pb.PublishResponse:
        with self.changed:
            log = self.topics[request.topic]
            if not request.message_id:
                request.message_id = str(uuid.uuid4())
            known = [i for i, old in enumerate(log) if old.message_id == request.message_id]
            if not known:
                log.append(request)
                self.changed.notify_all()
            at = known[0] if known else len(log) - 1
        return pb.PublishResponse(
            success=True, id=request.message_id, position=f"p{at}", durability=error_pb2.DURABILITY_FSYNC,
            duplicate=bool(known), topic=request.topic,
        )  # fmt: skip

    def Publish(self, request: pb.PublishRequest, context: Any) -> pb.PublishResponse:
        self._enter(context)
        return self._append(request)

    def PublishStream(self, frames: Iterator[Any], context: Any) -> Iterator[pb.PublishStreamResponse]:
        self._enter(context)
        sequence = 0
        for frame in frames:
            response = pb.PublishStreamResponse(first_sequence=sequence)
            for message in frame.messages:
                if message.payload == b"bad":
                    error = error_pb2.Error(code=3, reason="METADATA_RESERVED", message="no", retry="never")
                    response.results.add(error=error)
                else:
                    response.results.add(response=self._append(message))
            sequence += len(frame.messages)
            yield response

    def PublishPayload(self, frames: Iterator[Any], context: Any) -> pb.PublishResponse:
        self._enter(context)
        header = next(frames).header
        payload, trailer = bytearray(), None
        for frame in frames:
            if frame.HasField("trailer"):
                trailer = frame.trailer
            else:
                payload += frame.chunk
        if trailer is None:
            abort(context, grpc.StatusCode.INVALID_ARGUMENT, "PAYLOAD_STREAM_INCOMPLETE", "no trailer", retry="never")
        assert trailer is not None
        if trailer.size != len(payload) or header.HasField("size") and header.size != len(payload):
            abort(context, grpc.StatusCode.INVALID_ARGUMENT, "PAYLOAD_SIZE_MISMATCH", "size", retry="never")
        if trailer.crc32c != google_crc32c.value(bytes(payload)):
            abort(context, grpc.StatusCode.INVALID_ARGUMENT, "PAYLOAD_CHECKSUM_MISMATCH", "crc", retry="never")
        return self._append(
            pb.PublishRequest(
                topic=header.topic, payload=bytes(payload), metadata=header.metadata, message_id=header.message_id,
                ordering_key=header.ordering_key, content_type=header.content_type,
            )  # fmt: skip
        )

    # Subscribing

    def SubscribeStream(self, frames: Iterator[Any], context: Any) -> Iterator[pb.SubscribeStreamResponse]:
        self._enter(context)
        opened = next(frames).open
        self.opens.append(opened)
        group = (opened.topic, opened.group or "default")
        answers: deque[pb.SubscribeStreamResponse] = deque()
        unsettled: dict[bytes, tuple[int, int]] = {}
        ended = threading.Event()

        def settle(what: str, token: bytes, value: Any, settled: Any) -> None:
            status = pb.SubscribeStreamResponse.Settled.STATUS_STALE
            if token in unsettled:
                index, attempt = unsettled[token]
                status = pb.SubscribeStreamResponse.Settled.STATUS_OK
                self.settlements.append((what, self.topics[opened.topic][index].message_id, value))
                if what == "nack":
                    self.redeliver[group].append((time.monotonic() + value, index, attempt + 1))
                if what != "extend":
                    del unsettled[token]
            settled.results.add(ack_token=token, status=status)

        def read() -> None:
            try:
                for frame in frames:
                    with self.changed:
                        answer = pb.SubscribeStreamResponse()
                        for token in frame.ack.ack_tokens:
                            settle("ack", token, None, answer.settled)
                        for token in frame.extend.ack_tokens:
                            settle("extend", token, frame.extend.by.ToTimedelta().total_seconds(), answer.settled)
                        for entry in frame.nack.entries:
                            settle("nack", entry.ack_token, entry.delay.ToTimedelta().total_seconds(), answer.settled)
                        answers.append(answer)
                        self.changed.notify_all()
            except grpc.RpcError:
                pass
            ended.set()
            with self.changed:
                self.changed.notify_all()

        threading.Thread(target=read, daemon=True).start()
        yield pb.SubscribeStreamResponse(opened=pb.SubscribeStreamResponse.Opened(group=group[1]))
        generation, closing = self.generation, False
        while True:
            if generation != self.generation and not closing:
                closing = True
                yield pb.SubscribeStreamResponse(closing=pb.SubscribeStreamResponse.Closing(reason="NAMESPACE_REPLACED"))
            batch: list[tuple[int, int]] = []
            with self.changed:
                if not answers and not ended.is_set() and not self.stopping:
                    self.changed.wait(0.02)
                out = list(answers)
                answers.clear()
                stop = ended.is_set()
                if self.stopping:
                    return
                log = self.topics[opened.topic]
                replaced = closing or generation != self.generation
                while not stop and not replaced and len(unsettled) + len(batch) < opened.max_messages:
                    due = self.redeliver[group]
                    if due and due[0][0] <= time.monotonic():
                        batch.append(due.popleft()[1:])
                    elif self.cursors[group] < len(log):
                        batch.append((self.cursors[group], 1))
                        self.cursors[group] += 1
                    else:
                        break
                items = []
                for index, attempt in batch:
                    token = uuid.uuid4().bytes
                    unsettled[token] = (index, attempt)
                    items.append((log[index], index, attempt, token))
            yield from out
            if closing and not unsettled:
                abort(context, grpc.StatusCode.UNAVAILABLE, "NAMESPACE_REPLACED", "changed", retry="safe")
            if stop:
                with self.changed:  # the others of the group get what is left
                    for index, attempt in unsettled.values():
                        self.redeliver[group].append((0, index, attempt + 1))
                return
            for item in items:
                yield from self._deliver(*item)

    def _deliver(
        self, message: pb.PublishRequest, index: int, attempt: int, token: bytes
    ) -> Iterator[pb.SubscribeStreamResponse]:
        head = pb.Event(
            id=message.message_id, topic=message.topic, metadata=message.metadata, position=f"p{index}", attempt=attempt,
            ack_token=token, ordering_key=message.ordering_key, content_type=message.content_type,
        )  # fmt: skip
        head.publish_time.GetCurrentTime()
        data = message.payload
        if self.payload_error:
            head.error.CopyFrom(self.payload_error)
            self.payload_error = None
        elif len(data) <= PART:
            head.payload = data
        else:
            for offset in range(0, len(data), PART):
                event = head if offset == 0 else pb.Event(id=head.id)
                event.payload = data[offset : offset + PART]
                event.part.offset = offset
                event.part.last = offset + PART >= len(data)
                if event.part.last:
                    event.part.crc32c = google_crc32c.value(data) ^ (1 if self.damage else 0)
                    self.damage = False
                yield pb.SubscribeStreamResponse(events=pb.SubscribeStreamResponse.Events(events=[event]))
            return
        yield pb.SubscribeStreamResponse(events=pb.SubscribeStreamResponse.Events(events=[head]))


class _Queue(queue_pb2_grpc.QueueServiceServicer):
    """The same by another name."""

    def __init__(self, server: FakeServer) -> None:
        for name in ("Publish", "PublishStream", "PublishPayload", "SubscribeStream"):
            setattr(self, name, self._only_for_queues(server, getattr(server, name)))

    @staticmethod
    def _only_for_queues(server: FakeServer, method: Any) -> Any:
        def call(request: Any, context: Any) -> Any:
            if server.api != "queue":
                abort(context, grpc.StatusCode.FAILED_PRECONDITION, "WRONG_API", "it is no queue", retry="never")
            return method(request, context)

        return call
