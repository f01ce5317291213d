"""Payloads and the details of errors, without a server."""

from __future__ import annotations

import io

from google.protobuf import any_pb2

from prism import errors, payloads
from prism.common.v1 import error_pb2, rpc_status_pb2


def test_crc32c_is_castagnoli() -> None:
    assert payloads.crc32c(b"123456789") == 0xE3069283
    assert payloads.crc32c(b"6789", payloads.crc32c(b"12345")) == 0xE3069283
    assert payloads.crc32c(b"") == 0


def test_chunks_are_bounded_and_complete() -> None:
    data = bytes(range(256)) * 5000
    for payload in (data, io.BytesIO(data), iter([data])):
        chunks = list(payloads.chunks_of(payload))
        assert b"".join(chunks) == data and max(map(len, chunks)) <= payloads.CHUNK


def test_sizes_that_can_be_told_beforehand() -> None:
    file = io.BytesIO(b"0123456789")
    file.seek(4)
    assert payloads.known_size(file) == 6 and file.tell() == 4
    assert payloads.known_size("ä") == 2
    assert payloads.known_size(iter([b"x"])) is None


def test_entry_errors() -> None:
    error = errors.from_entry(error_pb2.Error(code=4, reason="R", message="m", retry="safe", metadata={"a": "b"}))
    assert isinstance(error, errors.Timeout) and error.reason == "R" and error.metadata == {"a": "b"}
    assert errors.from_entry(error_pb2.Error(code=99, message="m")).reason == "TRANSPORT_ERROR"


def test_details_of_other_kinds_are_passed_over() -> None:
    import grpc

    status = rpc_status_pb2.Status(details=[any_pb2.Any(type_url="type.googleapis.com/google.rpc.Help", value=b"\xff")])
    error = errors._from_status(grpc.StatusCode.INTERNAL, "m", status.SerializeToString())
    assert error.reason == "TRANSPORT_ERROR" and str(error) == "TRANSPORT_ERROR: m"


def test_errors_of_the_transport_have_stable_reasons() -> None:
    import grpc

    class Failed(grpc.RpcError):
        def __init__(self, code: grpc.StatusCode, details: str = "x") -> None:
            self._code, self._details = code, details

        def code(self) -> grpc.StatusCode:
            return self._code

        def details(self) -> str:
            return self._details

        def trailing_metadata(self) -> None:
            return None

    for code in grpc.StatusCode:
        error = errors.from_rpc(Failed(code))
        assert error.reason == errors.TRANSPORT_REASONS.get(code, "TRANSPORT_ERROR") and error.code is code
        assert isinstance(error, errors.Timeout) == (code is grpc.StatusCode.DEADLINE_EXCEEDED)
    assert errors.from_rpc(Failed(grpc.StatusCode.UNAVAILABLE)).reason == "SERVER_UNAVAILABLE"
    refused = Failed(grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses")
    assert errors.from_rpc(refused).reason == "CONNECTION_FAILED"
