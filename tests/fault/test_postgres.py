"""The outbox in a real PostgreSQL, relayed by two servers, while the database ends their connections. proves: O-01, O-14, O-15, K-08"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import urllib.parse
import uuid
from typing import Any, Iterator

import pytest

from load import CONFIG, Load, nothing_dangles, until
from prism.testing import PrismTestServer

URL = os.environ.get("PRISM_TEST_POSTGRES", "")
pytestmark = pytest.mark.skipif(not URL and not os.environ.get("PRISM_REQUIRE_SERVERS"), reason="no postgres: scripts/servers up postgres")


def sql(text: str) -> str:
    psql = shutil.which("psql")
    assert psql, "psql is not installed"
    done = subprocess.run([psql, "-X", "-At", "-v", "ON_ERROR_STOP=1", "-d", URL, "-c", text], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def schema() -> Iterator[str]:
    name = "f_" + uuid.uuid4().hex[:12]
    sql(f"CREATE SCHEMA {name}")
    yield name
    sql(f"DROP SCHEMA {name} CASCADE")


def backends(folder: pathlib.Path, schema: str, application: str) -> dict[str, Any]:
    url = urllib.parse.urlparse(URL)
    return {
        "postgres": {
            "type": "postgres",
            "host": url.hostname,
            "port": url.port,
            "user": url.username,
            "database": url.path[1:],
            "schema": schema,
            "application_name": application,
        },
        "kafka": {"type": "sqlite", "path": str(folder / "log.db")},
        "s3": {"type": "filesystem", "path": str(folder / "objects")},
    }


def test_nothing_is_lost_with_the_connections_to_the_database(tmp_path: pathlib.Path, schema: str, full: bool) -> None:
    application = schema
    given = backends(tmp_path, schema, application)
    with (
        PrismTestServer(CONFIG, namespace="load", data=tmp_path / "a", backends=given) as first,
        PrismTestServer(CONFIG, namespace="load", data=tmp_path / "b", backends=given) as second,
    ):
        load = Load([first, second], [first, second], [first, second])
        ended = 0
        for _ in range(40 if full else 8):
            before = load.acknowledged()
            assert until(lambda: load.acknowledged() > before + 20, 60), first.log()[-3000:] + second.log()[-3000:]
            ended += int(sql(f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = '{application}'"))
        load.finish()
        print(ended, "connections ended", load.history.counts())
        assert ended > 8
        assert [str(violation) for violation in load.history.check()] == []
        assert nothing_dangles(second) == {"pending_rows": 0, "objects": 0}
