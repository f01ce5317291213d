"""One server as a process of its own: started on free ports, asked whether it is ready, remembered by process id, stopped by it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

# Below the range of outgoing connections' ports, so that a server that is restarted finds its port free.
_PORTS = range(18000, 32000)


class ServerError(Exception):
    """A server that cannot be started, in words for its user."""


def free_port() -> int:
    for _ in range(200):
        port = random.choice(_PORTS)
        if is_free(port):
            return port
    raise ServerError("no free port was found on 127.0.0.1")


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _born(pid: int) -> str | None:
    """When a process was started, in the kernel's clock ticks; None where there is none. With the id it names one process for good."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def _children(pid: int) -> list[int]:
    try:
        found = [int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return found + [one for child in found for one in _children(child)]


class Server:
    """What all servers share; one kind is one subclass."""

    name = ""
    ports: tuple[str, ...] = ("port",)  # names of the ports that it listens at ...
    lent: tuple[str, ...] = ()  # ... but for these, which it only speaks of
    optional = False  # is not started unless it is named
    stop_signal = signal.SIGTERM
    start_time = 60.0  # seconds

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.folder = root / self.name
        self.data = self.folder / "data"
        self._state_file = self.folder / "state.json"

    # What a kind says.

    def missing(self) -> str | None:
        """What has to be installed before it can start; None when all is there."""
        return None

    def prepare(self) -> None:
        """Writes what the server reads: called before each start, with `self.data` there and the ports known."""

    def command(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """What the server's process finds in its environment, beyond ours."""
        return {}

    def answers(self) -> bool:
        """Asks the server whether it serves. May raise OSError for no."""
        raise NotImplementedError

    def fill(self) -> None:
        """Users and databases: called after each start, so repeating it must do no harm."""

    def variables(self) -> dict[str, str]:
        """What tests find in their environment."""
        raise NotImplementedError

    # What all do.

    @property
    def state(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self._state_file.read_text()))
        except (OSError, ValueError):
            return {}

    def port(self, name: str = "port") -> int:
        return int(self.state["ports"][name])

    @property
    def log(self) -> pathlib.Path:
        return self.folder / "log"

    @property
    def pid(self) -> int | None:
        """Its process, if it runs."""
        state = self.state
        pid = state.get("pid")
        return pid if pid and _born(pid) == state["born"] else None

    def up(self) -> None:
        """Starts it, unless it runs; again on the ports and the data that it had."""
        with self._alone():
            if self.pid and self._ready():
                return
            if self.pid:
                self._stop(signal.SIGKILL)
            if lacking := self.missing():
                raise ServerError(f"{self.name}: {lacking}")
            self.data.mkdir(parents=True, exist_ok=True)
            ports = self.state.get("ports", {})
            deadline = time.monotonic() + self.start_time
            for attempt in range(5):
                if set(ports) != set(self.ports) or not self._can_have(ports):
                    ports = {name: free_port() for name in self.ports}
                self._remember(ports=ports)
                self.prepare()
                process = self._launch()
                self._remember(ports=ports, pid=process.pid, born=_born(process.pid))
                while process.poll() is None and time.monotonic() < deadline:
                    if self._ready():
                        self.fill()
                        return
                    time.sleep(0.02)
                if process.poll() is None:
                    self._stop(signal.SIGKILL)
                    raise ServerError(f"{self.name}: no answer within {self.start_time:.0f} s\n{self._tail()}")
                time.sleep(0.1 * 2**attempt)  # a port was taken in between, or what was killed is not quite gone
            raise ServerError(f"{self.name}: ends at once, with {process.returncode}\n{self._tail()}")

    def down(self, *, remove: bool = False) -> None:
        """Stops it; `remove`: and forgets its data. Does nothing where it does not run."""
        if not self.folder.exists():
            return
        with self._alone():
            self._stop(self.stop_signal)
            if remove:
                shutil.rmtree(self.data, ignore_errors=True)
                self._state_file.unlink(missing_ok=True)

    def send(self, what: signal.Signals) -> None:
        """A signal to its process, SIGKILL until it is gone; one that stops it or lets it go on, to its children too."""
        with self._alone():
            if self.pid is None:
                raise ServerError(f"{self.name}: does not run")
            if what == signal.SIGKILL:
                self._stop(what)
            else:
                for pid in (self.pid, *_children(self.pid)):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, what)

    def openssl_files(self) -> pathlib.Path:
        """The folder of the certificates that all servers share."""
        return self.root / "certificates"

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _can_have(self, ports: dict[str, int]) -> bool:
        """The children of a process that was killed hold its ports a little longer."""
        deadline = time.monotonic() + 3
        while not all(name in self.lent or is_free(port) for name, port in ports.items()):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def _remember(self, **state: Any) -> None:
        draft = self._state_file.with_suffix(".new")
        draft.write_text(json.dumps(state))
        draft.rename(self._state_file)

    def _launch(self) -> subprocess.Popen[bytes]:
        with open(self.log, "ab") as log:
            return subprocess.Popen(
                self.command(),
                cwd=self.data,
                env=os.environ | self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C at the terminal that started it is not meant for it
            )

    def _ready(self) -> bool:
        try:
            return self.answers()
        except OSError:
            return False

    def _stop(self, how: signal.Signals) -> None:
        for what, wait in ((how, 20.0), (signal.SIGKILL, 10.0)):
            pid = self.pid
            if pid is None:
                break
            for one in (pid, *_children(pid)):  # paused ones could not end
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one, signal.SIGCONT)
            os.kill(pid, what)
            deadline = time.monotonic() + wait
            while self.pid is not None and time.monotonic() < deadline:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
                time.sleep(0.01)
        if self.pid is not None:
            raise ServerError(f"{self.name}: process {self.pid} does not end")

    def _tail(self) -> str:
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-25:])
        except OSError:
            return ""
