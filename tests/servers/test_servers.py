"""scripts/servers: real servers that start on free ports, answer, keep their data, and end when they are told to."""

from __future__ import annotations

import os
import pathlib
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import kinds  # noqa: E402
from process import Server, ServerError, is_free  # noqa: E402

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "servers"
QUICK = ["postgres", "redis", "nats", "nats-secure", "s3", "s3-tls", "toxiproxy"]
REQUIRED = any(os.environ.get(name, "") not in ("", "0", "false") for name in ("CI", "PRISM_REQUIRE_SERVERS"))


class Servers:
    """The script, with a folder of its own."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root

    def __call__(self, *arguments: str, status: int | None = 0, environment: dict[str, str] | None = None) -> str:
        done = subprocess.run(
            [SCRIPT, "--dir", str(self.root), *arguments], capture_output=True, text=True, timeout=180, env=os.environ | (environment or {})
        )
        assert status is None or done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def environment(self) -> dict[str, str]:
        lines = [shlex.split(line)[1] for line in self("env").splitlines()]
        return dict(line.split("=", 1) for line in lines)


@pytest.fixture(scope="module")
def installed() -> list[str]:
    """Those of the quick ones that are there."""
    present = []
    with tempfile.TemporaryDirectory() as folder:
        for name in QUICK:
            lacking = kinds.KINDS[name](pathlib.Path(folder)).missing()
            assert not (lacking and REQUIRED), lacking
            if not lacking:
                present.append(name)
    if not present:
        pytest.skip("no server is installed")
    return present


@pytest.fixture(scope="module")
def servers(installed: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    run = Servers(tmp_path_factory.mktemp("servers"))
    try:
        run("up", *installed)
        yield run
    finally:
        run("down", "--remove")


def test_each_answers_with_its_own_protocol(servers: Servers, installed: list[str]) -> None:
    found = servers.environment()
    status = servers("status")
    for name in installed:
        assert f"{name:12} process" in status
    if "redis" in installed:
        host, port = found["PRISM_TEST_REDIS"].split(":")
        with socket.create_connection((host, int(port))) as redis:
            redis.sendall(b"SET key value\r\n")
            assert redis.recv(100) == b"+OK\r\n"
    if "nats" in installed:
        host, port = found["PRISM_TEST_NATS"].removeprefix("nats://").split(":")
        with socket.create_connection((host, int(port))) as nats:
            assert nats.recv(10000).startswith(b'INFO {"server_id"')


def test_starting_again_changes_nothing(servers: Servers, installed: list[str]) -> None:
    before = servers("status")
    began = time.monotonic()
    assert servers("up", *installed).count("runs") == len(installed)
    assert time.monotonic() - began < 10
    assert servers("status") == before


def test_who_is_killed_comes_back_at_the_same_address_with_its_data(servers: Servers, installed: list[str]) -> None:
    if "redis" not in installed:
        pytest.skip("redis is not installed")
    before = servers.environment()
    port = int(before["PRISM_TEST_REDIS"].split(":")[1])
    with socket.create_connection(("127.0.0.1", port)) as redis:
        redis.sendall(b"SET survives yes\r\n")
        assert redis.recv(100) == b"+OK\r\n"
    servers("kill", "redis")
    assert "PRISM_TEST_REDIS" not in servers.environment()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port)).close()
    servers("kill", "redis", status=1)
    servers("up", "redis")
    assert servers.environment() == before
    with socket.create_connection(("127.0.0.1", port)) as redis:
        redis.sendall(b"GET survives\r\n")
        assert redis.recv(100) == b"$3\r\nyes\r\n"


def test_a_paused_one_is_silent_until_it_is_resumed(servers: Servers, installed: list[str]) -> None:
    if "redis" not in installed:
        pytest.skip("redis is not installed")
    host, port = servers.environment()["PRISM_TEST_REDIS"].split(":")
    with socket.create_connection((host, int(port)), timeout=0.3) as redis:
        servers("pause", "redis")
        redis.sendall(b"PING\r\n")
        with pytest.raises(TimeoutError):
            redis.recv(10)
        servers("resume", "redis")
        redis.settimeout(10)
        assert redis.recv(10) == b"+PONG\r\n"


def test_a_taken_port_is_avoided(tmp_path: pathlib.Path, installed: list[str]) -> None:
    if "nats" not in installed:
        pytest.skip("nats is not installed")
    nats = kinds.Nats(tmp_path)
    nats.up()
    try:
        first = nats.port()
        nats.down()
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", first))
            taken.listen()
            assert not is_free(first)
            nats.up()
            assert nats.port() != first
    finally:
        nats.down()


def test_a_server_that_cannot_start_says_what_it_said(tmp_path: pathlib.Path) -> None:
    class Broken(Server):
        name = "broken"

        def command(self) -> list[str]:
            return ["sh", "-c", "echo no such luck >&2; exit 3"]

        def answers(self) -> bool:
            raise ConnectionRefusedError

    with pytest.raises(ServerError, match="(?s)ends at once, with 3.*no such luck"):
        Broken(tmp_path).up()


def test_a_process_that_has_our_number_and_is_not_ours_is_left_alone(tmp_path: pathlib.Path) -> None:
    class Other(Server):
        name = "other"

    other = Other(tmp_path)
    other.folder.mkdir()
    (other.folder / "state.json").write_text(f'{{"pid": {os.getpid()}, "born": "1", "ports": {{}}}}')
    assert other.pid is None
    other.down()  # would end this test


def test_what_is_missing_is_a_failure_only_where_it_is_required(servers: Servers) -> None:
    plain = {"CI": "", "PRISM_REQUIRE_SERVERS": "", "PRISM_CACHE": "/nonexistent"}
    needs_valkey = ("exec", "--needs", "valkey", "--", "true")
    assert "skipped" in servers(*needs_valkey, status=77, environment=plain)
    assert "FAILED" in servers(*needs_valkey, status=1, environment=plain | {"CI": "1"})
    assert "without s3-minio: minio" in servers("up", "--lenient", "s3-minio", status=0, environment=plain)
    assert "not installed" in servers("up", "--lenient", "s3-minio", status=1, environment=plain | {"PRISM_REQUIRE_SERVERS": "1"})


def test_no_server_lets_anyone_in_by_the_guarded_door(servers: Servers, installed: list[str]) -> None:
    found = os.environ | servers.environment()
    if "postgres" in installed:
        psql = ["psql", "-XAtw", found["PRISM_TEST_POSTGRES_SECURE"] + f"?sslmode=verify-full&sslrootcert={found['PRISM_TEST_CA']}", "-c", "SELECT 1"]
        right = subprocess.run(psql, env=found | {"PGPASSWORD": found["PRISM_TEST_POSTGRES_SECURE_PASSWORD"]}, capture_output=True, text=True)
        assert right.stdout == "1\n", right.stderr
        wrong = subprocess.run(psql, env=found | {"PGPASSWORD": "wrong"}, capture_output=True, text=True)
        assert "password authentication failed" in wrong.stderr
    if "redis" in installed and shutil.which("redis-cli"):
        cli = ["redis-cli", "--no-auth-warning", "--tls", "--cacert", found["PRISM_TEST_CA"], "-p", found["PRISM_TEST_REDIS_TLS"].split(":")[1]]
        cli += ["--user", found["PRISM_TEST_REDIS_USER"]]
        assert subprocess.run([*cli, "--pass", found["PRISM_TEST_REDIS_PASSWORD"], "ping"], capture_output=True, text=True).stdout == "PONG\n"
        assert "WRONGPASS" in subprocess.run([*cli, "--pass", "wrong", "ping"], capture_output=True, text=True).stderr


def test_down_leaves_nothing(installed: list[str], tmp_path: pathlib.Path) -> None:
    run = Servers(tmp_path)
    run("up", "redis" if "redis" in installed else installed[0])
    run("down", "--remove")
    assert not list(tmp_path.glob("*/data"))
    assert not list(tmp_path.glob("*/state.json"))
    assert " process " not in run("status")
