"""Errors: one class for everything that Prism answers, with the reason, the hint and what may be done about it."""

from __future__ import annotations

from typing import Any, Mapping

import grpc

from prism.common.v1 import error_pb2, rpc_status_pb2

__all__ = ["TRANSPORT_REASONS", "PrismError", "Timeout"]

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_TYPE_PREFIX = "type.googleapis.com/google.rpc."


TRANSPORT_REASONS: Mapping[grpc.StatusCode, str] = {
    grpc.StatusCode.UNAVAILABLE: "SERVER_UNAVAILABLE",  # the connection was lost, or the server is gone
    grpc.StatusCode.DEADLINE_EXCEEDED: "DEADLINE_EXCEEDED",  # no answer in the time given
    grpc.StatusCode.CANCELLED: "CANCELLED",  # by this process, or with its connection
    grpc.StatusCode.RESOURCE_EXHAUSTED: "RESOURCE_EXHAUSTED",  # a message exceeds what one side takes, or a proxy's limit was hit
    grpc.StatusCode.UNIMPLEMENTED: "METHOD_UNKNOWN",  # what answers there is no Prism server, or another version
    grpc.StatusCode.UNAUTHENTICATED: "UNAUTHENTICATED",  # a proxy refused
    grpc.StatusCode.PERMISSION_DENIED: "PERMISSION_DENIED",  # a proxy refused
}
"""Reasons of errors that no Prism server gave; every other code has TRANSPORT_ERROR. CONNECTION_FAILED: no connection could be made."""


class PrismError(Exception):
    """A call, or one entry of a batch or stream, failed.

    code         gRPC status code (grpc.StatusCode.NOT_FOUND, ...)
    reason       stable and fit for programs: "NAMESPACE_NOT_FOUND"; never empty. An error that did not come from a Prism server (a
                 connection, a proxy, gRPC itself) has the reason of its code, see TRANSPORT_REASONS
    message      what is wrong, for people
    hint         how to mend it, for people; may be empty
    retry        "never", "safe" (nothing happened: repeat it) or "unknown_outcome" (it may have happened: repeat with the same
                 message id, or read back); empty if the server did not say
    retry_after  seconds to wait before repeating; None if the server did not say
    metadata     further facts by name: namespace, pattern, backend, ...
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode = grpc.StatusCode.UNKNOWN,
        reason: str,
        hint: str = "",
        retry: str = "",
        retry_after: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.hint = hint
        self.retry = retry
        self.retry_after = retry_after
        self.metadata: dict[str, str] = dict(metadata or {})

    def __str__(self) -> str:
        text = f"{self.reason}: {self.message}"
        return f"{text} ({self.hint})" if self.hint else text


class Timeout(PrismError, TimeoutError):
    """Nothing came, or the call did not end, in the time given."""

    def __init__(self, message: str, **details: Any) -> None:
        details.setdefault("code", grpc.StatusCode.DEADLINE_EXCEEDED)
        details.setdefault("reason", "DEADLINE_EXCEEDED")
        super().__init__(message, **details)


def _make(code: grpc.StatusCode, message: str, reason: str = "", **details: Any) -> PrismError:
    kind = Timeout if code is grpc.StatusCode.DEADLINE_EXCEEDED else PrismError
    return kind(message, code=code, reason=reason or TRANSPORT_REASONS.get(code, "TRANSPORT_ERROR"), **details)


def from_rpc(error: grpc.RpcError) -> PrismError:
    """The error of a failed call, with what the server put into its details."""
    code: grpc.StatusCode = error.code()
    message: str = error.details() or code.name
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            return _from_status(code, message, value)
    if code is grpc.StatusCode.UNAVAILABLE and "failed to connect" in message.lower():
        return not_connected(message)  # the call never left this process
    return _make(code, message)


def not_connected(message: str) -> PrismError:
    """The error where no connection could be made."""
    return PrismError(
        message,
        code=grpc.StatusCode.UNAVAILABLE,
        reason="CONNECTION_FAILED",
        hint="is a Prism server running there?",
        retry="safe",
    )


def _from_status(code: grpc.StatusCode, message: str, encoded: bytes) -> PrismError:
    reason, hint, retry, retry_after = "", "", "", None
    metadata: dict[str, str] = {}
    for detail in rpc_status_pb2.Status.FromString(encoded).details:
        kind = detail.type_url.removeprefix(_TYPE_PREFIX)
        if kind == "ErrorInfo":
            info = rpc_status_pb2.ErrorInfo.FromString(detail.value)
            reason = info.reason
            metadata = dict(info.metadata)
            hint = metadata.pop("hint", "")
            retry = metadata.pop("retry", "")
        elif kind == "RetryInfo":
            retry_after = rpc_status_pb2.RetryInfo.FromString(detail.value).retry_delay.ToTimedelta().total_seconds()
    return _make(code, message, reason=reason, hint=hint, retry=retry, retry_after=retry_after, metadata=metadata)


def from_entry(error: error_pb2.Error) -> PrismError:
    """The error of one entry."""
    code = _CODES.get(error.code, grpc.StatusCode.UNKNOWN)
    return _make(
        code, error.message, reason=error.reason, hint=error.hint, retry=error.retry, metadata=error.metadata
    )
