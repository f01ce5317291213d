"""A receiver of OpenTelemetry's protocol (OTLP) for traces, over gRPC and HTTP. It keeps the spans as plain dictionaries, and writes
them as JSON lines when it is told where.

    python tests/e2e/otlp_receiver.py --grpc-port 4317 --http-port 4318 --out spans.jsonl
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import gzip
import http.server
import json
import pathlib
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

Span = dict[str, Any]


def _value(value: common_pb2.AnyValue) -> Any:
    kind = value.WhichOneof("value")
    return getattr(value, kind) if kind else None


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def spans_of(request: trace_service_pb2.ExportTraceServiceRequest, protocol: str, headers: dict[str, str]) -> list[Span]:
    out: list[Span] = []
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                out.append(
                    {
                        "protocol": protocol,
                        "headers": headers,
                        "resource": _attributes(resource.resource.attributes),
                        "scope": scope.scope.name,
                        "name": span.name,
                        "trace_id": span.trace_id.hex(),
                        "span_id": span.span_id.hex(),
                        "parent_id": span.parent_span_id.hex(),
                        "trace_state": span.trace_state,
                        "flags": span.flags,
                        "kind": trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
                        "begin": span.start_time_unix_nano,
                        "end": span.end_time_unix_nano,
                        "attributes": _attributes(span.attributes),
                        "links": [{"trace_id": link.trace_id.hex(), "span_id": link.span_id.hex()} for link in span.links],
                        "failed": span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
                        "message": span.status.message,
                    }
                )
    return out


def _reserve() -> socket.socket:
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved.bind(("127.0.0.1", 0))
    return reserved


class OtlpReceiver:
    """Listens as long as the `with` block lasts. `refuse` answers every export with an error. With `reserve` its ports are known
    before, and nobody else's: connections to them are refused until it listens."""

    def __init__(self, out: pathlib.Path | None = None, grpc_port: int = 0, http_port: int = 0, tls: tuple[pathlib.Path, pathlib.Path] | None = None, reserve: bool = False) -> None:
        self._out = out
        self._tls = tls  # files with the certificate and its key
        self._reserved = [_reserve() for _ in range(2)] if reserve else []
        self.grpc_port, self.http_port = (s.getsockname()[1] for s in self._reserved) if reserve else (grpc_port, http_port)
        self._changed = threading.Condition()
        self._spans: list[Span] = []
        self.exports = 0
        self.refuse = False

    # --- what came ---

    def spans(self) -> list[Span]:
        with self._changed:
            return list(self._spans)

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans() if span["name"] == name]

    def wait_for(self, condition: Callable[[list[Span]], Any], timeout: float = 60) -> Any:
        """What the condition gives as soon as it is true; AssertionError with what has come when it does not become true."""
        until = time.monotonic() + timeout
        with self._changed:
            while True:
                if result := condition(self._spans):
                    return result
                if not self._changed.wait(max(0.0, until - time.monotonic())) and time.monotonic() >= until:
                    raise AssertionError("spans so far: " + ", ".join(span["name"] for span in self._spans))

    def take(self, spans: list[Span]) -> None:
        with self._changed:
            self.exports += 1
            self._spans += spans
            if self._out is not None:
                with self._out.open("a") as lines:
                    for span in spans:
                        lines.write(json.dumps(span) + "\n")
            self._changed.notify_all()

    # --- the two servers ---

    def __enter__(self) -> OtlpReceiver:
        receiver = self

        class Service(trace_service_pb2_grpc.TraceServiceServicer):
            def Export(self, request: Any, context: grpc.ServicerContext) -> Any:
                if receiver.refuse:
                    context.abort(grpc.StatusCode.UNAVAILABLE, "the receiver refuses")
                receiver.take(spans_of(request, "grpc", {k: str(v) for k, v in context.invocation_metadata()}))
                return trace_service_pb2.ExportTraceServiceResponse()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status = 200
                if receiver.refuse:
                    status = 503
                elif self.path != "/v1/traces" or self.headers["content-type"] != "application/x-protobuf":
                    status = 404
                else:
                    if self.headers.get("content-encoding") == "gzip":
                        body = gzip.decompress(body)
                    request = trace_service_pb2.ExportTraceServiceRequest.FromString(body)
                    receiver.take(spans_of(request, "http", {k.lower(): v for k, v in self.headers.items()}))
                answer = trace_service_pb2.ExportTraceServiceResponse().SerializeToString() if status == 200 else b""
                self.send_response(status)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._grpc = grpc.server(concurrent.futures.ThreadPoolExecutor(4), options=[("grpc.so_reuseport", int(bool(self._reserved)))])
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Service(), self._grpc)
        listen = f"127.0.0.1:{self.grpc_port}"
        if self._tls:
            certificate, key = (file.read_bytes() for file in self._tls)
            self.grpc_port = self._grpc.add_secure_port(listen, grpc.ssl_server_credentials([(key, certificate)]))
        else:
            self.grpc_port = self._grpc.add_insecure_port(listen)
        self._grpc.start()
        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", self.http_port), Handler, bind_and_activate=False)
        self._http.allow_reuse_port = bool(self._reserved)
        self._http.server_bind()
        self._http.server_activate()
        if self._tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self._tls)
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self.http_port = self._http.server_port
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._grpc.stop(grace=None).wait()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        for reserved in self._reserved:
            reserved.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grpc-port", type=int, default=4317)
    parser.add_argument("--http-port", type=int, default=4318)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    options = parser.parse_args()
    with OtlpReceiver(options.out, options.grpc_port, options.http_port) as receiver:
        print(f"listening: gRPC 127.0.0.1:{receiver.grpc_port}, HTTP 127.0.0.1:{receiver.http_port}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    main()
