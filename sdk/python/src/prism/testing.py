"""A Prism server for tests: the real program on its embedded backends, in a temporary folder. Nothing needs to be installed.

    def test_orders():
        with PrismTestServer(config={"namespace": "orders", "client_api": "pubsub", "backend": {"type": "kafka"}}) as prism:
            client = prism.client()
            client.publish("created", b"...")
            assert next(client.subscribe("created")).payload == b"..."
"""

from __future__ import annotations

import atexit
import json
import os
import pathlib
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import urllib.parse
import urllib.request
import weakref
from concurrent.futures import Future
from typing import Any, Callable, Mapping

from prism.client import Client

__all__ = ["ObjectStoreView", "PrismTestServer", "find_binary"]


def find_binary() -> str:
    """The `prism` program: $PRISM_BINARY, else build/release or build/dev of the checkout, else the one on the PATH."""
    if given := os.environ.get("PRISM_BINARY"):
        if not os.access(given, os.X_OK):
            raise FileNotFoundError(f"PRISM_BINARY={given} is not a program")
        return given
    for start in (pathlib.Path.cwd(), pathlib.Path(__file__).resolve().parent):
        for folder in (start, *start.parents):
            if (folder / "proto" / "prism").is_dir():
                for preset in ("release", "dev"):
                    candidate = folder / "build" / preset / "prism"
                    if os.access(candidate, os.X_OK):
                        return str(candidate)
    if found := shutil.which("prism"):
        return found
    raise FileNotFoundError("no prism program: build it (make build), put it on the PATH, or set PRISM_BINARY")


# For a run of tests as a whole: given the text of a configuration and the folder of its data, the real backends that it is to be served
# with; None: embedded twins.
default_backends: Callable[[str, pathlib.Path], Mapping[str, Any] | None] | None = None


class _Launcher:
    """Starts programs that die with this process, however it ends (where `setpriv` is installed, as on any Linux with util-linux).

    To Linux the parent is the thread that started a program, and the threads that call PrismTestServer may end long before the
    process does: so one thread, which never ends, starts all.
    """

    _lock = threading.Lock()
    _one: _Launcher | None = None

    def __init__(self) -> None:
        self._wanted: queue.SimpleQueue[tuple[Future[subprocess.Popen[bytes]], list[str], dict[str, Any]]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="prism-launcher", daemon=True).start()

    @classmethod
    def start(cls, command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        with cls._lock:
            if cls._one is None:
                cls._one = cls()
            launcher = cls._one
        if setpriv := shutil.which("setpriv"):
            command = [setpriv, "--pdeathsig", "KILL", *command]
        started: Future[subprocess.Popen[bytes]] = Future()
        launcher._wanted.put((started, command, options))
        return started.result()

    @classmethod
    def forget(cls) -> None:
        """In a forked process: the thread is not there."""
        cls._lock = threading.Lock()
        cls._one = None

    def _run(self) -> None:
        while True:
            started, command, options = self._wanted.get()
            try:
                started.set_result(subprocess.Popen(command, **options))
            except BaseException as failure:
                started.set_exception(failure)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_Launcher.forget)


class _Child:
    """The server's process, if it runs; outlives the PrismTestServer that is forgotten without `stop`."""

    process: subprocess.Popen[bytes] | None = None


