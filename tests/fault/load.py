"""Load for the fault tests: publishers that repeat what was not answered, consumers that record what comes."""

from __future__ import annotations

import random
import threading
import time
from typing import Callable, Iterator, Sequence

import prism
from checker import History, digest_of
from prism.testing import PrismTestServer

THRESHOLD = 64_000
CONFIG = {
    "namespaces": [
        {
            "name": "load",
            "client_api": "pubsub",
            "patterns": [
                {"type": "outbox", "database": "postgres", "publisher": {"interval": "20ms"}},
                {
                    "type": "claim-check",
                    "threshold": THRESHOLD,
                    "storage": "s3",
                    "cleanup": {"strategy": "on_consume", "orphan_age": "40s", "interval": "100ms"},
                },
                {"type": "pub-sub"},
            ],
            "pub_sub": {"consumer_groups": [{"name": "one"}, {"name": "two"}]},
            "backend": {"type": "kafka", "partitions": 4},
        }
    ]
}
GROUPS = ("one", "two")
TOPIC = "events"


def until(condition: Callable[[], bool], timeout: float) -> bool:
    """Polls; False if the condition did not come true in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


class Load:
    """Runs publishers and consumers (of each group one, or as many as asked for) against the servers until `finish`.

    Each publisher owns its keys and publishes a key's next message only when the one before was answered; what failed is repeated with
    the same id, against the next server. A consumer that loses its server goes on, with another one if there is one.
    """

    def __init__(self, servers: Sequence[PrismTestServer], publish_to: Sequence[PrismTestServer], consume_from: Sequence[PrismTestServer], *,
                 publishers: int = 4, keys: int = 3, seed: int = 1, consumers: int = 1) -> None:
        self.history = History(GROUPS)
        self.unexpected: list[BaseException] = []
        self._servers = servers
        self._stop_publishing, self._stop_consuming = threading.Event(), threading.Event()
        self._publishers = [threading.Thread(target=self._guard, args=(self._publish, n, keys, publish_to, seed), daemon=True) for n in range(publishers)]
        self._consumers = [
            threading.Thread(target=self._guard, args=(self._consume, group, consume_from, n % len(consume_from)), daemon=True)
            for group in GROUPS
            for n in range(consumers)
        ]
        for thread in self._publishers + self._consumers:
            thread.start()

    def acknowledged(self) -> int:
        return self.history.counts()["acknowledged"]

    def finish(self, timeout: float = 180) -> None:
        """Stops publishing, waits until everything acknowledged was delivered, stops consuming."""
        self._stop_publishing.set()
        self._join(self._publishers, timeout)
        until(lambda: self.history.missing() == 0, timeout)
        self._stop_consuming.set()
        self._join(self._consumers, timeout)
        if self.unexpected:
            raise self.unexpected[0]

    def _guard(self, work: Callable[..., None], *arguments: object) -> None:
        try:
            work(*arguments)
        except BaseException as error:  # shown by finish(): a thread's own exceptions are lost otherwise
            self.unexpected.append(error)

    @staticmethod
    def _join(threads: list[threading.Thread], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            assert not thread.is_alive(), f"{thread} did not end"

    def _publish(self, number: int, keys: int, servers: Sequence[PrismTestServer], seed: int) -> None:
        dice = random.Random(seed * 1000 + number)
        clients = [server.client(timeout=10) for server in servers]
        sequences = [0] * keys
        at = 0
        while not self._stop_publishing.is_set():
            which = dice.randrange(keys)
            key, sequence = f"p{number}-k{which}", sequences[which]
            sequences[which] += 1
            # Mostly small ones; a few are checked in, some of these as a stream.
            size = dice.choice((10, 200, 2_000)) if dice.random() < 0.85 else dice.randrange(THRESHOLD + 1, 1_500_000)
            payload = dice.randbytes(size)
            message_id = f"{key}-{sequence}"
            self.history.publishing(message_id, key, sequence, digest_of(payload))
            streamed = size > THRESHOLD and dice.random() < 0.5
            while True:
                try:
                    body = pieces(payload) if streamed else payload
                    clients[at].publish(TOPIC, body, {"sequence": str(sequence)}, key=key, message_id=message_id)
                    break
                except prism.PrismError as error:
                    if error.retry == "never" and error.reason != "CONNECTION_FAILED":
                        raise
                    at = (at + 1) % len(clients)
                    if self._stop_consuming.is_set():
                        return
                    time.sleep(0.02)  # the server is being started again
            self.history.acknowledged(message_id)
        for client in clients:
            client.close()

    def _consume(self, group: str, servers: Sequence[PrismTestServer], at: int) -> None:
        while not self._stop_consuming.is_set():
            client = servers[at].client(timeout=10)
            try:
                with client.subscribe(TOPIC, group, auto_ack=False, timeout=0.5, reconnect_for=3, max_messages=200, ack_deadline=20) as subscriber:
                    while not self._stop_consuming.is_set():
                        try:
                            event = next(subscriber)
                        except prism.Timeout:
                            continue
                        if event.error is not None:
                            away = event.error.retry != "never"  # its store is: it comes again
                            self.history.delivered(group, event.id, None, str(event.error), passing=away)
                            event.nack(delay=1)
                            continue
                        self.history.delivered(group, event.id, digest_of(event.payload))
                        event.ack()
            except prism.PrismError:
                at = (at + 1) % len(servers)  # the server was killed or stands still
                time.sleep(0.02)
            finally:
                client.close()


def pieces(payload: bytes) -> Iterator[bytes]:
    for begin in range(0, len(payload), 100_000):
        yield payload[begin : begin + 100_000]


def nothing_dangles(server: PrismTestServer, timeout: float = 150) -> dict[str, object]:
    """Waits until no row is pending and no object is left, and says what it found at last."""
    state: dict[str, object] = {}

    def look() -> bool:
        held = {part["pattern"]: part["holds"] for part in server.get_json("/debug/inspect?namespace=load")["patterns"]}
        state.update(pending_rows=int(held["outbox"]["pending"]), objects=server.get_json("/debug/objects?backend=s3")["count"])
        return state == {"pending_rows": 0, "objects": 0}

    until(look, timeout)
    return state
