"""A backend that is away when Prism starts, and later: the others are served, health says why, and it recovers by itself.
proves: L-02, L-04"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import grpc
import prism
import pytest
from prism.testing import PrismTestServer, find_binary

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "servers"))

import certificates  # noqa: E402
import kinds  # noqa: E402
from program import until  # noqa: E402

CONFIG = {
    "namespaces": [
        {"name": "near", "client_api": "pubsub", "backend": "log"},
        {"name": "far", "client_api": "pubsub", "backend": "log", "patterns": [{"type": "outbox", "database": "pg", "table": "far_outbox"}]},
    ]
}


class Away:
    """A database that does not run yet, on a port that stays."""

    def __init__(self, folder: pathlib.Path) -> None:
        certificates.make(folder / "certificates")
        self.database = kinds.Postgres(folder)
        if lacking := self.database.missing():
            if os.environ.get("CI") or os.environ.get("PRISM_REQUIRE_SERVERS"):
                pytest.fail(lacking)
            pytest.skip(lacking)
        self.database.up()
        url = self.database.variables()["PRISM_TEST_POSTGRES"]
        at = urllib.parse.urlsplit(url)
        self.backends = {
            "log": {"type": "sqlite", "path": str(folder / "log.db")},
            "pg": {"type": "postgres", "host": at.hostname, "port": at.port, "user": at.username, "database": at.path.strip("/")},
        }
        self.database.down()


@pytest.fixture
def away(tmp_path: pathlib.Path) -> Iterator[Away]:
    made = Away(tmp_path)
    try:
        yield made
    finally:
        made.database.down()


def readiness(server: PrismTestServer) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(f"http://{server.admin}/readyz", timeout=10) as answer:
            return dict(json.load(answer))
    except urllib.error.HTTPError as refused:
        return dict(json.load(refused))


def state(server: PrismTestServer, namespace: str) -> str:
    return next((str(each["state"]) for each in readiness(server)["affected"] if each["name"] == namespace), "ready")


def health(server: PrismTestServer, service: str) -> int:
    """grpc.health.v1.Health/Check: 1 is SERVING, 2 NOT_SERVING."""
    with grpc.insecure_channel(server.address) as channel:
        call = channel.unary_unary("/grpc.health.v1.Health/Check", request_serializer=bytes, response_deserializer=bytes)
        answer = call(b"\x0a" + bytes([len(service)]) + service.encode(), timeout=10)
    return answer[1] if answer else 0


def check(folder: pathlib.Path, backends: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    file = folder / "check.yaml"
    file.write_text(json.dumps({**CONFIG, "backends": backends}))
    done = subprocess.run([find_binary(), "check", str(file), "--format", "json"], capture_output=True, text=True, timeout=60)
    return done.returncode, {each["name"]: each for each in json.loads(done.stdout)["backends"]}


def test_the_rest_is_served_and_it_recovers(away: Away, tmp_path: pathlib.Path) -> None:
    code, answers = check(tmp_path, away.backends)
    assert code == 1
    assert answers["log"]["answers"] and answers["pg"]["error"]["reason"] == "BACKEND_UNAVAILABLE"

    with PrismTestServer(CONFIG, backends=away.backends) as server, server.client() as client:
        client.publish("near", b"at once")
        with pytest.raises(prism.PrismError) as refused:
            client.publish("far", b"too early")
        assert refused.value.reason == "NAMESPACE_NOT_READY"
        found = readiness(server)
        assert found["ready"] and found["namespaces"] == ["near"]
        (affected,) = found["affected"]
        assert affected["name"] == "far" and affected["backend"] == "pg" and affected["reason"] == "BACKEND_UNAVAILABLE"
        assert health(server, "") == 1 and health(server, "namespace/near") == 1 and health(server, "namespace/far") == 2

        away.database.up()
        until(lambda: state(server, "far") == "ready")
        until(lambda: health(server, "namespace/far") == 1)
        client.publish("far", b"now")
        assert check(tmp_path, away.backends)[0] == 0
        with client.subscribe("far", group="g", timeout=30) as events:
            assert next(iter(events)).payload == b"now"

        # Later it goes away again, and comes back.
        away.database.down()
        until(lambda: state(server, "far") == "degraded")
        client.publish("near", b"still")
        down = {each["name"]: each for each in server.get_json("/debug/backends")["backends"]}["pg"]
        assert not down["up"] and down["error"]["reason"].startswith("BACKEND_") and down["namespaces"] == ["far"]
        away.database.up()
        until(lambda: state(server, "far") == "ready")
        client.publish("far", b"again")


def test_a_wrong_password_is_told_and_mended_without_a_restart(away: Away, tmp_path: pathlib.Path) -> None:
    away.database.up()
    # The user "secure" logs in with a password, over TLS.
    secret = "prism-wrong-secret"
    wrong = {**away.backends, "pg": {**away.backends["pg"], "user": "secure", "password": secret, "tls": {"verify": False}}}
    code, answers = check(tmp_path, wrong)
    assert code == 1 and answers["pg"]["error"]["reason"] == "BACKEND_AUTHENTICATION_FAILED"
    assert secret not in json.dumps(answers)

    with PrismTestServer(CONFIG, backends=wrong) as server, server.client() as client:
        client.publish("near", b"at once")
        (affected,) = readiness(server)["affected"]
        assert affected["reason"] == "BACKEND_AUTHENTICATION_FAILED" and affected["state"] == "waiting"
        assert secret not in server.log()
        # What waits may be given another connection.
        server.post("/v1/config", json.dumps({**CONFIG, "backends": away.backends}).encode())
        until(lambda: state(server, "far") == "ready")
        client.publish("far", b"now")
