"""The quickstart's demonstration: real files and a stream of orders through outbox and claim check, to two consumer groups each.

    prism dev examples/quickstart.yaml                                # in one terminal
    python examples/demo.py [FILE ...]                                # in another, with the client of sdk/python installed

Shows, for the first file, what each layer holds at each moment; compares every payload's SHA-256; ends with 0 only if all is as it
should be. `make run` does both.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import shutil
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from typing import Any, BinaryIO, Callable, Iterator

import prism

MB = 1_000_000
LARGE = 20 * MB  # at least one payload above this
MEDIA_GROUPS = ("archive", "thumbnails")
ORDER_GROUPS = ("billing", "shipping")
RUN = uuid.uuid4().hex  # events of earlier runs on the same data are recognised by it

failures: list[str] = []


# --- what is printed ---------------------------------------------------------------------------------------------------------------


def say(text: str = "") -> None:
    print(text, flush=True)


def check(good: bool, what: str) -> None:
    say(f"    {'ok ' if good else 'FAILED '} {what}")
    if not good:
        failures.append(what)


def human(size: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError


class Bar:
    """A progress bar on a terminal; elsewhere one line where a long transfer begins."""

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total, self.done = what, max(total, 1), 0
        self.begun = self.drawn = time.monotonic()
        self.tty = sys.stdout.isatty()
        if not self.tty and total > 4 * LARGE:
            say(f"    {what}: {human(total)} ...")

    def set(self, done: int) -> None:
        self.done = done
        now = time.monotonic()
        if self.tty and now - self.drawn >= 0.1:
            self.drawn = now
            self._draw()

    def _draw(self) -> None:
        share = min(1.0, self.done / self.total)
        width = max(10, min(40, shutil.get_terminal_size().columns - 60))
        rate = self.done / max(0.001, time.monotonic() - self.begun)
        bar = "#" * int(share * width)
        print(f"\r\033[K    {self.what}  [{bar:-<{width}}] {share:4.0%}  {human(self.done)}  {human(rate)}/s", end="", flush=True)

    def close(self) -> None:
        if self.tty:
            print("\r\033[K", end="", flush=True)


# --- the server's admin address ----------------------------------------------------------------------------------------------------


class Admin:
    def __init__(self, address: str) -> None:
        self.address = address

    def get(self, path: str, **query: str) -> Any:
        return self._ask("GET", path, query)

    def post(self, path: str, **query: str) -> Any:
        return self._ask("POST", path, query)

    def _ask(self, method: str, path: str, query: dict[str, str]) -> Any:
        url = f"http://{self.address}{path}?{urllib.parse.urlencode(query)}"
        request = urllib.request.Request(url, method=method, data=b"" if method == "POST" else None)
        if method == "POST":  # what changes something asks for the secret that lies in the server's data folder
            token = pathlib.Path(self.get("/v1/config")["token_file"]).read_text().strip()
            request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def holds(self, namespace: str, pattern: str) -> dict[str, str]:
        parts = self.get("/debug/inspect", namespace=namespace)["patterns"]
        return next(part["holds"] for part in parts if part["pattern"] == pattern)

    def records(self, namespace: str) -> tuple[int, dict[str, Any] | None]:
        """How many records the namespace's topics have, and the last one."""
        count, last = 0, None
        for topic in self.get("/debug/topics", namespace=namespace)["topics"]:
            for partition in topic["partitions"]:
                count += partition["end"]
                last = partition.get("last_record", last)
        return count, last

    def set_relay(self, namespace: str, running: bool) -> None:
        name = f"{namespace}/outbox/relay"
        self.post("/jobs/resume" if running else "/jobs/pause", name=name)
        if not running:
            until(
                lambda: all(job["state"] in ("paused", "waiting") for job in self.get("/jobs")["jobs"] if job["name"] == name),
                "the relay pauses",
            )

    def delivered_bytes(self) -> int:
        with urllib.request.urlopen(f"http://{self.address}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        return sum(int(float(n)) for n in re.findall(r"^prism_delivered_bytes_total\{[^}]*\} (\S+)$", text, re.M))


