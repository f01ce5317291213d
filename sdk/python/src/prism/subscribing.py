"""Subscribing: events, their settlement, and the stream that brings them."""

from __future__ import annotations

import dataclasses
import enum
import io
import json
import os
import queue
import random
import shutil
import threading
import time
import weakref
from collections import defaultdict, deque
from concurrent.futures import Future
from datetime import datetime, timezone
from typing import Any, BinaryIO, Callable, Iterator, Union

import grpc
from google.protobuf import duration_pb2, timestamp_pb2

from prism.errors import PrismError, Timeout, from_entry, from_rpc
from prism.payloads import Assembly
from prism.pubsub.v1 import pubsub_pb2

__all__ = ["Event", "SettleStatus", "Start", "Subscriber"]

Start = Union[str, datetime]
"""Where a new group begins: "earliest", "latest", a position, or a moment (a datetime with its time zone)."""


class SettleStatus(enum.Enum):
    """What became of an ack, nack or extension."""

    OK = pubsub_pb2.SubscribeStreamResponse.Settled.STATUS_OK
    """Done; an acknowledgement survives a crash."""
    STALE = pubsub_pb2.SubscribeStreamResponse.Settled.STATUS_STALE
    """The event was delivered again or settled meanwhile: nothing was changed."""
    UNKNOWN = pubsub_pb2.SubscribeStreamResponse.Settled.STATUS_UNKNOWN
    """It may or may not have been kept: the event may come again."""
    INVALID = pubsub_pb2.SubscribeStreamResponse.Settled.STATUS_INVALID
    """No token of this subscription."""


def duration(seconds: float) -> duration_pb2.Duration:
    message = duration_pb2.Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


def to_start(start: Start) -> pubsub_pb2.Start:
    if isinstance(start, datetime):
        if start.tzinfo is None:
            raise ValueError("start: a datetime needs a time zone, e.g. datetime.now(timezone.utc)")
        moment = timestamp_pb2.Timestamp()
        moment.FromDatetime(start)
        return pubsub_pb2.Start(time=moment)
    if start == "earliest":
        return pubsub_pb2.Start(edge=pubsub_pb2.Start.EDGE_EARLIEST)
    if start == "latest":
        return pubsub_pb2.Start(edge=pubsub_pb2.Start.EDGE_LATEST)
    return pubsub_pb2.Start(position=start)


