#!/usr/bin/env python3
"""Stands in for the `prism` program in tests of PrismTestServer: same arguments, same ready file, a server in memory."""

import http.server
import json
import os
import pathlib
import signal
import sys
import threading
import urllib.parse

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from fake_server import FakeServer  # noqa: E402


def main() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # in all threads: main waits for it
    command, file, *rest = sys.argv[1:]
    rest = [argument for argument in rest if argument != "--watch"]
    options = dict(zip(rest[::2], rest[1::2]))
    config = json.loads(pathlib.Path(file).read_text())
    print("configuration", json.dumps(config), flush=True)
    if command != ("serve" if "backends" in config else "dev") or "broken" in json.dumps(config):
        sys.exit("prism.yaml:1:1: it is broken")
    data = pathlib.Path(options["--data"])
    data.mkdir(parents=True, exist_ok=True)
    (data / "starts").open("a").write("x")
    server = FakeServer(int(options["--port"]))

    class Admin(http.server.BaseHTTPRequestHandler):
        asked = 0

        def do_GET(self) -> None:
            query = urllib.parse.parse_qs(urllib.parse.urlparse(self.path).query)
            Admin.asked += 1
            acked = sum(what == "ack" for what, _, _ in server.settlements)
            total = sum(len(log) for log in server.topics.values())
            answer = {
                "count": total - acked,
                "settled": Admin.asked % 3 == 0 and query["backend"] == ["s3"],
                "query": query,
            }
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    admin = http.server.ThreadingHTTPServer(("127.0.0.1", int(options["--admin-port"])), Admin)
    threading.Thread(target=admin.serve_forever, daemon=True).start()
    ready = pathlib.Path(options["--ready-file"])
    partial = ready.with_suffix(".partial")
    partial.write_text(
        json.dumps({"grpc": server.address, "admin": f"127.0.0.1:{admin.server_port}", "pid": os.getpid()})
    )
    partial.rename(ready)
    signal.sigwait([signal.SIGTERM])
    server.stop()


if __name__ == "__main__":
    main()