def until(condition: Callable[[], Any], what: str, timeout: float = 60) -> Any:
    deadline = time.monotonic() + timeout
    while True:
        if found := condition():
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout:.0f} s: {what}")
        time.sleep(0.05)


# --- files -------------------------------------------------------------------------------------------------------------------------


class Upload:
    """A file as a payload: counts and hashes what is read."""

    def __init__(self, path: pathlib.Path) -> None:
        self.file: BinaryIO = open(path, "rb")
        self.size = os.fstat(self.file.fileno()).st_size
        self.digest = hashlib.sha256()
        self.bar = Bar(f"publishing {path.name}", self.size)

    def __iter__(self) -> Iterator[bytes]:
        while piece := self.file.read(512 * 1024):
            self.digest.update(piece)
            self.bar.set(self.file.tell())
            yield piece
        self.bar.close()
        self.file.close()


def sha256_of(source: BinaryIO) -> str:
    digest = hashlib.sha256()
    while piece := source.read(1 << 20):
        digest.update(piece)
    return digest.hexdigest()


def find_files(program: str | None) -> list[pathlib.Path]:
    """The program itself and a few large files of this machine; at least one above 20 MB."""
    found: dict[pathlib.Path, int] = {}
    deadline = time.monotonic() + 2
    for top in ("/usr/lib", "/usr/bin", "/usr/share", "/opt"):
        for folder, _, names in os.walk(top):
            if time.monotonic() > deadline:
                break
            for name in names:
                path = pathlib.Path(folder, name)
                try:
                    if path.is_file() and not path.is_symlink() and os.access(path, os.R_OK):
                        found[path] = path.stat().st_size
                except OSError:
                    pass  # gone meanwhile, or not ours to see
    chosen = [pathlib.Path(program).resolve()] if program else []
    chosen += sorted((p for p, size in found.items() if LARGE < size < 200 * MB), key=lambda p: -found[p])[:2]
    chosen += sorted((p for p, size in found.items() if 2 * MB < size < 10 * MB), key=lambda p: -found[p])[:1]
    if all(path.stat().st_size <= LARGE for path in chosen):
        made = pathlib.Path(tempfile.mkdtemp(prefix="prism-demo-"), "random-32MB")
        made.write_bytes(os.urandom(32 * MB))
        chosen.insert(0, made)
    return chosen


# --- the demonstration -------------------------------------------------------------------------------------------------------------


def next_of_this_run(subscriber: prism.Subscriber) -> prism.Event:
    while True:
        event = subscriber.next(timeout=300)
        if event.metadata.get("run") == RUN:
            return event
        event.ack()  # left over from an earlier run