class Event:
    """One event as it was delivered to this subscription.

    id, topic, metadata, key, content_type   as published
    position      opaque: where it stands in the log
    publish_time  when it was appended to the log (UTC)
    attempt       1 for the first delivery to this group
    size          length of the payload in bytes
    error         why the payload could not be fetched; None as a rule. The event can be settled all the same.
    """

    def __init__(
        self, head: pubsub_pb2.Event, content: bytes | Assembly, error: PrismError | None, stream: _Stream
    ) -> None:
        self.id: str = head.id
        self.topic: str = head.topic
        self.metadata: dict[str, str] = dict(head.metadata)
        self.key: str = head.ordering_key
        self.content_type: str = head.content_type
        self.position: str = head.position
        self.publish_time: datetime = head.publish_time.ToDatetime(timezone.utc)
        self.attempt: int = head.attempt
        self.error = error
        self._token: bytes = head.ack_token
        self._content = content
        self._stream = stream
        self._subscriber: Subscriber | None = None

    @property
    def size(self) -> int:
        return len(self._content) if isinstance(self._content, bytes) else self._content.size

    @property
    def payload(self) -> bytes:
        """The content. A large one that was spooled to disk is read into memory; see `open` and `save_to`."""
        if self.error:
            raise self.error
        if isinstance(self._content, Assembly):
            return self._content.open().read()
        return self._content

    @property
    def text(self) -> str:
        """The content as UTF-8 text."""
        return self.payload.decode()

    def json(self) -> Any:
        """The content as JSON."""
        return json.loads(self.payload)

    def open(self) -> BinaryIO:
        """The content as a file, positioned at its beginning; good for payloads that should not be in memory."""
        if self.error:
            raise self.error
        return self._content.open() if isinstance(self._content, Assembly) else io.BytesIO(self._content)

    def save_to(self, path: str | os.PathLike[str]) -> None:
        """Writes the content to a file without reading it into memory."""
        source = self.open()
        with open(path, "wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)

    def ack(self) -> Future[SettleStatus]:
        """Tells the server that the group has dealt with the event. Sent at once; the future tells what became of it."""
        return self._stream.settle("ack", self._token)

    def nack(self, delay: float = 0, reason: str = "") -> Future[SettleStatus]:
        """Gives the event back, to be delivered again after `delay` seconds, and the later ones of its key after it."""
        return self._stream.settle("nack", self._token, delay, reason)

    def extend(self, by: float | None = None) -> Future[SettleStatus]:
        """Begins the acknowledgement deadline anew: `by` seconds from now, by default the subscription's ack_deadline."""
        return self._stream.settle("extend", self._token, by)

    def __repr__(self) -> str:
        return f"Event(id={self.id!r}, topic={self.topic!r}, size={self.size}, attempt={self.attempt})"


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """What a subscription was asked for; see Client.subscribe."""

    topic: str
    group: str
    start: Start
    auto_ack: bool
    max_messages: int
    max_bytes: int
    ack_deadline: float
    client_id: str
    timeout: float | None
    spool_above: int
    reconnect_for: float

    def to_open(self) -> pubsub_pb2.SubscribeStreamRequest:
        return pubsub_pb2.SubscribeStreamRequest(
            open=pubsub_pb2.SubscribeStreamRequest.Open(
                topic=self.topic,
                group=self.group,
                start=to_start(self.start),
                max_messages=self.max_messages,
                max_bytes=self.max_bytes,
                ack_deadline=duration(self.ack_deadline),
                client_id=self.client_id,
            )
        )


class _Stream:
    """One stream of a subscription. A later one, after a reconnection, does not know its tokens: they get UNKNOWN."""

    def __init__(
        self,
        call: Callable[[Iterator[Any]], Any],
        options: Options,
        deliver: Callable[[Event], None],
        replaced: Callable[[_Stream], None],
    ) -> None:
        self._options = options
        self._deliver = deliver
        self._replaced = replaced
        self._changed = threading.Condition()
        self._outbox: deque[tuple[str, bytes, Any, str]] = deque()
        self._settling: dict[bytes, deque[Future[SettleStatus]]] = defaultdict(deque)
        self._unsettled = 0
        self._ending = False
        self._ended = False
        self.opened = threading.Event()
        self._head: pubsub_pb2.Event | None = None
        self._assembly: Assembly | None = None
        self._call = call(self._frames(options.to_open()))  # what is wrong with the options is raised here

    def settle(self, what: str, token: bytes, value: Any = None, reason: str = "") -> Future[SettleStatus]:
        future: Future[SettleStatus] = Future()
        future.set_running_or_notify_cancel()
        with self._changed:
            if self._ended or self._ending:
                future.set_result(SettleStatus.UNKNOWN)
                return future
            self._outbox.append((what, token, value, reason))
            self._settling[token].append(future)
            self._unsettled += 1
            self._changed.notify_all()
        return future

    @property
    def ended(self) -> bool:
        with self._changed:
            return self._ended

    def wait_settled(self, timeout: float) -> bool:
        """Waits until every settlement has its result."""
        with self._changed:
            return self._changed.wait_for(lambda: self._ended or not self._unsettled, timeout)

    def end(self, timeout: float) -> None:
        """Sends what is left to settle, waits for the results, ends the stream."""
        self.wait_settled(timeout)
        with self._changed:
            self._ending = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._ended, timeout)
        self._call.cancel()

    def run(self) -> PrismError:
        """Reads the stream to its end, and says why it ended."""
        error = PrismError(
            "the server ended the stream",
            code=grpc.StatusCode.UNAVAILABLE,
            reason="SERVER_UNAVAILABLE",
            retry="safe",
        )
        try:
            for response in self._call:
                kind = response.WhichOneof("frame")
                if kind == "events":
                    for event in response.events.events:
                        self._receive(event)
                elif kind == "settled":
                    self._resolve(response.settled)
                elif kind == "opened":
                    self.opened.set()
                elif kind == "closing" and response.closing.reason == "NAMESPACE_REPLACED":
                    self._replaced(self)
        except grpc.RpcError as failure:
            error = from_rpc(failure)
        except Exception as failure:  # frames that contradict each other, no room for the temporary file
            error = (
                failure
                if isinstance(failure, PrismError)
                else PrismError(str(failure), code=grpc.StatusCode.INTERNAL, reason="CLIENT_ERROR")
            )
            self._call.cancel()
        with self._changed:
            self._ended = True
            left = [future for futures in self._settling.values() for future in futures]
            self._settling.clear()
            self._unsettled = 0
            self._outbox.clear()
            self._changed.notify_all()
        for future in left:
            future.set_result(SettleStatus.UNKNOWN)
        return error

    def _frames(self, first: pubsub_pb2.SubscribeStreamRequest) -> Iterator[pubsub_pb2.SubscribeStreamRequest]:
        yield first
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._outbox or self._ending or self._ended)
                if not self._outbox:
                    return
                # One frame takes a run of like settlements: their order is kept.
                what, token, value, reason = self._outbox.popleft()
                run = [(token, value, reason)]
                while self._outbox and len(run) < 1000 and self._outbox[0][0] == what:
                    if what == "extend" and self._outbox[0][2] != value:
                        break
                    run.append(self._outbox.popleft()[1:])
            yield _settle_frame(what, run)

    def _receive(self, event: pubsub_pb2.Event) -> None:
        error = from_entry(event.error) if event.HasField("error") else None
        if not event.HasField("part"):
            self._deliver(Event(event, event.payload, error, self))
            return
        if event.part.offset == 0:
            self._head, self._assembly = event, Assembly(self._options.spool_above)
        head, assembly = self._head, self._assembly
        if head is None or assembly is None or head.id != event.id or assembly.size != event.part.offset:
            raise PrismError(
                f"a part of event {event.id} at byte {event.part.offset} does not follow the one before",
                code=grpc.StatusCode.DATA_LOSS,
                reason="FRAME_OUT_OF_ORDER",
            )
        assembly.add(event.payload)
        if error or event.part.last:
            self._head = self._assembly = None
            if not error and event.part.HasField("crc32c") and event.part.crc32c != assembly.crc32c:
                error = PrismError(
                    f"the payload of event {head.id} was damaged on its way",
                    code=grpc.StatusCode.DATA_LOSS,
                    reason="PAYLOAD_CHECKSUM_MISMATCH",
                    retry="safe",
                )
            self._deliver(Event(head, assembly, error, self))

    def _resolve(self, settled: pubsub_pb2.SubscribeStreamResponse.Settled) -> None:
        done = []
        with self._changed:
            for result in settled.results:
                futures = self._settling.get(result.ack_token)
                if not futures:
                    continue
                done.append((futures.popleft(), result.status))
                self._unsettled -= 1
                if not futures:
                    del self._settling[result.ack_token]
            self._changed.notify_all()
        for future, status in done:
            try:
                future.set_result(SettleStatus(status))
            except ValueError:  # a status that a newer server knows
                future.set_result(SettleStatus.UNKNOWN)


