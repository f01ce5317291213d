"""Publishing, against a server in memory. proves: A-01, A-07, A-10, A-11 (the client's part)"""

from __future__ import annotations

import io
import pathlib
import threading

import grpc
import pytest
from fake_server import FakeServer

import prism


def test_a_small_payload_is_one_call_and_everything_arrives(server: FakeServer, client: prism.Client) -> None:
    result = client.publish("t", b"hello", {"a": "1"}, key="k", message_id="m1", content_type="text/plain")
    assert result.success and result.id == "m1" and result.position == "p0" and not result.duplicate
    assert result.durability is prism.Durability.FSYNC
    (message,) = server.published("t")
    assert (message.payload, dict(message.metadata)) == (b"hello", {"a": "1"})
    assert (message.ordering_key, message.content_type) == ("k", "text/plain")
    assert server.headers[-1]["prism-namespace"] == "test"


def test_a_repeat_is_a_duplicate(client: prism.Client) -> None:
    assert not client.publish("t", b"x", message_id="m").duplicate
    assert client.publish("t", b"x", message_id="m").duplicate


@pytest.mark.parametrize("kind", ["bytes", "bytearray", "str", "file", "path", "iterable", "pipe"])
@pytest.mark.parametrize("size", [0, 10, 3_000_001])
def test_payloads_of_all_kinds(server: FakeServer, client: prism.Client, tmp_path: pathlib.Path, kind: str, size: int) -> None:
    data = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    path = tmp_path / "payload"
    path.write_bytes(data)
    if kind == "path":
        client.publish("t", path, {"a": "1"})
    elif kind == "file":
        with open(path, "rb") as file:
            client.publish("t", file, {"a": "1"})
    else:
        payload = {
            "bytes": data,
            "bytearray": bytearray(data),
            "str": data.decode(),
            "iterable": (data[i : i + 700_000] for i in range(0, size, 700_000)),
            "pipe": _Pipe(data),
        }[kind]
        client.publish("t", payload, {"a": "1"})  # type: ignore[arg-type]
    (message,) = server.published("t")
    assert message.payload == data and dict(message.metadata) == {"a": "1"}