def one_file_layer_by_layer(client: prism.Client, admin: Admin, path: pathlib.Path) -> None:
    say(f"\n1. One file, layer by layer: {path} ({human(path.stat().st_size)})")
    objects_before = int(admin.holds("media", "claim-check")["objects"])
    records_before, _ = admin.records("media")
    with (
        client.subscribe("media", "archive", auto_ack=False) as archive,
        client.subscribe("media", "thumbnails", auto_ack=False) as thumbnails,
    ):
        say("  The relay from the outbox to the log is paused for a moment, so that the row can be looked at.")
        admin.set_relay("media", running=False)
        try:
            upload = Upload(path)
            begun = time.monotonic()
            answer = client.publish("media", upload, {"run": RUN, "name": path.name}, content_type="application/octet-stream")
            took = time.monotonic() - begun
            sent = upload.digest.hexdigest()
            say(f"  published   {human(upload.size)} in {took:.2f} s ({human(upload.size / took)}/s), answered as {answer.durability.name}: {answer.id}")

            row, stored = admin.holds("media", "outbox"), admin.holds("media", "claim-check")
            say(f"  outbox      row {row['newest_row_id']} of {row['table']}: claim_check_id {row['newest_row_claim_check_id']},"
                f" payload {int(row['newest_row_payload_bytes']):,} bytes, {row['newest_row_body_bytes'] or 0} of them in the row")
            check(row["newest_row_message_id"] == answer.id and int(row["pending"]) == 1, "the row is committed and not yet published")
            say(f"  object      {stored['backend']}://{stored['bucket']}/{stored['newest_object']} ({int(stored['newest_object_bytes']):,} bytes)")
            check(int(stored["objects"]) == objects_before + 1 and int(stored["newest_object_bytes"]) == upload.size, "the payload is one object, whole")
            records, _ = admin.records("media")
            check(records == records_before, "nothing is on the log yet")
        finally:
            admin.set_relay("media", running=True)

        def arrived() -> dict[str, Any] | None:
            count, last = admin.records("media")
            return last if count > records_before else None

        record = until(arrived, "the relay brings the row to the log")
        say(f"  log         record {record['id']}: {record['record_bytes']} bytes with its headers, for a payload of {human(upload.size)}")
        check(record["id"] == answer.id and record["record_bytes"] < 1024, "the record is a reference of less than 1 KB")
        check(until(lambda: admin.holds("media", "outbox")["pending"] == "0", "the row is done"), "the row is done and gone")

        bar, before = Bar("receiving", 2 * upload.size), admin.delivered_bytes()
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(next_of_this_run, subscriber) for subscriber in (archive, thumbnails)]
            while concurrent.futures.wait(waiting, timeout=0.2).not_done:
                bar.set(admin.delivered_bytes() - before)
            bar.close()
            first, second = (future.result() for future in waiting)
        for group, event in (("archive", first), ("thumbnails", second)):
            say(f"  {group:<11} {event.size:,} bytes, sha256 {sha256_of(event.open())[:16]}…")
        check(sha256_of(first.open()) == sent and sha256_of(second.open()) == sent, "both groups have the same bytes as were published")

        first.ack().result(30)
        check(int(admin.holds("media", "claim-check")["objects"]) == objects_before + 1, "archive has acknowledged: the object stays for thumbnails")
        second.ack().result(30)

        def cleaned() -> bool:
            return int(admin.holds("media", "claim-check")["objects"]) == objects_before

        check(until(cleaned, "the object is cleaned up"), "thumbnails has acknowledged too: the object is gone")


def files_to_both_groups(client: prism.Client, admin: Admin, paths: list[pathlib.Path]) -> None:
    say(f"\n2. {len(paths)} more file{'s' if len(paths) > 1 else ''}, received by both groups as they come")
    received: dict[str, dict[str, str]] = {group: {} for group in MEDIA_GROUPS}

    def consume(group: str) -> None:
        with client.subscribe("media", group, auto_ack=False) as subscriber:
            while len(received[group]) < len(paths):
                event = next_of_this_run(subscriber)
                received[group][event.id] = sha256_of(event.open())
                event.ack().result(30)

    sent: dict[str, str] = {}
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        consumers = [pool.submit(consume, group) for group in MEDIA_GROUPS]
        for path in paths:
            upload = Upload(path)
            begun = time.monotonic()
            answer = client.publish("media", upload, {"run": RUN, "name": path.name})
            took = time.monotonic() - begun
            sent[answer.id] = upload.digest.hexdigest()
            say(f"  published   {path.name}: {human(upload.size)} in {took:.2f} s")
        for consumer in consumers:
            consumer.result(600)
    for group in MEDIA_GROUPS:
        check(received[group] == sent, f"{group}: {len(sent)} payload{'s' if len(sent) > 1 else ''}, every checksum as published")
    until(lambda: admin.get("/debug/objects", backend="s3")["count"] == 0, "all objects are cleaned up")
    check(True, "no object is left")


