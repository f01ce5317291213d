"""Publishing: results, requests, and the stream for many small messages."""

from __future__ import annotations

import dataclasses
import enum
import threading
from collections import deque
from concurrent.futures import Future
from typing import Any, Callable, Iterator, Mapping

import grpc

from prism.common.v1 import error_pb2
from prism.errors import PrismError, from_entry, from_rpc
from prism.payloads import PayloadLike, chunks_of, crc32c, inline_bytes, known_size
from prism.pubsub.v1 import pubsub_pb2

__all__ = ["Durability", "Message", "Publisher", "PublishResult"]

INLINE_LIMIT = 1 << 20
"""Payloads above so many bytes are streamed in chunks."""

_FRAME_BYTES = 256 * 1024
_FRAME_MESSAGES = 1000
_STREAM_LIMIT = 3 << 20


class Durability(enum.Enum):
    """What an acknowledged message survives; each level includes those before it."""

    UNSPECIFIED = error_pb2.DURABILITY_UNSPECIFIED
    MEMORY = error_pb2.DURABILITY_MEMORY
    OS = error_pb2.DURABILITY_OS
    FSYNC = error_pb2.DURABILITY_FSYNC
    REPLICATED = error_pb2.DURABILITY_REPLICATED


@dataclasses.dataclass(frozen=True, slots=True)
class PublishResult:
    """A message was published."""

    success: bool
    """Always true: a failure is raised as PrismError."""
    id: str
    """The event's id."""
    position: str
    """Opaque; for `min_position` of reads and `start` of subscriptions."""
    durability: Durability
    """What the message survives from now on."""
    duplicate: bool
    """A message with this id was there already; nothing was added."""
    topic: str = ""
    """The topic as the backend knows it; empty in results of streams."""


@dataclasses.dataclass(slots=True)
class Message:
    """A message for `publish_many`: what `Client.publish` takes, as one object. Payloads up to 3 MiB."""

    topic: str
    payload: PayloadLike
    metadata: Mapping[str, str] | None = None
    key: str = ""
    message_id: str = ""
    content_type: str = ""


def to_result(response: pubsub_pb2.PublishResponse) -> PublishResult:
    try:
        durability = Durability(response.durability)
    except ValueError:  # a level that a newer server knows
        durability = Durability.UNSPECIFIED
    return PublishResult(
        response.success, response.id, response.position, durability, response.duplicate, response.topic
    )


def to_request(message: Message) -> pubsub_pb2.PublishRequest:
    payload = inline_bytes(message.payload)
    if payload is None:
        payload = b"".join(chunks_of(message.payload))
    if len(payload) > _STREAM_LIMIT:
        raise PrismError(
            f"a payload of {len(payload):,} bytes does not fit into one frame",
            code=grpc.StatusCode.INVALID_ARGUMENT,
            reason="PAYLOAD_TOO_LARGE",
            hint="use Client.publish, which streams it",
            retry="never",
        )
    return pubsub_pb2.PublishRequest(
        topic=message.topic,
        payload=payload,
        metadata=message.metadata,
        ordering_key=message.key,
        message_id=message.message_id,
        content_type=message.content_type,
    )


def payload_frames(message: Message) -> Iterator[pubsub_pb2.PublishPayloadRequest]:
    """The frames of a streamed payload."""
    header = pubsub_pb2.PayloadHeader(
        topic=message.topic,
        metadata=message.metadata,
        ordering_key=message.key,
        message_id=message.message_id,
        content_type=message.content_type,
        size=known_size(message.payload),
    )
    yield pubsub_pb2.PublishPayloadRequest(header=header)
    crc, size = 0, 0
    for chunk in chunks_of(message.payload):
        crc = crc32c(chunk, crc)
        size += len(chunk)
        yield pubsub_pb2.PublishPayloadRequest(chunk=chunk)
    yield pubsub_pb2.PublishPayloadRequest(trailer=pubsub_pb2.PayloadTrailer(crc32c=crc, size=size))


