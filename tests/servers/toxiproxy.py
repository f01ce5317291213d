"""Proxies between Prism and a server, by the HTTP interface of toxiproxy."""

from __future__ import annotations

import contextlib
import json
import urllib.request
from collections.abc import Iterator
from typing import Any


class Proxy:
    """Listens at an address of its own and goes to `upstream`, until `close`."""

    def __init__(self, api: str, name: str, upstream: str, listen: str = "127.0.0.1:0") -> None:
        self._api, self.name = api, name
        self.address: str = _ask(api, "POST", "/proxies", {"name": name, "listen": listen, "upstream": upstream, "enabled": True})["listen"]

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def close(self) -> None:
        _ask(self._api, "DELETE", f"/proxies/{self.name}")

    @contextlib.contextmanager
    def toxic(self, kind: str, stream: str = "downstream", **attributes: int) -> Iterator[None]:
        """latency(latency, jitter), timeout(timeout), reset_peer(timeout), bandwidth(rate in KB/s), limit_data(bytes): all of the connections,
        those that are open too."""
        toxic = f"{kind}_{stream}"
        _ask(self._api, "POST", f"/proxies/{self.name}/toxics", {"name": toxic, "type": kind, "stream": stream, "attributes": attributes})
        try:
            yield
        finally:
            _ask(self._api, "DELETE", f"/proxies/{self.name}/toxics/{toxic}")

    @contextlib.contextmanager
    def cut(self) -> Iterator[None]:
        """Connections end, and new ones are refused."""
        _ask(self._api, "POST", f"/proxies/{self.name}", {"enabled": False})
        try:
            yield
        finally:
            _ask(self._api, "POST", f"/proxies/{self.name}", {"enabled": True})


def _ask(api: str, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(api + path, data, {"Content-Type": "application/json", "User-Agent": "tests"}, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        text = answer.read()
        return json.loads(text) if text else None
