"""The command line, as a user meets it. proves: A-07, A-10, A-11, C-18, C-29, S-01 (see docs/requirements.md)"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import re
import signal
import subprocess

import pytest

from program import Cli
from prism.testing import PrismTestServer


def sha256(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- publish and subscribe ---------------------------------------------------------------------------------------------------------


def test_a_text_is_published_and_received(cli: Cli) -> None:
    published = cli("publish", "orders", "hello", "--key", "customer-1", "--metadata", "a=b=c", "--metadata", "x=", "--format", "json")
    assert published.returncode == 0, published.stderr
    answer = json.loads(published.stdout)
    assert answer["durability"] == "fsync" and answer["bytes"] == 5 and answer["id"] and answer["position"]

    received = cli("subscribe", "orders", "--group", "cli", "--count", "1", "--timeout", "30", "--format", "json")
    assert received.returncode == 0, received.stderr
    event = json.loads(received.stdout)
    assert (event["id"], event["payload"], event["ordering_key"]) == (answer["id"], "hello", "customer-1")
    assert event["metadata"] == {"a": "b=c", "x": ""} and event["attempt"] == 1


def test_what_was_received_is_acknowledged_and_another_group_gets_it_too(cli: Cli) -> None:
    assert cli("publish", "plain", "only once").returncode == 0
    first = cli("subscribe", "plain", "--group", "g1", "--count", "1", "--timeout", "30")
    assert (first.returncode, first.stdout) == (0, "only once\n")
    again = cli("subscribe", "plain", "--group", "g1", "--count", "1", "--timeout", "1")
    assert (again.returncode, again.stdout) == (4, "")
    other = cli("subscribe", "plain", "--group", "g2", "--count", "1", "--timeout", "30")
    assert (other.returncode, other.stdout) == (0, "only once\n")


def test_a_file_of_50_mb_and_standard_input_arrive_unchanged(cli: Cli, server: PrismTestServer, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "movie"
    file.write_bytes(os.urandom(1 << 20) * 50)
    assert cli("publish", "media", "--file", file, "--id", "the-movie", "--content-type", "video/mp4").returncode == 0
    piped = os.urandom(3_000_000)
    assert cli("publish", "media", "--file", "-", "--id", "piped", stdin=piped).returncode == 0

    out = tmp_path / "received"
    received = cli("subscribe", "media", "--group", "cli", "--count", "2", "--timeout", "60", "--output", out, "--format", "json")
    assert received.returncode == 0, received.stderr
    events = {event["id"]: event for event in map(json.loads, received.stdout.splitlines())}
    assert events["the-movie"]["size"] == 50 << 20 and events["the-movie"]["content_type"] == "video/mp4"
    assert pathlib.Path(events["the-movie"]["file"]) == out / "the-movie"
    assert sha256(out / "the-movie") == sha256(file)
    assert (out / "piped").read_bytes() == piped
    assert sorted(path.name for path in out.iterdir()) == ["piped", "the-movie"]
    assert server.s3.object_count() == 0


def test_a_repeated_id_can_be_told(cli: Cli) -> None:
    one = json.loads(cli("publish", "plain", "x", "--id", "same", "--format", "json").stdout)
    assert one["id"] == "same"


def test_an_id_cannot_lead_out_of_the_folder(cli: Cli, tmp_path: pathlib.Path) -> None:
    assert cli("publish", "tasks", "x", "--id", "../../evil", "--namespace", "tasks").returncode in (0, 1)
    cli("publish", "plain", "y", "--id", "../up", "--namespace", "plain")
    out = tmp_path / "deep" / "er"
    assert cli("subscribe", "plain", "--group", "paths", "--timeout", "2", "--output", out).returncode == 0
    assert {path.parent for path in tmp_path.rglob("*") if path.is_file()} == {out}


def test_errors_of_the_server_have_reason_and_hint(cli: Cli) -> None:
    refused = cli("publish", "nowhere", "x")
    assert refused.returncode == 1 and refused.stdout == ""
    assert re.fullmatch(r"error: .*nowhere.* \[NAMESPACE_NOT_FOUND\]\n  hint: .+\n", refused.stderr), refused.stderr
    as_json = cli("publish", "nowhere", "x", "--format", "json")
    error = json.loads(as_json.stdout)["error"]
    assert as_json.returncode == 1 and error["reason"] == "NAMESPACE_NOT_FOUND" and error["code"] == "NOT_FOUND"


def test_no_server_is_told_apart_from_a_refusal(program: Cli) -> None:
    nobody = program("publish", "orders", "x", "--address", "127.0.0.1:1")
    assert nobody.returncode == 3 and "no server answers at 127.0.0.1:1" in nobody.stderr
    assert program("subscribe", "orders", "--address", "127.0.0.1:1", "--timeout", "20").returncode == 3


def test_bad_arguments_are_told_before_anything_is_sent(program: Cli, tmp_path: pathlib.Path) -> None:
    for arguments in (
        ["publish"],
        ["publish", "orders", "x", "--file", "y"],
        ["publish", "orders", "--file", str(tmp_path / "missing")],
        ["publish", "orders", "x", "--metadata", "no-equals-sign"],
        ["publish", "orders", "x", "--format", "xml"],
        ["subscribe", "orders", "--start", "yesterday"],
        ["subscribe", "orders", "--count", "many"],
        ["frobnicate"],
        [],
    ):
        refused = program(*arguments)
        assert refused.returncode == 2, (arguments, refused)
        assert refused.stderr and not refused.stdout


def test_subscribe_ends_with_ctrl_c(cli: Cli) -> None:
    cli("publish", "plain", "before")
    subscriber = cli.start("subscribe", "plain", "--group", "ctrl-c")
    assert subscriber.stdout is not None and subscriber.stdout.readline()  # it is under way
    subscriber.send_signal(signal.SIGINT)
    assert subscriber.wait(60) == 0


# --- version, help, completions, validate ---------------------------------------------------------------------------------------------


def test_version_and_help(program: Cli) -> None:
    version = program("version").stdout.strip()
    assert re.fullmatch(r"prism \d+\.\d+\.\d+", version)
    assert program("--version").stdout.strip() == version
    assert f"prism {json.loads(program('version', '--format', 'json').stdout)['version']}" == version
    text = program("--help").stdout
    for command in ("dev", "serve", "validate", "publish", "subscribe", "version", "completions"):
        assert re.search(rf"^  {command}  ", text, re.M), command
        own = program(command, "--help")
        assert own.returncode == 0 and "Usage: prism" in own.stdout.replace("\n", " "), own.stdout
    assert "Exit codes" in text and "Examples" in text


@pytest.mark.parametrize("shell, check", [("bash", ["bash", "-n"]), ("zsh", None), ("fish", None)])
def test_completions_know_every_command_and_option(program: Cli, shell: str, check: list[str] | None) -> None:
    script = program("completions", shell).stdout
    for word in ("dev", "validate", "subscribe", "ready-file", "metadata", "format"):
        assert word in script
    if check:
        subprocess.run(check, input=script, text=True, check=True)
        question = "COMP_WORDS=(prism pub); COMP_CWORD=1; _prism; echo ${COMPREPLY[@]}; COMP_WORDS=(prism publish x --me); COMP_CWORD=3; _prism; echo ${COMPREPLY[@]}"
        answer = subprocess.run([shell, "-c", script + question], capture_output=True, text=True, check=True)
        assert answer.stdout.split() == ["publish", "--metadata"]


def test_validate_says_what_is_wrong_and_where(program: Cli, tmp_path: pathlib.Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("namespaces:\n  - name: a\n    backend: kafka\n    patterns:\n      - type: claim-check\n        treshold: 1MB\n      - type: outbox\n        publisher: {interval: soon}\n")
    found = program("validate", wrong)
    assert found.returncode == 1 and found.stdout == ""
    assert f"{wrong}:6:9: error: " in found.stderr and "threshold" in found.stderr and "[UNKNOWN_OPTION]" in found.stderr
    assert f"{wrong}:8:31: error: " in found.stderr and "[INVALID_DURATION]" in found.stderr

    report = json.loads(program("validate", wrong, "--format", "json").stdout)
    assert report["valid"] is False
    assert {(d["line"], d["column"], d["reason"]) for d in report["diagnostics"] if d["severity"] == "error"} == {
        (6, 9, "UNKNOWN_OPTION"),
        (8, 31, "INVALID_DURATION"),
    }


def test_validate_exit_codes(program: Cli, config_file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    good = program("validate", config_file)
    assert good.returncode == 0 and "4 namespaces" in good.stdout, good
    report = json.loads(program("validate", config_file, "--format", "json").stdout)
    assert report["valid"] and [ns["name"] for ns in report["namespaces"]] == ["media", "orders", "plain", "tasks"]
    assert program("validate", tmp_path / "missing.yaml").returncode == 2
    broken = tmp_path / "broken.yaml"
    broken.write_text("namespaces: [\n")
    assert program("validate", broken).returncode == 1


def test_check_asks_the_backends(program: Cli, tmp_path: pathlib.Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(f"backends: {{log: {{type: sqlite, path: {tmp_path}/log.db}}}}\nnamespaces: [{{name: a, client_api: pubsub, backend: log}}]\n")
    bad.write_text("namespaces: [{name: a, client_api: pubsub, backend: kafka}]\n")
    done = program("check", good)
    assert done.returncode == 0 and done.stdout.startswith("log "), done
    done = program("check", bad, "--format", "json")
    answer = json.loads(done.stdout)
    (backend,) = answer["backends"]
    assert done.returncode == 1 and not answer["good"] and not backend["answers"]
    assert backend["error"]["reason"] == "BACKEND_NOT_CONFIGURED" and backend["namespaces"] == ["a"]
    assert program("check", tmp_path / "missing.yaml").returncode == 2


def test_the_quickstart_is_valid(program: Cli) -> None:
    quickstart = pathlib.Path(__file__).parents[2] / "examples" / "quickstart.yaml"
    found = program("validate", quickstart)
    assert (found.returncode, found.stderr) == (0, "")