class PrismTestServer:
    """Runs `prism dev`, or on real backends `prism serve`, until `stop`, the end of a `with` statement, or the end of the process. Its methods may be called by any thread.

    config        a namespace as a dict whose name stands under "namespace", as RFC-014 writes it; or a whole configuration as a dict
                  with "namespaces", as YAML text, or as a path
    namespace     what `client()` is bound to; default: the dict's "namespace"
    binary        the program; default: find_binary()
    data          folder for its data, kept; default: a temporary one, removed by `stop`
    args          further arguments for the program
    backends      connections to real backends by name, as a `backends:` section gives them: {"kafka": {"type": "kafka", ...}}; default:
                  what `default_backends` of this module says, else every backend is its embedded twin
    wait          seconds to wait until it serves
    """

    def __init__(
        self,
        config: Mapping[str, Any] | str | os.PathLike[str],
        *,
        namespace: str | None = None,
        binary: str | None = None,
        data: str | os.PathLike[str] | None = None,
        args: tuple[str, ...] = (),
        backends: Mapping[str, Any] | None = None,
        wait: float = 30,
    ) -> None:
        self._folder = pathlib.Path(tempfile.mkdtemp(prefix="prism-test-"))
        self._data = pathlib.Path(data) if data is not None else self._folder / "data"
        self._binary = binary or find_binary()
        self._args = args
        self._wait = wait
        self._ports = ("0", "0")
        self._life = threading.RLock()  # held while the process is started, stopped or signalled
        self._child = _Child()
        self._stopped = False
        self._clients: weakref.WeakSet[Client] = weakref.WeakSet()
        self._objects: dict[str, ObjectStoreView] = {}
        self.address = ""
        self.admin = ""
        self.namespace = namespace
        self._file = self._write(config)
        if backends is None and default_backends is not None:
            backends = default_backends(self._file.read_text(), self._data)
        self._real = bool(backends)
        if backends:
            self._file = self._connect(backends)
        self._exit = weakref.finalize(self, _remove, self._folder, self._child)
        atexit.register(_stop, weakref.ref(self))
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The server's process."""
        process = self._child.process
        assert process is not None, "the server is stopped"
        return process

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self.process.pid

    @property
    def data(self) -> pathlib.Path:
        """Folder of its data."""
        return self._data

    @property
    def s3(self) -> ObjectStoreView:
        """The object store that the configuration calls s3."""
        return self.objects("s3")

    def objects(self, backend: str) -> ObjectStoreView:
        """The object store that the configuration calls `backend`."""
        return self._objects.setdefault(backend, ObjectStoreView(self, backend))

    def client(self, **options: Any) -> Client:
        """A client bound to the namespace; `options` as of prism.Client. `stop` closes it."""
        options.setdefault("namespace", self.namespace)
        client = Client(self.address, **options)
        with self._life:
            self._clients.add(client)
        return client

    def log(self) -> str:
        """What the server wrote to its standard output and error so far."""
        path = self._folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def get_json(self, path: str, timeout: float = 10) -> Any:
        """Asks the server's admin address."""
        with urllib.request.urlopen(f"http://{self.admin}{path}", timeout=timeout) as answer:
            return json.load(answer)

    def post(self, path: str, body: bytes = b"", timeout: float = 60) -> Any:
        """Changes something by the server's admin address (pauses a job, say), with the server's own token."""
        token = pathlib.Path(self.get_json("/v1/config")["token_file"]).read_text().strip()
        headers = {"Authorization": f"Bearer {token}"}
        request = urllib.request.Request(f"http://{self.admin}{path}", body, headers, method="POST")
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return json.load(answer)

    def kill(self) -> None:
        """SIGKILL: the server ends with no chance to tidy up. `restart` starts it again."""
        with self._life:
            self.process.kill()
            self._join(10)

    def pause(self) -> None:
        """SIGSTOP: the server stands still; its connections stay open."""
        with self._life:
            self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT: it goes on."""
        with self._life:
            self.process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """Stops the server, if it runs, and starts it on the same data and the same addresses, so that clients find it again.

        RuntimeError after `stop`, also one by another thread.
        """
        with self._life:
            if self._stopped:
                raise RuntimeError("the server was stopped for good")
            self._terminate()
            self._start()

    def stop(self) -> None:
        """Closes the clients, stops the server, removes the temporary folder. Stopping twice does no harm."""
        with self._life:
            self._stopped = True
            clients = list(self._clients)
        for client in clients:
            client.close()
        with self._life:
            self._terminate()
            self._exit()

    def __enter__(self) -> PrismTestServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _write(self, config: Mapping[str, Any] | str | os.PathLike[str]) -> pathlib.Path:
        path = self._folder / "prism.yaml"
        if isinstance(config, os.PathLike):
            return pathlib.Path(config)
        if isinstance(config, str):
            path.write_text(config)
            return path
        if "namespaces" not in config:
            body = dict(config)
            name = body.pop("namespace", None)
            if not name:
                raise ValueError('config needs "namespace" (the name), or "namespaces" (a whole configuration)')
            self.namespace = self.namespace or str(name)
            config = {"namespaces": [{"name": name, **body}]}
        path.write_text(json.dumps(config, indent=2))  # JSON is YAML
        return path

    def _connect(self, backends: Mapping[str, Any]) -> pathlib.Path:
        path = self._folder / "connected.yaml"
        text = self._file.read_text()
        try:
            whole = json.loads(text)
        except ValueError:
            path.write_text(f"{text}\nbackends: {json.dumps(backends)}\n")
        else:
            path.write_text(json.dumps({**whole, "backends": {**whole.get("backends", {}), **backends}}, indent=2))
        return path

    def _start(self) -> None:
        ready = self._folder / "ready"
        ready.unlink(missing_ok=True)
        command = [self._binary, "serve" if self._real else "dev", str(self._file), "--port", self._ports[0], "--admin-port", self._ports[1]]
        command += ["--host", "127.0.0.1", "--watch"] if self._real else []  # as `dev` does
        command += ["--data", str(self._data), "--ready-file", str(ready), *self._args]
        with open(self._folder / "log", "ab") as log:
            process = self._child.process = _Launcher.start(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + self._wait
        while not ready.exists():
            if (code := process.poll()) is not None:
                self._child.process = None
                raise RuntimeError(f"prism ended with {code} before it served:\n{self._tail()}")
            if time.monotonic() > deadline:
                self._terminate()
                raise RuntimeError(f"prism did not serve within {self._wait} s:\n{self._tail()}")
            time.sleep(0.01)
        addresses = json.loads(ready.read_text())
        self.address, self.admin = addresses["grpc"], addresses["admin"]
        self._ports = (self.address.rpartition(":")[2], self.admin.rpartition(":")[2])

    def _tail(self) -> str:
        return "\n".join(self.log().splitlines()[-40:])

    def _join(self, timeout: float) -> None:
        self.process.wait(timeout)
        self._child.process = None

    def _terminate(self) -> None:
        process = self._child.process
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)  # a paused one could not end
            process.terminate()
        try:
            self._join(15)
        except subprocess.TimeoutExpired:
            self.kill()


class ObjectStoreView:
    """What the server's embedded object store holds, for tests."""

    def __init__(self, server: PrismTestServer, backend: str) -> None:
        self._server = weakref.ref(server)
        self._backend = backend

    def object_count(self, bucket: str | None = None, timeout: float = 10) -> int:
        """How many objects there are, in one bucket or in all.

        Clean-up runs in the background: the count is taken when the server has answered every acknowledgement of the test's clients and
        its background jobs have nothing left to do. Where something published has not been acknowledged by every group, they have:
        the count is then taken after `timeout` seconds, as it is.
        """
        server = self._server()
        assert server is not None
        deadline = time.monotonic() + timeout
        with server._life:
            clients = list(server._clients)
        for client in clients:
            client.wait_settled(max(0.0, deadline - time.monotonic()))
        query = {"backend": self._backend} | ({"bucket": bucket} if bucket else {})
        path = f"/debug/objects?{urllib.parse.urlencode(query)}"
        while True:
            answer = server.get_json(path, timeout=max(1.0, deadline - time.monotonic()))
            if answer["settled"] or time.monotonic() >= deadline:
                return int(answer["count"])
            time.sleep(0.02)


def _stop(reference: weakref.ref[PrismTestServer]) -> None:
    if server := reference():
        server.stop()


def _remove(folder: pathlib.Path, child: _Child) -> None:
    if (process := child.process) is not None:
        process.kill()
        process.wait(10)
        child.process = None
    shutil.rmtree(folder, ignore_errors=True)