def orders_in_order(client: prism.Client, count: int) -> None:
    customers = 50
    say(f"\n3. {count:,} orders of {customers} customers as a stream, to the groups {' and '.join(ORDER_GROUPS)}")
    expected = hashlib.sha256()
    received: dict[str, list[tuple[str, int]]] = {group: [] for group in ORDER_GROUPS}
    ready = threading.Barrier(len(ORDER_GROUPS) + 1)

    def consume(group: str) -> None:
        got, seen = received[group], set[int]()
        with client.subscribe("orders", group, auto_ack=False, max_messages=10_000) as subscriber:
            ready.wait(30)
            while len(seen) < count:
                event = next_of_this_run(subscriber)
                order = event.json()
                if order["number"] not in seen:  # at least once: a repeat carries the same id
                    seen.add(order["number"])
                    got.append((event.key, order["number"]))
                event.ack()
            subscriber.wait_settled(30)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        consumers = [pool.submit(consume, group) for group in ORDER_GROUPS]
        ready.wait(30)
        bar, begun = Bar("publishing orders", count), time.monotonic()
        with client.publisher() as publisher:
            futures = []
            for number in range(count):
                payload = json.dumps({"number": number, "amount": number % 997})
                expected.update(payload.encode())
                futures.append(publisher.send("orders", payload, {"run": RUN}, key=f"customer-{number % customers}"))
                if number % 1000 == 0:
                    bar.set(number)
            publisher.flush(300)
        published = time.monotonic() - begun
        for future in futures:
            future.result()
        bar.close()
        for consumer in consumers:
            consumer.result(600)
        took = time.monotonic() - begun
    say(f"  published   {count / published:,.0f} orders/s, each committed to disk; all received by both groups after {took:.2f} s")
    for group in ORDER_GROUPS:
        by_customer: dict[str, list[int]] = {}
        for key, number in received[group]:
            by_customer.setdefault(key, []).append(number)
        numbers = sorted(number for _, number in received[group])
        check(numbers == list(range(count)), f"{group}: every order")
        check(all(run == sorted(run) for run in by_customer.values()), f"{group}: in order for each customer")


def peak_rss(pid: int) -> int:
    """Bytes."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"^VmHWM:\s+(\d+) kB", status, re.M)[1]) * 1024  # type: ignore[index]


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("files", nargs="*", type=pathlib.Path, help="files to publish; default: large ones found on this machine")
    arguments.add_argument("--address", default="127.0.0.1:8980", help="where the server is")
    arguments.add_argument("--admin", default="127.0.0.1:8981", help="its admin address")
    arguments.add_argument("--orders", type=int, default=20_000, help="how many orders are published")
    arguments.add_argument("--pid", type=int, help="the server's process, to report its memory")
    arguments.add_argument("--program", help="the prism program, one of the files found")
    options = arguments.parse_args()

    files = options.files or find_files(options.program)
    for path in files:
        if not path.is_file():
            say(f"{path} is no file")
            return 2
    admin = Admin(options.admin)
    begun = time.monotonic()
    try:
        with prism.Client(options.address, client_name="demo") as client:
            first = max(files, key=lambda path: path.stat().st_size)
            one_file_layer_by_layer(client, admin, first)
            if others := [path for path in files if path != first]:
                files_to_both_groups(client, admin, others)
            orders_in_order(client, options.orders)
    except (prism.PrismError, TimeoutError, urllib.error.URLError) as error:
        failures.append(str(error))
        say(f"    FAILED {error}")
    say()
    if options.pid:
        say(f"Memory of the server at its peak: {human(peak_rss(options.pid))}; largest payload: {human(max(p.stat().st_size for p in files))}")
    say(f"{'All as it should be' if not failures else f'{len(failures)} FAILED'}, in {time.monotonic() - begun:.1f} s")
    return 0 if not failures else 1


if __name__ == "__main__":
    sys.exit(main())
