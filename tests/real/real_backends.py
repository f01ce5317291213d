"""A plugin for pytest: with PRISM_TEST_BACKENDS=real, every PrismTestServer is served with real backends instead of embedded twins.

The servers are those of scripts/servers that the environment names (PRISM_TEST_KAFKA ...). Each PrismTestServer finds them as empty as it
would find its twins: it has a database of its own, topics with a prefix of its own, and object stores and NATS servers, which start in
no time, of its own. Two with the same data folder share them.
"""

from __future__ import annotations

import atexit
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.parse
import uuid
from typing import Any

import pytest

import prism.testing

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "servers"))

import certificates  # noqa: E402
import kinds  # noqa: E402
from process import Server  # noqa: E402

# Tests that are about the twins themselves, or look into their files.
EMBEDDED_ONLY: dict[str, str] = {
    "test_traces.py::test_a_publish_is_the_tree_of_the_rfc": "it names the twins",
}


def wanted() -> bool:
    return os.environ.get("PRISM_TEST_BACKENDS") == "real"


class World:
    """Real backends with nothing in them."""

    def __init__(self) -> None:
        self.name = f"t{uuid.uuid4().hex[:12]}"
        self._folder = pathlib.Path(tempfile.mkdtemp(prefix="prism-world-"))
        self._servers: list[Server] = []
        self._connections: dict[str, dict[str, Any]] = {}
        self._undo: list[list[str]] = []

    def connections(self, types: set[str]) -> dict[str, Any]:
        for kind in sorted(types - set(self._connections)):
            self._connections[kind] = getattr(self, f"_{kind}")()
        return {kind: self._connections[kind] for kind in sorted(types)}

    def close(self) -> None:
        for command in self._undo:
            subprocess.run(command, capture_output=True, timeout=60)
        for server in self._servers:
            server.down()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _kafka(self) -> dict[str, Any]:
        return {"type": "kafka", "brokers": [_variable("PRISM_TEST_KAFKA")], "prefix": f"{self.name}."}

    def _postgres(self) -> dict[str, Any]:
        url = _variable("PRISM_TEST_POSTGRES")
        at = urllib.parse.urlsplit(url)
        psql = ["psql", "-XqAtw", url, "-c"]
        done = subprocess.run([*psql, f"CREATE DATABASE {self.name}"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        self._undo.append([*psql, f"DROP DATABASE IF EXISTS {self.name} WITH (FORCE)"])
        return {"type": "postgres", "host": at.hostname, "port": at.port, "user": at.username, "database": self.name}

    def _s3(self) -> dict[str, Any]:
        found = self._own(kinds.S3)
        keys = {"access_key_id": found["PRISM_TEST_S3_ACCESS_KEY"], "secret_access_key": found["PRISM_TEST_S3_SECRET_KEY"]}
        return {"type": "s3", "endpoint": found["PRISM_TEST_S3"], "region": found["PRISM_TEST_S3_REGION"], "create_bucket": True, **keys}

    def _nats(self) -> dict[str, Any]:
        return {"type": "nats", "servers": [self._own(kinds.Nats)["PRISM_TEST_NATS"].removeprefix("nats://")]}

    def _redis(self) -> dict[str, Any]:
        return {"type": "redis", "address": self._own(kinds.Redis)["PRISM_TEST_REDIS"]}

    def _own(self, kind: type[Server]) -> dict[str, str]:
        server = kind(self._folder)
        certificates.make(self._folder / "certificates")
        server.up()
        self._servers.append(server)
        return server.variables()


def _variable(name: str) -> str:
    if value := os.environ.get(name):
        return value
    raise AssertionError(f"{name} is not in the environment: run it with scripts/servers exec")


_worlds: dict[pathlib.Path, World] = {}


def provide(text: str, data: pathlib.Path) -> dict[str, Any] | None:
    """The real backends of a configuration; None where it says itself with what it is served."""
    if re.search(r'^\s*"?backends"?:', text, re.MULTILINE):
        return None
    types = {"kafka", "postgres", "s3"} | set(re.findall(r"\b(nats|redis)\b", text))  # patterns use the first three unasked
    found = _world(data.resolve()).connections(types)
    if "brokers:" in text:  # a namespace says itself where they are
        found["kafka"] = {name: value for name, value in found["kafka"].items() if name != "brokers"}
    return found


def _world(data: pathlib.Path) -> World:
    if data not in _worlds:
        _worlds[data] = World()
    return _worlds[data]


@atexit.register
def _close() -> None:
    for world in _worlds.values():
        world.close()


def pytest_configure(config: pytest.Config) -> None:
    if wanted():
        prism.testing.default_backends = provide


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not wanted():
        return
    for item in items:
        for part, why in EMBEDDED_ONLY.items():
            if part in item.nodeid:
                item.add_marker(pytest.mark.skip(reason=why))
