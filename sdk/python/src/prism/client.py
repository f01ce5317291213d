"""The client."""

from __future__ import annotations

import importlib.metadata
import random
import threading
import time
import weakref
from collections import deque
from concurrent.futures import Future
from typing import Any, Callable, Iterable, Iterator, Mapping

import grpc

from prism.errors import PrismError, from_rpc, not_connected
from prism.payloads import PayloadLike, inline_bytes, known_size
from prism.publishing import INLINE_LIMIT, Message, Publisher, PublishResult, payload_frames, to_request, to_result
from prism.pubsub.v1 import pubsub_pb2_grpc
from prism.queue.v1 import queue_pb2_grpc
from prism.session.v1 import session_pb2, session_pb2_grpc
from prism.subscribing import Event, Options, Start, Subscriber

__all__ = ["Client"]

_MIB = 1 << 20


def _version() -> str:
    try:
        return importlib.metadata.version("prism-client")
    except importlib.metadata.PackageNotFoundError:  # used from a source folder
        return "unknown"


class Client:
    """A connection to a Prism server. Any thread may use it; close it, or use it in a `with` statement.

    address          host:port; default localhost:8980
    namespace        what topics are named in; without one, the first argument of publish and subscribe names a namespace, or a topic
                     that exactly one namespace serves
    api              the API of the namespace, "pubsub" or "queue"; publish and subscribe mean the same in both. Default: the server is
                     asked once, if a namespace is given, else "pubsub"
    credentials      for TLS: grpc.ssl_channel_credentials(...); default: no TLS
    timeout          seconds that a call may take unless it says otherwise; streams and streamed payloads have no limit of their own
    connect_timeout  seconds for which a connection is tried before a call fails with CONNECTION_FAILED
    client_name      who calls, for people: it stands in the server's logs
    """

    def __init__(
        self,
        address: str = "localhost:8980",
        *,
        namespace: str | None = None,
        api: str | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        timeout: float = 30,
        connect_timeout: float = 5,
        client_name: str = "",
    ) -> None:
        self.address = address
        self.namespace = namespace
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._client_name = client_name
        self._session_id = ""
        self._api = api
        options = [
            ("grpc.max_receive_message_length", 16 * _MIB),
            ("grpc.max_send_message_length", 4 * _MIB),
            ("grpc.primary_user_agent", f"prism-python/{_version()}"),
            # A server that was restarted should be found again at once.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2000),
        ]
        if credentials is None:
            self._channel = grpc.insecure_channel(address, options)
        else:
            self._channel = grpc.secure_channel(address, credentials, options)
        # The generated stubs carry no type information. Both services take and give the same messages.
        self._pubsub: Any = pubsub_pb2_grpc.PubSubServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._queue: Any = queue_pb2_grpc.QueueServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._session: Any = session_pb2_grpc.SessionServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._health: Any = self._channel.unary_unary("/grpc.health.v1.Health/Check")  # an empty request: the whole server
        self._lock = threading.Lock()
        self._subscribers: weakref.WeakSet[Subscriber] = weakref.WeakSet()

    # Publishing

    def publish(
        self,
        topic: str,
        payload: PayloadLike,
        metadata: Mapping[str, str] | None = None,
        *,
        key: str = "",
        message_id: str = "",
        content_type: str = "",
        timeout: float | None = None,
    ) -> PublishResult:
        """Publishes one message and waits until it is as durable as the result says.

        payload       bytes or text (UTF-8), or a path, an open binary file or an iterable of byte strings; above 1 MiB, and where the
                      size is not known, it is streamed in chunks and never held in memory as a whole
        metadata      the application's own names and values, delivered with the event
        key           messages of one key keep their order
        message_id    a repeat with the same id is recognised; give one where the call may be repeated
        content_type  media type of the payload
        timeout       seconds; default: the client's, and no limit for a streamed payload

        What failed without effect for a passing reason (PrismError.retry == "safe") is repeated until the timeout, where the payload
        can be read again. Raises PrismError.
        """
        message = Message(topic, payload, metadata, key, message_id, content_type)
        size = known_size(payload)
        if size is not None and size <= INLINE_LIMIT:
            request = to_request(message)
            return self._repeat(
                lambda left: to_result(self._messages().Publish(request, timeout=left, metadata=self._headers())),
                self._timeout if timeout is None else timeout,
            )
        if inline_bytes(payload) is None:
            return self._publish_payload(message, timeout)
        return self._repeat(lambda left: self._publish_payload(message, left if timeout else None), timeout or self._timeout)

    def publish_many(
        self, messages: Iterable[Message | tuple[str, PayloadLike]], *, window: int = 16 * _MIB
    ) -> Iterator[PublishResult | PrismError]:
        """Publishes messages (or pairs of topic and payload) over one stream, in order; yields what became of each, in order.

        A message that failed yields its PrismError; the others go on. Raises PrismError if the stream itself fails. `window` bytes
        may be under way.
        """
        pending: deque[Future[PublishResult]] = deque()
        with self.publisher(window=window) as publisher:
            for message in messages:
                pending.append(publisher.send_message(message if isinstance(message, Message) else Message(*message)))
                while pending and pending[0].done():
                    yield _outcome(pending.popleft())
            while pending:
                yield _outcome(pending.popleft())

    def publisher(self, *, window: int = 16 * _MIB) -> Publisher:
        """A stream for many small messages: `send` returns a future at once, waiting only where `window` bytes are under way."""
        service, headers = self._ready(), self._headers()
        return Publisher(lambda frames: service.PublishStream(frames, metadata=headers), window)

    # Subscribing

    def subscribe(
        self,
        topic: str,
        group: str = "default",
        *,
        auto_ack: bool = True,
        start: Start = "earliest",
        timeout: float | None = None,
        max_messages: int = 1000,
        max_bytes: int = 16 * _MIB,
        ack_deadline: float = 30,
        client_id: str = "",
        spool_above: int = 64 * _MIB,
        reconnect_for: float = 60,
    ) -> Subscriber:
        """Subscribes a consumer group to a topic; returns an iterator of events.

        group          each group gets every event; its members share them
        auto_ack       True: an event is acknowledged when `next` hands it over. False: call event.ack() or event.nack()
        start          where a group begins that has not been there before: "earliest", "latest", a position or a datetime
        timeout        seconds that `next` waits before it raises prism.Timeout; None: for ever
        max_messages   so many events may be unsettled, those waiting in this process included (1 to 100,000)
        max_bytes      so many bytes of payload may be unsettled; a larger event comes alone
        ack_deadline   an event not settled after so many seconds is delivered again (1 to 43,200)
        client_id      who consumes, for people
        spool_above    payloads above so many bytes are kept in a temporary file until they are read
        reconnect_for  seconds for which a lost connection is tried again; then the iterator raises the error

        Returns when the subscription stands. Raises PrismError.
        """
        options = Options(
            topic, group, start, auto_ack, max_messages, max_bytes, ack_deadline, client_id or self._client_name, timeout,
            spool_above, reconnect_for,
        )  # fmt: skip
        service = self._ready()
        subscriber = Subscriber(
            lambda frames: service.SubscribeStream(frames, metadata=self._headers()), options, self._timeout
        )
        with self._lock:
            self._subscribers.add(subscriber)
        return subscriber

    def consume(self, topic: str, group: str = "default", *, timeout: float | None = None) -> Event:
        """Takes one event and acknowledges it. Raises prism.Timeout if none came."""
        with self.subscribe(topic, group, timeout=timeout, max_messages=1) as subscriber:
            return next(subscriber)

    def wait_settled(self, timeout: float = 10) -> bool:
        """Waits until the server has answered every acknowledgement of this client's subscribers; False if it did not in time."""
        deadline = time.monotonic() + timeout
        with self._lock:
            subscribers = list(self._subscribers)
        return all(subscriber.wait_settled(max(0.0, deadline - time.monotonic())) for subscriber in subscribers)

    # Session and life

    def open_session(self) -> session_pb2.OpenResponse:
        """Opens a session for the client's namespace; later calls act in it. `close` ends it."""
        self._connect()
        try:
            response = self._open()
        except grpc.RpcError as failure:
            raise from_rpc(failure) from failure
        self._session_id = response.session_id
        return response

    def close(self) -> None:
        """Closes the subscriptions, the session and the connection."""
        with self._lock:
            subscribers = list(self._subscribers)
        for subscriber in subscribers:
            subscriber.close()
        if self._session_id:
            try:
                self._session.Close(session_pb2.CloseRequest(session_id=self._session_id), timeout=2)
            except grpc.RpcError:
                pass  # it ends by itself
            self._session_id = ""
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> session_pb2.OpenResponse:
        request = session_pb2.OpenRequest(
            namespace=self.namespace or "", client_name=self._client_name, client_version=f"prism-python/{_version()}"
        )
        response: session_pb2.OpenResponse = self._session.Open(request, timeout=self._timeout)
        if self.namespace and not self._api:
            self._api = response.client_api
        return response

    def _messages(self) -> Any:
        """The service that serves the namespace; raises grpc.RpcError where the server has to be asked and cannot be."""
        if self.namespace and not self._api:
            session = self._open().session_id
            self._session.Close(session_pb2.CloseRequest(session_id=session), timeout=self._timeout)
        return self._queue if self._api == "queue" else self._pubsub

    def _headers(self) -> list[tuple[str, str]]:
        headers = []
        if self._session_id:
            headers.append(("prism-session", self._session_id))
        if self.namespace:
            headers.append(("prism-namespace", self.namespace))
        return headers

    def _connect(self) -> None:
        """Waits until there is a connection: a stream that finds none fails at once, and may have consumed its payload."""
        try:
            self._health(b"", timeout=self._connect_timeout, wait_for_ready=True)
        except grpc.RpcError as failure:
            if failure.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE):
                raise not_connected(f"no connection to {self.address} within {self._connect_timeout:g} s") from failure
            # Any other answer came from a server.

    def _ready(self) -> Any:
        """The service for a stream, with a connection."""
        self._connect()
        try:
            return self._messages()
        except grpc.RpcError as failure:
            raise from_rpc(failure) from failure

    def _publish_payload(self, message: Message, timeout: float | None) -> PublishResult:
        service = self._ready()
        # gRPC swallows what its request iterator raises: keep it, so that the caller learns why.
        raised: list[BaseException] = []

        def frames() -> Iterator[Any]:
            try:
                yield from payload_frames(message)
            except Exception as error:
                raised.append(error)
                raise

        try:
            return to_result(service.PublishPayload(frames(), timeout=timeout, metadata=self._headers()))
        except grpc.RpcError as failure:
            if raised:
                raise raised[0] from None
            raise from_rpc(failure) from failure

    def _repeat(self, attempt: Callable[[float], PublishResult], timeout: float) -> PublishResult:
        begin = time.monotonic()
        deadline, delay = begin + timeout, 0.05
        while True:
            try:
                return attempt(max(0.001, deadline - time.monotonic()))
            except (grpc.RpcError, PrismError) as failure:
                error = failure if isinstance(failure, PrismError) else from_rpc(failure)
                wait = max(error.retry_after or 0.0, delay * random.uniform(0.5, 1.0))
                end = min(deadline, begin + self._connect_timeout) if error.reason == "CONNECTION_FAILED" else deadline
                if error.retry != "safe" or time.monotonic() + wait >= end:
                    raise error from failure
            time.sleep(wait)
            delay = min(delay * 2, 2)


def _outcome(future: Future[PublishResult]) -> PublishResult | PrismError:
    try:
        return future.result()
    except PrismError as error:
        return error
