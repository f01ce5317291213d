"""Wrong and right configuration files through the program itself; all of them are read in tests/config/corpus_test.cc."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess

import pytest
from program import Cli

CORPUS = pathlib.Path(__file__).parent.parent / "config"
SECRET = "s3cr3t-value"
EXPECTATION = re.compile(r"^ *# (error|warning) (\d+):(\d+) ([A-Z_]+)", re.MULTILINE)

WRONG = [
    "claim-check-threshold-unit-short",
    "composition-backend",
    "outbox-table-injection",
    "patterns-entry-keyed-by-name",
    "several-namespaces-all-mistakes",
    "shared-outbox-table",
    "substitution-variable-missing",
    "yaml-bom-and-mistake",
    "yaml-duplicate-keys-and-more",
    "yaml-tab-indent",
    "yaml-unclosed-double-quote",
]


def expected(file: pathlib.Path) -> list[tuple[str, int, int, str]]:
    found = EXPECTATION.findall(file.read_text(encoding="utf-8-sig"))
    return sorted((severity, int(line), int(column), reason) for severity, line, column, reason in found)


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Cli:
    for name, value in {"SECRET": SECRET, "STAGE": "test", "BACKEND": "kafka", "FLAG": "false", "SIZE": "1MB"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NOT_SET", raising=False)
    return Cli()


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_ends_with_1_and_every_mistake_in_both_formats(program: Cli, name: str) -> None:
    # proves: F-26
    file = CORPUS / "wrong" / f"{name}.yaml"
    text = program("validate", file)
    assert text.returncode == 1
    for severity, line, column, reason in expected(file):
        assert re.search(rf"^{re.escape(str(file))}:{line}:{column}: {severity}: .+ \[{reason}\]$", text.stderr, re.MULTILINE), text.stderr
    errors = sum(severity == "error" for severity, *_ in expected(file))
    assert f"{errors} error" in text.stderr.splitlines()[-1]

    report = program("validate", file, "--format", "json")
    assert report.returncode == 1
    found = json.loads(report.stdout)
    assert found["valid"] is False
    assert sorted((d["severity"], d["line"], d["column"], d["reason"]) for d in found["diagnostics"]) == expected(file)


@pytest.mark.parametrize("file", sorted((CORPUS / "right").glob("*/*.yaml"))[::9], ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_a_right_file_ends_with_0_and_shows_its_warnings(program: Cli, file: pathlib.Path) -> None:
    text = program("validate", file)
    assert text.returncode == 0, text.stderr
    for severity, line, column, reason in expected(file):
        assert severity == "warning"
        assert re.search(rf":{line}:{column}: warning: .+ \[{reason}\]$", text.stderr, re.MULTILINE), text.stderr


def test_what_cannot_be_read_ends_with_2(program: Cli, tmp_path: pathlib.Path) -> None:
    assert program("validate", tmp_path / "missing.yaml").returncode == 2
    folder = program("validate", tmp_path)
    assert folder.returncode == 2
    assert "folder" in folder.stderr


def test_secrets_are_printed_by_no_command(program: Cli, tmp_path: pathlib.Path) -> None:
    for name in ("secret-as-everything", "secret-as-number", "secret-file", "secret-with-text-around", "backends-kafka-password-without-user"):
        file = CORPUS / "wrong" / f"{name}.yaml"
        for arguments in (["validate", file], ["validate", file, "--format", "json"], ["dev", file, "--port", "0", "--admin-port", "0", "--data", tmp_path]):
            done = program(*arguments)
            assert done.returncode != 0
            assert SECRET not in done.stdout + done.stderr, (name, arguments[0])


def test_a_server_shows_no_secret_in_its_log(program: Cli, tmp_path: pathlib.Path) -> None:
    config = tmp_path / "prism.yaml"
    config.write_text(
        "backends:\n"
        '  events: {type: kafka, brokers: [kafka-1:9092], user: prism, password: "${env:SECRET}"}\n'
        '  main: {type: postgres, host: db, user: prism, password: "${file:secret.txt}"}\n'
        "namespaces: [{name: orders, backend: events, pattern: outbox, database: main}]\n"
    )
    (tmp_path / "secret.txt").write_text(SECRET + "\n")
    for format_ in ("text", "json"):
        good = program("validate", config, "--format", format_)
        assert good.returncode == 0, good.stderr
        assert SECRET not in good.stdout + good.stderr
    ready = tmp_path / "ready"
    server = program.start("dev", config, "--port", "0", "--admin-port", "0", "--data", tmp_path / "data", "--ready-file", ready)
    try:
        for _ in range(600):
            if ready.exists() or server.poll() is not None:
                break
            try:
                server.wait(timeout=0.05)
            except subprocess.TimeoutExpired:
                continue
        assert ready.exists()
    finally:
        server.terminate()
        out, err = server.communicate(timeout=60)
    assert SECRET not in out + err
    assert not any(SECRET in file.read_text(errors="ignore") for file in (tmp_path / "data").rglob("*") if file.is_file())


def test_files_stay_small() -> None:
    assert all(os.path.getsize(file) < 20_000 for file in CORPUS.rglob("*.yaml"))
