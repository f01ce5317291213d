"""The outbox in PostgreSQL, relayed by two processes, while the database ends their connections. proves: O-01, O-14, O-15, K-08"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import urllib.parse
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "fault"))

from load import CONFIG, Load, nothing_dangles, until  # noqa: E402

from prism.testing import PrismTestServer  # noqa: E402

FULL = os.environ.get("PRISM_FAULT") == "full"
# What the two processes share, leases included, is in the database.
SHARED = {"namespaces": [namespace | {"state": "postgres"} for namespace in CONFIG["namespaces"]]}  # type: ignore[operator]


def url() -> str:
    if value := os.environ.get("PRISM_TEST_POSTGRES"):
        return value
    if os.environ.get("CI") == "1" or os.environ.get("PRISM_REQUIRE_SERVERS") == "1":
        pytest.fail("PRISM_TEST_POSTGRES is not set: scripts/servers up postgres")
    pytest.skip("no server postgres (PRISM_TEST_POSTGRES)")


def sql(text: str) -> str:
    psql = shutil.which("psql")
    assert psql, "psql is not installed"
    done = subprocess.run([psql, "-XAtwq", "-v", "ON_ERROR_STOP=1", "-d", url(), "-c", text], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def schema() -> Iterator[str]:
    name = "f_" + uuid.uuid4().hex[:12]
    sql(f"CREATE SCHEMA {name}")
    yield name
    sql(f"DROP SCHEMA {name} CASCADE")


def backends(folder: pathlib.Path, schema: str) -> dict[str, Any]:
    """Tables in the schema, whose name is also that of the connections; log and objects in files that both processes use."""
    at = urllib.parse.urlsplit(url())
    return {
        "postgres": {
            "type": "postgres",
            "host": at.hostname,
            "port": at.port,
            "user": at.username,
            "database": at.path[1:],
            "schema": schema,
            "application_name": schema,
        },
        "kafka": {"type": "sqlite", "path": str(folder / "log.db")},
        "s3": {"type": "filesystem", "path": str(folder / "objects")},
    }


def test_nothing_is_lost_with_the_connections_to_the_database(tmp_path: pathlib.Path, schema: str) -> None:
    given = backends(tmp_path, schema)
    with (
        PrismTestServer(SHARED, namespace="load", data=tmp_path / "a", backends=given) as first,
        PrismTestServer(SHARED, namespace="load", data=tmp_path / "b", backends=given) as second,
    ):
        load = Load([first, second], [first, second], [first, second])
        ended = 0
        for _ in range(40 if FULL else 8):
            before = load.acknowledged()
            assert until(lambda: load.acknowledged() > before + 20, 60), first.log()[-3000:] + second.log()[-3000:]
            ended += int(sql(f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = '{schema}'"))
        load.finish()
        print(ended, "connections ended", load.history.counts())
        assert ended > 8
        assert [str(violation) for violation in load.history.check()] == []
        assert nothing_dangles(second) == {"pending_rows": 0, "objects": 0}
        assert sql(f"SELECT count(*) FROM {schema}.prism_lease") != "0"
