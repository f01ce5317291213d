from __future__ import annotations

from typing import Iterator

import pytest
from fake_server import FakeServer

import prism


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()
    yield fake
    fake.stop()


@pytest.fixture
def client(server: FakeServer) -> Iterator[prism.Client]:
    with prism.Client(server.address, namespace="test", timeout=10) as it:
        yield it
