"""Start, stop and restart of the program. proves: S-01, K-08 (see docs/requirements.md)"""

from __future__ import annotations

import contextlib
import json
import pathlib
import signal
import socket
import threading
import time
import urllib.error
import urllib.request

import grpc
import pytest

import prism
from program import CONFIG, Cli, addresses, until
from prism.testing import PrismTestServer


def get(address: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_ready_file_account_and_end(program: Cli, config_file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    ready = tmp_path / "ready.json"
    process = program.start("dev", config_file, "--port", "0", "--admin-port", "0", "--data", tmp_path / "data", "--ready-file", ready)
    serving = addresses(ready, process)
    assert serving["pid"] == process.pid
    assert get(serving["admin"], "/healthz")[0] == 200
    status, body = get(serving["admin"], "/readyz")
    assert status == 200 and json.loads(body)["namespaces"] == ["media", "orders", "plain", "tasks"]
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=15)
    assert process.returncode == 0, err
    assert "kafka -> " in out and "media" in out and "claim-check" in out and out.endswith("stopped\n"), out
    assert serving["grpc"] in out and not ready.exists()


@pytest.mark.parametrize("option", ["--port", "--admin-port"])
def test_a_taken_port_is_told(program: Cli, config_file: pathlib.Path, tmp_path: pathlib.Path, option: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = {"--port": "0", "--admin-port": "0"} | {option: str(taken.getsockname()[1])}
        refused = program("dev", config_file, "--data", tmp_path, *[word for pair in ports.items() for word in pair], timeout=60)
    assert refused.returncode == 2 and "[ADDRESS_IN_USE]" in refused.stderr and "--port" in refused.stderr


def test_an_invalid_file_or_a_missing_backend_does_not_start(program: Cli, config_file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("namespaces:\n  - name: a\n    bakend: kafka\n")
    refused = program("dev", wrong, "--data", tmp_path)
    assert refused.returncode == 1 and f"{wrong}:3:5: error: " in refused.stderr
    assert program("dev", tmp_path / "missing.yaml").returncode == 2
    # Without --embedded a backend that is not configured is an error, never a silent substitute.
    unconfigured = program("serve", config_file, "--host", "127.0.0.1", "--port", "0", "--admin-port", "0", "--data", tmp_path)
    assert unconfigured.returncode == 1 and "[BACKEND_NOT_CONFIGURED]" in unconfigured.stderr


def test_serve_embedded_serves(program: Cli, config_file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    ready = tmp_path / "ready.json"
    process = program.start("serve", config_file, "--embedded", "--port", "0", "--admin-port", "0", "--data", tmp_path / "data", "--ready-file", ready)
    with prism.Client(addresses(ready, process)["grpc"]) as client:
        assert client.publish("plain", b"x").success
    process.terminate()
    assert process.wait(60) == 0


def test_a_live_subscriber_is_told_and_the_end_takes_seconds() -> None:
    with PrismTestServer(CONFIG) as server:
        client = server.client(namespace="plain")
        client.publish("plain", b"one")
        subscriber = client.subscribe("plain", reconnect_for=0.2)
        assert next(subscriber).payload == b"one"
        ended = threading.Event()

        def wait_for_more() -> None:
            try:
                next(subscriber)
            except (prism.PrismError, StopIteration):
                ended.set()

        waiting = threading.Thread(target=wait_for_more)
        waiting.start()
        process, begun = server.process, time.monotonic()
        assert process is not None
        process.terminate()
        assert process.wait(60) == 0
        assert time.monotonic() - begun < 8
        waiting.join(15)
        assert ended.is_set()


def test_a_second_signal_ends_it_at_once() -> None:
    with PrismTestServer(CONFIG) as server:
        process = server.process
        assert process is not None
        channel = grpc.insecure_channel(server.address)
        hanging = channel.stream_unary("/prism.pubsub.v1.PubSubService/PublishPayload")
        first_frame = threading.Event()

        def frames():  # a client that begins a payload and never ends it
            yield header_frame("plain")
            first_frame.set()
            threading.Event().wait(20)

        call = hanging.future(frames())
        assert first_frame.wait(60)
        process.terminate()
        until(lambda: "stopping" in server.log())
        process.terminate()
        assert process.wait(60) in (130, 0)  # 0: it was quicker than the second signal
        call.cancel()
        channel.close()


def header_frame(topic: str) -> bytes:
    from prism.pubsub.v1 import pubsub_pb2

    return pubsub_pb2.PublishPayloadRequest(header=pubsub_pb2.PayloadHeader(topic=topic)).SerializeToString()


def test_a_restart_keeps_everything() -> None:
    with PrismTestServer(CONFIG) as server:
        client = server.client()
        large = b"large" * 500_000
        client.publish("orders", b"small")
        client.publish("media", large)
        server.restart()
        again = server.client()
        assert again.consume("orders", "g", timeout=60).payload == b"small"
        assert again.consume("media", "g", timeout=60).payload == large
        server.restart()
        with pytest.raises(prism.Timeout):  # what was acknowledged stays so
            server.client().consume("orders", "g", timeout=1)


def test_kept_data_after_sigkill() -> None:
    with PrismTestServer(CONFIG) as server:
        answer = server.client().publish("orders", b"acknowledged")
        server.kill()
        server.restart()
        assert server.client().consume("orders", timeout=60).id == answer.id


def test_idle_memory_and_start_are_small() -> None:
    with PrismTestServer(CONFIG) as server:
        status = pathlib.Path(f"/proc/{server.pid}/status").read_text()
        resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
        assert resident < 80_000, status  # kB; the release build's bound (40 MB) is measured by `make bench`


def test_admin_paths(server: PrismTestServer) -> None:
    names = [ns["name"] for ns in server.get_json("/namespaces")["namespaces"]]
    assert names == ["media", "orders", "plain", "tasks"]
    jobs = server.get_json("/jobs")["jobs"]
    assert {job["name"] for job in jobs} >= {"media/outbox/relay", "orders/outbox/relay", "media/claim-check/cleaner"}
    assert all(job["harmless"] for job in jobs)
    status, text = get(server.admin, "/metrics")
    assert status == 200 and "prism_requests_in_flight" in text and "process_resident_memory_bytes" in text
    assert get(server.admin, "/nowhere")[0] == 404
    for path, reason in (
        ("/debug/objects?backend=nowhere", "BACKEND_NOT_FOUND"),
        ("/debug/inspect?namespace=nowhere", "NAMESPACE_NOT_FOUND"),
        ("/debug/topics", "NAMESPACE_NOT_FOUND"),
    ):
        status, body = get(server.admin, path)
        assert status == 404 and json.loads(body)["error"]["reason"] == reason
    with pytest.raises(urllib.error.HTTPError) as refused:
        server.post("/jobs/pause?name=nobody")
    assert refused.value.code == 404 and json.loads(refused.value.read())["error"]["reason"] == "JOB_NOT_FOUND"


def test_a_paused_relay_keeps_rows_and_a_resumed_one_publishes_them(server: PrismTestServer) -> None:
    def states() -> set[str]:
        return {job["state"] for job in server.get_json("/jobs")["jobs"] if job["name"] == "orders/outbox/relay"}

    def outbox() -> dict[str, str]:
        return server.get_json("/debug/inspect?namespace=orders")["patterns"][0]["holds"]

    server.post("/jobs/pause?name=orders/outbox/relay")
    until(lambda: states() == {"paused"})
    answer = server.client().publish("orders", b"waits")
    assert outbox()["pending"] == "1" and outbox()["newest_row_message_id"] == answer.id
    server.post("/jobs/resume?name=orders/outbox/relay")
    assert server.client().consume("orders", "after", timeout=60).id == answer.id
    until(lambda: outbox()["pending"] == "0")


def raw(server: PrismTestServer, request: bytes) -> tuple[bytes, dict[str, str], float]:
    """First line of the answer, its error, and how long it took."""
    host, _, port = server.admin.rpartition(":")
    begin = time.monotonic()
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(request)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.partition(b"\r\n")[0], json.loads(body).get("error", {}), time.monotonic() - begin


def test_posts_without_a_length_and_too_large_ones_are_answered_at_once(server: PrismTestServer) -> None:
    token = pathlib.Path(server.get_json("/v1/config")["token_file"]).read_text().strip()
    authorized = f"HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n".encode()
    line, _, took = raw(server, b"POST /v1/config/reload " + authorized + b"\r\n")
    assert line == b"HTTP/1.1 200 OK" and took < 4  # the default of curl -X POST
    line, error, took = raw(server, b"POST /jobs/pause?name=nobody " + authorized + b"\r\n")
    assert line.startswith(b"HTTP/1.1 404") and error["reason"] == "JOB_NOT_FOUND" and took < 4
    line, error, took = raw(server, b"POST /v1/config " + authorized + b"\r\n")
    assert line.startswith(b"HTTP/1.1 411") and error["reason"] == "LENGTH_REQUIRED" and took < 4
    line, error, took = raw(server, b"POST /v1/config " + authorized + b"Content-Length: 99999999\r\n\r\n")
    assert line.startswith(b"HTTP/1.1 413") and error["reason"] == "BODY_TOO_LARGE" and "at most 4194304" in error["message"] and took < 4
    line, error, _ = raw(server, b"POST /nowhere HTTP/1.1\r\n\r\n")
    assert line.startswith(b"HTTP/1.1 404") and error["message"] == "POST /nowhere is not served here"
    line, error, _ = raw(server, b"nonsense\r\n\r\n")
    assert line.startswith(b"HTTP/1.1 400") and error["reason"] == "BAD_REQUEST" and "not served here" not in error["message"]


def test_half_requests_do_not_hold_up_a_health_check(server: PrismTestServer) -> None:
    host, _, port = server.admin.rpartition(":")
    with contextlib.ExitStack() as half:
        for n in range(200):
            connection = half.enter_context(socket.create_connection((host, int(port)), timeout=10))
            connection.sendall(b"GET /heal" if n % 2 else b"POST /v1/config HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
        begin = time.monotonic()
        assert get(server.admin, "/healthz")[0] == 200 and get(server.admin, "/namespaces")[0] == 200
        assert time.monotonic() - begin < 2


def test_idle_connections_do_not_hold_up_a_health_check(server: PrismTestServer) -> None:
    """As many as a port scanner or a stuck monitor may hold: the newest one is served first."""
    host, _, port = server.admin.rpartition(":")
    with contextlib.ExitStack() as idle:
        for _ in range(400):
            idle.enter_context(socket.create_connection((host, int(port)), timeout=10))
        for path in ("/healthz", "/readyz", "/metrics"):
            begin = time.monotonic()
            with urllib.request.urlopen(f"http://{server.admin}{path}", timeout=10) as answer:
                assert answer.status == 200
            assert time.monotonic() - begin < 5, path