class _Pipe(io.RawIOBase):
    """A file that cannot seek."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        return self._data.readinto(buffer)


def test_a_file_is_published_from_where_it_stands(server: FakeServer, client: prism.Client, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "payload"
    path.write_bytes(b"skipped" + b"y" * 2_000_000)
    with open(path, "rb") as file:
        file.seek(7)
        client.publish("t", file)
    assert server.published("t")[0].payload == b"y" * 2_000_000


def test_an_error_of_the_payload_itself_reaches_the_caller_and_publishes_nothing(
    server: FakeServer, client: prism.Client
) -> None:
    def broken() -> object:
        yield b"x" * 2_000_000
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        client.publish("t", broken())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must be bytes"):
        client.publish("t", iter(["text"]))  # type: ignore[arg-type]
    assert server.published("t") == []


def test_errors_carry_reason_hint_retry_and_metadata(server: FakeServer) -> None:
    with prism.Client(server.address, namespace="missing") as client:
        with pytest.raises(prism.PrismError) as caught:
            client.publish("t", b"x")
    error = caught.value
    assert error.code is grpc.StatusCode.NOT_FOUND and error.reason == "NAMESPACE_NOT_FOUND"
    assert error.hint == "did you mean 'test'?" and error.retry == "never" and error.metadata == {"namespace": "missing"}
    assert str(error) == "NAMESPACE_NOT_FOUND: there is no namespace 'missing' (did you mean 'test'?)"


@pytest.mark.parametrize("size", [10, 2_000_000])
def test_what_is_safe_to_repeat_is_repeated(server: FakeServer, client: prism.Client, size: int) -> None:
    info = {"retry": "safe", "retry_after": "0.01"}
    server.fail.append((grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", "full", dict(info)))
    server.fail.append((grpc.StatusCode.UNAVAILABLE, "BACKEND_UNAVAILABLE", "down", dict(info)))
    assert client.publish("t", b"x" * size).success
    assert len(server.published("t")) == 1


@pytest.mark.parametrize("retry", ["never", "unknown_outcome"])
def test_what_is_not_safe_is_not_repeated(server: FakeServer, client: prism.Client, retry: str) -> None:
    server.fail.append((grpc.StatusCode.UNAVAILABLE, "BACKEND_UNAVAILABLE", "down", {"retry": retry}))
    with pytest.raises(prism.PrismError) as caught:
        client.publish("t", b"x")
    assert caught.value.retry == retry and server.published("t") == []


def test_the_time_to_wait_is_told_where_the_timeout_comes_first(server: FakeServer, client: prism.Client) -> None:
    info = {"retry": "safe", "retry_after": "0.9"}
    server.fail.append((grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", "too often", info))
    with pytest.raises(prism.PrismError) as caught:
        client.publish("t", b"x", timeout=0.5)
    assert caught.value.retry_after == pytest.approx(0.9)


def test_a_server_that_is_not_there(server: FakeServer) -> None:
    server.stop()
    with prism.Client(server.address, connect_timeout=0.1) as client:
        calls = [
            lambda: client.publish("t", b"x"),
            lambda: client.publish("t", b"x" * 2_000_000),
            lambda: client.publisher(),
            lambda: client.subscribe("t"),
            lambda: client.open_session(),
        ]
        for call in calls:
            with pytest.raises(prism.PrismError) as caught:
                call()
            assert caught.value.code is grpc.StatusCode.UNAVAILABLE and caught.value.reason == "CONNECTION_FAILED"


def test_many_messages_keep_their_order_and_each_has_its_result(server: FakeServer, client: prism.Client) -> None:
    messages = [prism.Message("t", str(i).encode(), {"n": str(i)}, message_id=f"m{i}") for i in range(5000)]
    messages[1234].payload = b"bad"
    results = list(client.publish_many(messages))
    assert len(results) == 5000
    failed = results.pop(1234)
    assert isinstance(failed, prism.PrismError) and failed.reason == "METADATA_RESERVED"
    assert [r.id for r in results if isinstance(r, prism.PublishResult)] == [f"m{i}" for i in range(5000) if i != 1234]
    assert [m.message_id for m in server.published("t")] == [f"m{i}" for i in range(5000) if i != 1234]


def test_many_messages_with_a_small_window_and_pairs(server: FakeServer, client: prism.Client) -> None:
    results = list(client.publish_many((("t", b"x" * 1000) for _ in range(300)), window=2500))
    assert len(results) == 300 and len(server.published("t")) == 300


def test_publisher_sends_what_is_there_at_once(server: FakeServer, client: prism.Client) -> None:
    with client.publisher() as publisher:
        assert publisher.send("t", b"one").result(10).success
        assert publisher.send("t", b"two", key="k").result(10).position == "p1"
        publisher.flush(10)


def test_publisher_refuses_what_no_frame_takes(client: prism.Client) -> None:
    with client.publisher() as publisher, pytest.raises(prism.PrismError) as caught:
        publisher.send("t", b"x" * 4_000_000)
    assert caught.value.reason == "PAYLOAD_TOO_LARGE"


def test_publisher_when_the_server_goes_away(server: FakeServer, client: prism.Client) -> None:
    publisher = client.publisher(window=100)
    assert publisher.send("t", b"one").result(10).success
    server.stop()
    with pytest.raises(prism.PrismError):
        for _ in range(100):
            publisher.send("t", b"x" * 100).result(10)
    publisher.close()


def test_publisher_is_shared_by_threads(server: FakeServer, client: prism.Client) -> None:
    with client.publisher() as publisher:
        threads = [
            threading.Thread(target=lambda: [publisher.send("t", b"x") for _ in range(200)]) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(server.published("t")) == 800


def test_a_session_goes_with_every_call(server: FakeServer) -> None:
    with prism.Client(server.address, namespace="test") as client:
        opened = client.open_session()
        assert opened.namespace == "test" and opened.client_api == "pubsub"
        client.publish("t", b"x")
        assert server.headers[-1]["prism-session"] == opened.session_id
        assert server.sessions == {opened.session_id}
    assert server.sessions == set()


@pytest.mark.parametrize("given", [None, "queue"])
def test_a_queue_is_served_by_the_same_calls(server: FakeServer, given: str | None) -> None:
    # proves: A-03 (the client's part)
    server.api = "queue"
    with prism.Client(server.address, namespace="test", api=given) as client:
        client.publish("t", b"one")
        client.publish("t", b"2" * 2_000_000)
        assert all(isinstance(r, prism.PublishResult) for r in client.publish_many([("t", b"three")]))
        subscriber = client.subscribe("t", timeout=10)
        assert [next(subscriber).size for _ in range(3)] == [3, 2_000_000, 5]
    assert server.opened == (0 if given else 1) and not server.sessions


def test_an_unbound_client_asks_nothing_beforehand(server: FakeServer) -> None:
    with prism.Client(server.address) as client:
        client.publish("t", b"one")
    assert server.opened == 0 and "prism-namespace" not in server.headers[-1]
