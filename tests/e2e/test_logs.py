"""Logs of a serving process: structured lines with known keys, trace ids, the file's and the command line's options, and no secrets."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import pathlib
import pty
import re
import signal
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from prism.pubsub.v1 import pubsub_pb2, pubsub_pb2_grpc
from prism.testing import find_binary
from program import CONFIG, addresses

ROOT = pathlib.Path(__file__).resolve().parents[2]
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-00"


class Running:
    address: str
    lines: list[str]  # what was logged, once the program has ended


@contextmanager
def serving(folder: pathlib.Path, telemetry: dict[str, Any] | None, *arguments: str, environment: dict[str, str] | None = None) -> Iterator[Running]:
    file, ready, log = folder / "prism.yaml", folder / "ready.json", folder / "log"
    settings = copy.deepcopy(CONFIG) | ({"telemetry": telemetry} if telemetry is not None else {})
    file.write_text(json.dumps(settings))
    command = [find_binary(), "dev", str(file), "--port", "0", "--admin-port", "0", "--data", str(folder / "data"), "--ready-file", str(ready), *arguments]
    running = Running()
    with log.open("w") as out, subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=out, env={k: v for k, v in os.environ.items() if not k.startswith("OTEL_")} | (environment or {})) as process:
        try:
            running.address = addresses(ready, process, log.read_text)["grpc"]
            yield running
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
    running.lines = log.read_text().splitlines()


def publish(address: str, topic: str) -> None:
    with grpc.insecure_channel(address) as channel:
        pubsub_pb2_grpc.PubSubServiceStub(channel).Publish(pubsub_pb2.PublishRequest(topic=topic, payload=b"x"), metadata=[("traceparent", PARENT)], timeout=20)


# proves: M-27
def test_lines_of_requests_have_known_keys_and_the_callers_trace(tmp_path: pathlib.Path) -> None:
    known = set(re.findall(r"^\| `([a-z_]+)` \|", (ROOT / "docs/reference/logging.md").read_text(), re.MULTILINE))
    with serving(tmp_path, None, "--log-format", "json", "--log-level", "debug") as running:
        publish(running.address, "plain")
        with pytest.raises(grpc.RpcError):
            publish(running.address, "nowhere")
    lines = [json.loads(line) for line in running.lines]
    for line in lines:
        assert {"time", "level", "message"} <= set(line) <= known | {"time", "level", "message", "repeated"}, line
    [answered] = [line for line in lines if line["message"] == "request answered" and line["method"] == "Publish"]
    assert answered["trace_id"] == TRACE and answered["namespace"] == "plain" and answered["level"] == "debug"
    [failed] = [line for line in lines if line["message"] == "request failed"]
    assert failed["trace_id"] == TRACE and failed["reason"] == "NAMESPACE_NOT_FOUND" and failed["code"] == 5
    assert failed["level"] == "debug", "the client must mend it"


# proves: M-27
def test_failures_of_the_server_are_told_without_being_asked_for(tmp_path: pathlib.Path) -> None:
    with serving(tmp_path, None) as running:
        with contextlib.closing(sqlite3.connect(tmp_path / "data" / "postgres.db", timeout=60)) as database:
            database.execute("DROP TABLE orders_outbox")
        for topic, code in (("orders", grpc.StatusCode.INTERNAL), ("nowhere", grpc.StatusCode.NOT_FOUND)):
            with pytest.raises(grpc.RpcError) as refused:
                publish(running.address, topic)
            assert refused.value.code() is code
    # Not a terminal: JSON, without being told.
    [failed] = [line for line in map(json.loads, running.lines) if line["message"] == "request failed"]
    assert failed["level"] == "error" and failed["namespace"] == "orders" and failed["reason"] == "SQL_ERROR" and failed["error"]


# proves: M-27
def test_on_a_terminal_lines_are_for_people(tmp_path: pathlib.Path) -> None:
    file, ready = tmp_path / "prism.yaml", tmp_path / "ready.json"
    file.write_text(json.dumps(CONFIG))
    ours, its = pty.openpty()
    shown: list[bytes] = []

    def read() -> None:
        with contextlib.suppress(OSError):  # the other side is closed
            while part := os.read(ours, 4096):
                shown.append(part)

    command = [find_binary(), "dev", str(file), "--port", "0", "--admin-port", "0", "--data", str(tmp_path / "data"), "--ready-file", str(ready), "--log-level", "debug"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=its) as process:
        os.close(its)
        reading = threading.Thread(target=read)
        reading.start()
        try:
            publish(addresses(ready, process)["grpc"], "plain")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
            reading.join(60)
            os.close(ours)
    text = b"".join(shown).decode()
    [line] = [line for line in text.splitlines() if "request answered" in line and "Publish" in line]
    plain = re.sub(r"\x1b\[\d+m", "", line)
    assert plain != line, "in colours"
    assert re.match(r"\d\d:\d\d:\d\d\.\d{3} debug request answered  service=\S+  method=Publish ", plain), plain
    assert f"trace_id={TRACE}" in plain


# proves: M-27
def test_the_file_says_how_and_the_command_line_has_the_last_word(tmp_path: pathlib.Path) -> None:
    logs = {"level": "debug", "format": "pretty"}
    (tmp_path / "file").mkdir()
    with serving(tmp_path / "file", {"logs": logs}) as running:
        publish(running.address, "plain")
    assert [line for line in running.lines if "request answered" in line and f"trace_id={TRACE}" in line and not line.startswith("{")]
    (tmp_path / "both").mkdir()
    with serving(tmp_path / "both", {"logs": logs}, "--log-format", "json", "--log-level", "info") as running:
        publish(running.address, "plain")
    assert not [line for line in running.lines if "request answered" in line]
    assert all(line.startswith("{") for line in running.lines)


# proves: M-27
def test_what_means_nothing_in_the_environment_is_said_without_its_value(tmp_path: pathlib.Path) -> None:
    with serving(tmp_path, None, "--log-format", "json", environment={"OTEL_EXPORTER_OTLP_HEADERS": "hidden-value", "OTEL_TRACES_SAMPLER": "sometimes"}) as running:
        publish(running.address, "plain")
    warnings = [json.loads(line) for line in running.lines if "environment variable" in line]
    assert {line["option"] for line in warnings} == {"OTEL_EXPORTER_OTLP_HEADERS", "OTEL_TRACES_SAMPLER"}
    assert "hidden-value" not in "\n".join(running.lines)
