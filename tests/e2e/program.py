"""The usual namespaces, and the program's commands, for the end-to-end tests."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import time
from collections.abc import Callable
from typing import Any

from prism.testing import find_binary

CONFIG = {
    "namespaces": [
        {
            "name": "media",
            "client_api": "pubsub",
            "patterns": [
                {"type": "outbox", "database": "postgres", "table": "media_outbox"},
                {"type": "claim-check", "threshold": "1MB", "storage": "s3", "cleanup": {"interval": "50ms", "orphan_age": "2s"}},
            ],
            "backend": {"type": "kafka"},
        },
        {"name": "orders", "client_api": "pubsub", "patterns": [{"type": "outbox", "database": "postgres", "table": "orders_outbox"}], "backend": "kafka"},
        {"name": "plain", "client_api": "pubsub", "backend": {"type": "kafka", "partitions": 1}},
        {"name": "tasks", "client_api": "queue", "backend": "kafka"},
    ]
}


def until(condition: Callable[[], Any], timeout: float = 60) -> Any:
    """What the condition gives as soon as it is true; AssertionError where it does not become true in time."""
    deadline = time.monotonic() + timeout
    while not (result := condition()):
        assert time.monotonic() < deadline, f"it did not come true in {timeout:g} s"
        time.sleep(0.02)
    return result


def addresses(ready: pathlib.Path, process: subprocess.Popen[str], log: Callable[[], str] = lambda: "") -> dict[str, Any]:
    """What a starting server writes into its ready file, once it has."""

    def served() -> bool:
        assert process.poll() is None, f"it ended with {process.returncode}: {log()}"
        return ready.exists()

    until(served)
    found: dict[str, Any] = json.loads(ready.read_text())
    return found


class Cli:
    """Runs the program."""

    def __init__(self, address: str | None = None) -> None:
        self.program = find_binary()
        self.environment = {k: v for k, v in os.environ.items() if k != "PRISM_ADDRESS"} | ({"PRISM_ADDRESS": address} if address else {})

    def __call__(self, *arguments: str | os.PathLike[str], stdin: bytes | None = None, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([self.program, *map(str, arguments)], env=self.environment, input=stdin or b"", capture_output=True, timeout=timeout)
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def start(self, *arguments: str | os.PathLike[str], **options: Any) -> subprocess.Popen[str]:
        options.setdefault("stdout", subprocess.PIPE)
        options.setdefault("stderr", subprocess.PIPE)
        return subprocess.Popen([self.program, *map(str, arguments)], env=self.environment, text=True, **options)