def _settle_frame(what: str, run: list[tuple[bytes, Any, str]]) -> pubsub_pb2.SubscribeStreamRequest:
    request = pubsub_pb2.SubscribeStreamRequest
    if what == "ack":
        return request(ack=request.Ack(ack_tokens=[token for token, _, _ in run]))
    if what == "extend":
        by = run[0][1]
        tokens = [token for token, _, _ in run]
        return request(extend=request.Extend(ack_tokens=tokens, by=None if by is None else duration(by)))
    entries = [request.Nack.Entry(ack_token=token, delay=duration(delay), reason=reason) for token, delay, reason in run]
    return request(nack=request.Nack(entries=entries))


class Subscriber(Iterator[Event]):
    """An iterator of events; get one from `Client.subscribe`. Close it, or use it in a `with` statement; it closes itself when the
    last reference to it is gone (as after a `break` out of `for event in client.subscribe(...)`).

    `next(subscriber)` waits for the next event: for ever, or for the `timeout` given to subscribe, then it raises prism.Timeout and
    may be called again. Only one thread at a time may iterate; settling is free to all.

    When the connection is lost, the subscription is opened again by itself. Events that were not acknowledged come again, with a
    larger `attempt`. When the server's configuration of the namespace is changed, it is opened again beside the old one, on which
    what has been handed over can still be settled.
    """

    def __init__(self, call: Callable[[Iterator[Any]], Any], options: Options, open_timeout: float) -> None:
        # What the reading thread works on does not refer to this object, or it could never go.
        self._subscription = _Subscription(call, options, open_timeout)
        self._finalizer = weakref.finalize(self, self._subscription.close, 1)

    def next(self, timeout: float | None = None) -> Event:
        """The next event; raises prism.Timeout after `timeout` seconds (None: waits for ever)."""
        event = self._subscription.next(timeout)
        if not self._subscription.auto_ack:
            event._subscriber = self  # it can be settled as long as it is kept
        return event

    def __next__(self) -> Event:
        return self.next(self._subscription.timeout)

    def __iter__(self) -> Subscriber:
        return self

    def wait_settled(self, timeout: float = 10) -> bool:
        """Waits until the server has answered every acknowledgement so far; False if it did not in time."""
        return self._subscription.wait_settled(timeout)

    def close(self, timeout: float = 5) -> None:
        """Ends the subscription: what was settled is sent and waited for, the rest goes to other members of the group."""
        self._finalizer.detach()
        self._subscription.close(timeout)

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Subscription:
    """Streams, one after another, and the queue that their reader fills."""

    def __init__(self, call: Callable[[Iterator[Any]], Any], options: Options, open_timeout: float) -> None:
        self._open_call = call
        self._options = options
        self._events: queue.Queue[Event | PrismError] = queue.Queue()
        self._closed = threading.Event()
        self._switch = threading.Lock()  # guards the change of _stream against close()
        self._error: PrismError | None = None
        self._replaced: list[_Stream] = []  # bring nothing more, but what they brought may be settled; guarded by _switch
        self._start(self._new_stream(), opened_once=False)
        self._await_opened(open_timeout)

    def _new_stream(self) -> _Stream:
        return _Stream(self._open_call, self._options, self._events.put, self._replace)

    def _start(self, stream: _Stream, opened_once: bool) -> None:
        self._stream = stream
        self._thread = threading.Thread(target=self._run, args=(stream, opened_once), name="prism-subscriber", daemon=True)
        self._thread.start()

    def _replace(self, stream: _Stream) -> None:
        with self._switch:
            if self._closed.is_set() or stream is not self._stream:
                return
            self._replaced.append(stream)
            self._start(self._new_stream(), opened_once=True)

    def next(self, timeout: float | None) -> Event:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            if self._error:
                raise self._error
            if self._closed.is_set():
                raise StopIteration
            try:
                item = self._events.get(timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise Timeout(f"no event on {self._options.topic!r} within {timeout} s", reason="NO_EVENT") from None
            if isinstance(item, PrismError):
                if self._closed.is_set():
                    raise StopIteration
                self._error = item
                continue
            if item._stream.ended:
                continue  # of a connection that was lost: it cannot be settled, and comes again
            if not self._options.auto_ack:
                return item
            if item.error and item.error.retry == "safe":
                item.nack(delay=1, reason=str(item.error))
                continue
            item.ack()
            return item

    @property
    def timeout(self) -> float | None:
        return self._options.timeout

    @property
    def auto_ack(self) -> bool:
        return self._options.auto_ack

    def wait_settled(self, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        with self._switch:
            streams = [*self._replaced, self._stream]
        return all(stream.wait_settled(max(0.0, deadline - time.monotonic())) for stream in streams)

    def close(self, timeout: float) -> None:
        with self._switch:
            if self._closed.is_set():
                return
            self._closed.set()
            streams = [*self._replaced, self._stream]
        deadline = time.monotonic() + timeout
        for stream in streams:
            stream.end(max(0.0, deadline - time.monotonic()))
        self._thread.join(timeout)
        self._events.put(PrismError("closed", code=grpc.StatusCode.CANCELLED, reason="CLOSED"))  # wakes an iterating thread

    def _await_opened(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not self._stream.opened.wait(0.02):
            if not self._thread.is_alive():
                if self._stream.opened.is_set():
                    return
                raise self._final_error()
            if time.monotonic() > deadline:
                self.close(0)
                raise Timeout(f"the subscription to {self._options.topic!r} did not open within {timeout} s")

    def _final_error(self) -> PrismError:
        while True:
            item = self._events.get()
            if isinstance(item, PrismError):
                self._closed.set()
                return item

    def _run(self, stream: _Stream, opened_once: bool) -> None:
        delay, lost_at = 0.1, time.monotonic()
        while True:
            error = stream.run()
            with self._switch:
                if stream is not self._stream:
                    self._replaced.remove(stream)
                    return
            if stream.opened.is_set():
                opened_once, delay, lost_at = True, 0.1, time.monotonic()
            again = opened_once and error.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DATA_LOSS)
            if not again or time.monotonic() - lost_at > self._options.reconnect_for:
                self._events.put(error)
                return
            if self._closed.wait(delay * random.uniform(0.5, 1.0)):
                return
            delay = min(delay * 2, 5)
            with self._switch:
                if self._closed.is_set():
                    return
                self._stream = stream = self._new_stream()
