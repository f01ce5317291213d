"""Payloads in a real object store, seen by another client of it.

Needs the server of `scripts/servers up s3`; with PRISM_REQUIRE_SERVERS=1 (or CI=1) it fails where that is missing, else it is skipped.
"""

from __future__ import annotations

import base64
import os
import pathlib
import time
import uuid
from collections.abc import Iterator
from typing import Any

import boto3
import google_crc32c
import pytest
from botocore.config import Config
from prism import PrismError
from prism.testing import PrismTestServer

MIB = 1 << 20


def variable(name: str) -> str:
    if value := os.environ.get(name):
        return value
    if os.environ.get("CI") == "1" or os.environ.get("PRISM_REQUIRE_SERVERS") == "1":
        pytest.fail(f"{name} is not set: scripts/servers up s3")
    pytest.skip(f"no server s3 ({name})")


@pytest.fixture
def store() -> Any:
    return boto3.client(
        "s3",
        endpoint_url=variable("PRISM_TEST_S3"),
        region_name=variable("PRISM_TEST_S3_REGION"),
        aws_access_key_id=variable("PRISM_TEST_S3_ACCESS_KEY"),
        aws_secret_access_key=variable("PRISM_TEST_S3_SECRET_KEY"),
        config=Config(s3={"addressing_style": "path"}),
    )


@pytest.fixture
def bucket(store: Any) -> Iterator[str]:
    name = f"t-{uuid.uuid4().hex}"
    store.create_bucket(Bucket=name)
    yield name
    for page in store.get_paginator("list_objects_v2").paginate(Bucket=name):
        for entry in page.get("Contents", []):
            store.delete_object(Bucket=name, Key=entry["Key"])
    store.delete_bucket(Bucket=name)


def backends(folder: pathlib.Path, **changes: Any) -> dict[str, Any]:
    return {
        "log": {"type": "sqlite", "path": str(folder / "log.db")},
        "objects": {
            "type": "s3",
            "endpoint": variable("PRISM_TEST_S3"),
            "region": variable("PRISM_TEST_S3_REGION"),
            "access_key_id": variable("PRISM_TEST_S3_ACCESS_KEY"),
            "secret_access_key": variable("PRISM_TEST_S3_SECRET_KEY"),
            **changes,
        },
    }


def config(bucket: str) -> dict[str, Any]:
    claim_check = {"type": "claim-check", "threshold": "1MB", "storage": {"backend": "objects", "bucket": bucket}, "cleanup": {"interval": "50ms"}}
    return {"namespaces": [{"name": "media", "client_api": "pubsub", "patterns": ["pub-sub", claim_check], "backend": "log", "pub_sub": {"consumer_groups": ["all"]}}]}


def objects(store: Any, bucket: str) -> list[str]:
    return [entry["Key"] for entry in store.list_objects_v2(Bucket=bucket).get("Contents", [])]


def crc32c_of(payload: bytes) -> str:
    return base64.b64encode(google_crc32c.value(payload).to_bytes(4, "big")).decode()


@pytest.mark.parametrize("size", [2 * MIB, 20 * MIB + 7])
def test_another_client_reads_what_prism_has_stored(tmp_path: pathlib.Path, store: Any, bucket: str, size: int) -> None:
    payload = bytes(i * 7 % 251 for i in range(1000)) * (size // 1000 + 1)
    payload = payload[:size]
    with PrismTestServer(config(bucket), backends=backends(tmp_path)) as server:
        client = server.client()
        client.publish("media", payload)
        (key,) = objects(store, bucket)
        found = store.get_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
        assert found["ContentLength"] == size
        assert found["Body"].read() == payload
        assert found["ChecksumCRC32C"] == crc32c_of(payload)
        assert store.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")["ChecksumType"] == "FULL_OBJECT"

        assert next(iter(client.subscribe("media", group="all", timeout=60))).payload == payload
        deadline = time.monotonic() + 60
        while objects(store, bucket):  # what all groups have is removed
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert not store.list_multipart_uploads(Bucket=bucket).get("Uploads")


def test_a_wrong_key_is_said_and_not_shown(tmp_path: pathlib.Path, bucket: str) -> None:
    with PrismTestServer(config(bucket), backends=backends(tmp_path, secret_access_key="not-the-secret-at-all")) as server:
        with pytest.raises(PrismError) as refused:
            server.client().publish("media", bytes(2 * MIB), timeout=1)
        assert "refuses the credentials" in str(refused.value)
        assert "not-the-secret-at-all" not in str(refused.value)
        assert "not-the-secret-at-all" not in server.log()


def test_a_bucket_that_is_missing_is_made_where_that_is_asked_for(tmp_path: pathlib.Path, store: Any, bucket: str) -> None:
    name = f"{bucket}-new"
    with PrismTestServer(config(name), backends=backends(tmp_path)) as server:
        with pytest.raises(PrismError) as missing:
            server.client().publish("media", bytes(2 * MIB))
        assert missing.value.reason == "BUCKET_MISSING"
    with PrismTestServer(config(name), backends=backends(tmp_path, create_bucket=True)) as server:
        server.client().publish("media", bytes(2 * MIB))
        (key,) = objects(store, name)
    store.delete_object(Bucket=name, Key=key)
    store.delete_bucket(Bucket=name)