class Publisher:
    """Publishes many small messages over one stream, in order; get one from `Client.publisher()`.

    `send` returns at once with a future and only waits where `window` bytes are under way. What is sent while a frame is on its way
    makes up the next frame. Any thread may call any method. If the stream fails, every future that has no result gets the error, and
    later calls raise it: make another publisher, and repeat with the same message ids.
    """

    def __init__(self, call: Callable[[Iterator[Any]], Any], window: int) -> None:
        self._window = window
        self._changed = threading.Condition()
        self._queue: deque[pubsub_pb2.PublishRequest] = deque()
        self._waiting: deque[tuple[Future[PublishResult], int]] = deque()
        self._bytes = 0
        self._sequence = 0
        self._closing = False
        self._error: PrismError | None = None
        self._call = call(self._frames())
        self._reader = threading.Thread(target=self._read, name="prism-publisher", daemon=True)
        self._reader.start()

    def send(
        self,
        topic: str,
        payload: PayloadLike,
        metadata: Mapping[str, str] | None = None,
        *,
        key: str = "",
        message_id: str = "",
        content_type: str = "",
    ) -> Future[PublishResult]:
        """Hands a message over; the future has its PublishResult, or raises its PrismError."""
        return self.send_message(Message(topic, payload, metadata, key, message_id, content_type))

    def send_message(self, message: Message) -> Future[PublishResult]:
        """As `send`."""
        request = to_request(message)
        size = request.ByteSize()
        future: Future[PublishResult] = Future()
        future.set_running_or_notify_cancel()  # it is under way: it cannot be cancelled
        with self._changed:
            self._changed.wait_for(lambda: self._error or self._closing or self._bytes < self._window)
            if self._error:
                raise self._error
            if self._closing:
                raise ValueError("the publisher is closed")
            self._queue.append(request)
            self._waiting.append((future, size))
            self._bytes += size
            self._changed.notify_all()
        return future

    def flush(self, timeout: float | None = None) -> None:
        """Waits until everything that was sent has its result. Raises the stream's error, not those of single messages."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._error or not self._waiting, timeout):
                raise TimeoutError(f"{len(self._waiting)} messages have no result yet")
            if self._error:
                raise self._error

    def close(self, timeout: float = 30) -> None:
        """Sends what is left, waits for all results, and ends the stream."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._reader.join(timeout)
        if self._reader.is_alive():
            self._call.cancel()
            self._reader.join()

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _frames(self) -> Iterator[pubsub_pb2.PublishStreamRequest]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closing or self._error)
                if self._error or not self._queue:
                    return
                frame, size = pubsub_pb2.PublishStreamRequest(), 0
                while self._queue and len(frame.messages) < _FRAME_MESSAGES and size < _FRAME_BYTES:
                    request = self._queue[0]
                    if size and size + len(request.payload) > _FRAME_BYTES:
                        break
                    size += len(request.payload) + 64
                    frame.messages.append(self._queue.popleft())
            yield frame

    def _read(self) -> None:
        try:
            for response in self._call:
                self._resolve(response)
            error = PrismError(
                "the server ended the stream",
                code=grpc.StatusCode.UNAVAILABLE,
                reason="SERVER_UNAVAILABLE",
                retry="unknown_outcome",
            )
        except grpc.RpcError as failure:
            error = from_rpc(failure)
        except PrismError as failure:
            error = failure
            self._call.cancel()
        with self._changed:
            left = list(self._waiting)
            if left or not self._closing:
                self._error = error
            self._waiting.clear()
            self._queue.clear()
            self._changed.notify_all()
        for future, _ in left:
            future.set_exception(error)

    def _resolve(self, response: pubsub_pb2.PublishStreamResponse) -> None:
        with self._changed:
            if response.first_sequence != self._sequence or len(response.results) > len(self._waiting):
                raise PrismError(
                    "results out of order",
                    code=grpc.StatusCode.INTERNAL,
                    reason="FRAME_OUT_OF_ORDER",
                    retry="unknown_outcome",
                )
            self._sequence += len(response.results)
            done = [self._waiting.popleft() for _ in response.results]
            self._bytes -= sum(size for _, size in done)
            self._changed.notify_all()
        for (future, _), result in zip(done, response.results):
            if result.HasField("error"):
                future.set_exception(from_entry(result.error))
            else:
                future.set_result(to_result(result.response))
