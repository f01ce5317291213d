"""The README's own commands, run as they stand there, and the documents' links.

Fenced blocks say by their info string what becomes of them:
  ```sh server     is started in the background and must get ready; ports are chosen freely
  ```sh test       runs to its end in one folder with the blocks before it, and must succeed
  ```python test   runs with the client installed
"""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")


def blocks(document: pathlib.Path) -> list[tuple[str, str]]:
    return [(m["info"].strip(), m["text"]) for m in FENCE.finditer(document.read_text())]


class Server:
    """A `prism dev ...` line of the README, on free ports."""

    def __init__(self, line: str, folder: pathlib.Path, environment: dict[str, str]) -> None:
        ready = folder / "ready.json"
        self.log = open(folder / "server.log", "w+")
        self.process = subprocess.Popen(
            ["bash", "-c", f"exec {line} --port 0 --admin-port 0 --ready-file {ready}"],
            cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT,
        )
        deadline = time.monotonic() + 60
        while not ready.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise AssertionError(f"{line}: does not get ready:\n{self.output()}")
            time.sleep(0.02)
        self.address = json.loads(ready.read_text())["grpc"]

    def output(self) -> str:
        self.log.seek(0)
        return self.log.read()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def test_the_tour(tmp_path: pathlib.Path) -> None:
    program = pathlib.Path(os.environ.get("PRISM_BINARY", ROOT / "build" / "release" / "prism")).resolve()
    assert program.is_file(), f"{program} is not built"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "prism").symlink_to(program)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    servers: list[Server] = []
    ran = []
    try:
        for info, text in blocks(ROOT / "README.md"):
            if info == "sh server":
                servers.append(Server(text.strip(), tmp_path, environment))
                environment["PRISM_ADDRESS"] = servers[-1].address
                ran.append(info)
            elif info in ("sh test", "python test"):
                if info == "sh test":
                    command = ["bash", "-euxo", "pipefail", "-c", text]
                else:
                    assert servers, "a program of the README needs a server before it"
                    command = [sys.executable, "-c", text.replace("localhost:8980", servers[-1].address)]
                done = subprocess.run(command, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
                assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}\n{servers[-1].output() if servers else ''}"
                ran.append(info)
    finally:
        for server in servers:
            server.stop()
    assert {"sh server", "sh test", "python test"} <= set(ran), "the README lost a part of its tour"
    assert all(server.process.returncode == 0 for server in servers), servers[-1].output()


def test_the_two_commands_are_targets() -> None:
    commands = [line.split("#")[0].strip() for info, text in blocks(ROOT / "README.md") if info == "sh" for line in text.splitlines()]
    assert "make run" in commands and "make test" in commands
    for command in commands:
        # `+` in a recipe would run even now; nothing is built.
        done = subprocess.run([*command.split(), "--dry-run"], cwd=ROOT, capture_output=True, text=True, env={**os.environ, "MAKEFLAGS": ""})
        assert done.returncode == 0, done.stderr


def documents() -> list[pathlib.Path]:
    folders = ("docs", "src", "sdk", "examples", "proto", "bench", "tests")
    found = [*ROOT.glob("*.md"), *(path for folder in folders for path in (ROOT / folder).rglob("*.md"))]
    return sorted(path for path in found if not any(part.startswith(".") or part == "node_modules" for part in path.relative_to(ROOT).parts))


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: pathlib.Path) -> None:
    text = FENCE.sub("", document.read_text())
    for match in LINK.finditer(text):
        target = match["target"].split("#")[0]
        if not target or "://" in target or target.startswith("mailto:"):
            continue
        assert (document.parent / target).exists(), f"{document.relative_to(ROOT)}: {match['target']} leads nowhere"


def test_paths_in_the_architecture_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    for path in re.findall(r"`(src/[\w./]+)`", text):
        assert (ROOT / path).exists(), f"docs/architecture.md names {path}"
