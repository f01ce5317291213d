"""What the end-to-end tests share: a server with the usual namespaces, and the program's client commands."""

from __future__ import annotations

import json
import pathlib
from typing import Iterator

import pytest

from prism.testing import PrismTestServer
from program import CONFIG, Cli


@pytest.fixture(scope="session")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("config") / "prism.yaml"
    path.write_text(json.dumps(CONFIG, indent=2))
    return path


@pytest.fixture(scope="module")
def server() -> Iterator[PrismTestServer]:
    with PrismTestServer(CONFIG) as running:
        yield running


@pytest.fixture
def cli(server: PrismTestServer) -> Cli:
    """Client commands that find the server."""
    return Cli(server.address)


@pytest.fixture(scope="session")
def program() -> Cli:
    """Commands that need no server."""
    return Cli()
