"""The published contract. proves: A-01, A-02, A-03, A-12"""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys

import pytest

from prism.pubsub.v1 import pubsub_pb2
from prism.queue.v1 import queue_pb2

ROOT = pathlib.Path(__file__).resolve().parents[3]


def contract(*arguments: str | pathlib.Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "scripts" / "proto-contract", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_no_entry_of_the_contract_vanished_or_changed() -> None:
    done = contract()
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "old, new, complaint",
    [
        ("bytes payload = 2;", "string payload = 2;", "changed: field prism.pubsub.v1.PublishRequest 2"),
        ("bytes payload = 2;", "bytes payload = 99;", "gone: field prism.pubsub.v1.PublishRequest 2"),
        ("string ordering_key = 5;", "string order_key = 5;", "changed: field prism.pubsub.v1.PublishRequest 5"),
        ("rpc Subscribe(SubscribeRequest) returns (stream Event);", "", "gone: rpc prism.pubsub.v1.PubSubService.Subscribe"),
        ("STATUS_STALE = 2;", "STATUS_OLD = 2;", "changed: enum prism.pubsub.v1"),
        ("bool success = 1;", "bool success = 1; bool more = 77;", "not listed yet: field prism.pubsub.v1.PublishResponse 77"),
    ],
)
def test_the_check_sees_a_break(tmp_path: pathlib.Path, old: str, new: str, complaint: str) -> None:
    shutil.copytree(ROOT / "proto", tmp_path / "proto")
    file = tmp_path / "proto" / "prism" / "pubsub" / "v1" / "pubsub.proto"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    done = contract("--proto", tmp_path / "proto")
    assert done.returncode == 1 and complaint in done.stderr
    if not complaint.startswith("not listed"):
        done = contract("--proto", tmp_path / "proto", "--update")
        assert done.returncode == 1, "an update must not write a break down"


def test_the_names_and_numbers_that_rfc_014_gives() -> None:
    fields = pubsub_pb2.PublishRequest.DESCRIPTOR.fields_by_name
    assert [fields[name].number for name in ("topic", "payload", "metadata")] == [1, 2, 3]
    methods = pubsub_pb2.DESCRIPTOR.services_by_name["PubSubService"].methods_by_name
    assert methods["Publish"].output_type.name == "PublishResponse" and methods["Subscribe"].output_type.name == "Event"
    methods = queue_pb2.DESCRIPTOR.services_by_name["QueueService"].methods_by_name
    assert methods["Publish"].input_type.name == "PublishRequest" and methods["Subscribe"].output_type.name == "Message"


def test_event_and_message_are_the_same_on_the_wire() -> None:
    def shape(descriptor: object) -> list[tuple[object, ...]]:
        fields = descriptor.fields  # type: ignore[attr-defined]
        return [(f.name, f.number, f.type, f.is_repeated, f.message_type and _inner(f.message_type)) for f in fields]

    def _inner(descriptor: object) -> object:
        if descriptor.GetOptions().map_entry:  # type: ignore[attr-defined]
            return "map"
        return descriptor.full_name  # type: ignore[attr-defined]

    assert shape(pubsub_pb2.Event.DESCRIPTOR) == shape(queue_pb2.Message.DESCRIPTOR)


def test_the_details_of_errors_equal_google_rpc(tmp_path: pathlib.Path) -> None:
    """Decoded as google.rpc's own field numbers, spelt out here since its definitions are no dependency."""
    from google.protobuf import any_pb2, duration_pb2

    from prism.common.v1 import rpc_status_pb2 as rs

    numbers = {
        rs.Status: {"code": 1, "message": 2, "details": 3},
        rs.ErrorInfo: {"reason": 1, "domain": 2, "metadata": 3},
        rs.RetryInfo: {"retry_delay": 1},
        rs.BadRequest: {"field_violations": 1},
        rs.BadRequest.FieldViolation: {"field": 1, "description": 2},
        rs.QuotaFailure: {"violations": 1},
        rs.QuotaFailure.Violation: {"subject": 1, "description": 2},
        rs.PreconditionFailure: {"violations": 1},
        rs.PreconditionFailure.Violation: {"type": 1, "subject": 2, "description": 3},
    }
    for message, fields in numbers.items():
        assert {f.name: f.number for f in message.DESCRIPTOR.fields} == fields
    assert rs.Status.DESCRIPTOR.fields_by_name["details"].message_type is any_pb2.Any.DESCRIPTOR
    assert rs.RetryInfo.DESCRIPTOR.fields_by_name["retry_delay"].message_type is duration_pb2.Duration.DESCRIPTOR
