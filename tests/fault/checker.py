"""Compares what was acknowledged with what arrived.

What Prism promises, whatever is killed or stopped in between:
  * every message whose publish was acknowledged is delivered at least once to each group (LOST otherwise);
  * the first occurrences of one key's messages arrive in the order in which they were published (INVERTED);
  * what arrives is what was published, byte for byte (DAMAGED), with its payload (PAYLOAD_MISSING), and nothing else (INVENTED).
Repeats are allowed. So is the arrival of a message whose publish was not acknowledged: its outcome was unknown.
"""

from __future__ import annotations

import dataclasses
import hashlib
import threading


def digest_of(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()


@dataclasses.dataclass(frozen=True)
class Violation:
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


@dataclasses.dataclass
class _Published:
    key: str
    sequence: int
    digest: str
    acknowledged: bool = False


@dataclasses.dataclass(frozen=True)
class _Delivered:
    message_id: str
    digest: str | None  # None: the payload could not be had
    note: str = ""
    passing: bool = False  # ... at that moment


class History:
    """What happened. Any thread; deliveries of one group must be recorded in the order in which they were handed over."""

    def __init__(self, groups: tuple[str, ...]) -> None:
        self.groups = groups
        self._lock = threading.Lock()
        self._published: dict[str, _Published] = {}
        self._delivered: dict[str, list[_Delivered]] = {group: [] for group in groups}
        self._seen: dict[str, set[str]] = {group: set() for group in groups}

    def publishing(self, message_id: str, key: str, sequence: int, payload_digest: str) -> None:
        """Before the first attempt. `sequence` grows within a key; a key's next message is published after this one's answer."""
        with self._lock:
            self._published[message_id] = _Published(key, sequence, payload_digest)

    def acknowledged(self, message_id: str) -> None:
        """The publish was answered."""
        with self._lock:
            self._published[message_id].acknowledged = True

    def delivered(self, group: str, message_id: str, payload_digest: str | None, note: str = "", passing: bool = False) -> None:
        """Handed over to a consumer of the group; without a digest if its payload could not be had. `passing`: for now, so that it must come
        again, and its place in the order is the present one."""
        with self._lock:
            self._delivered[group].append(_Delivered(message_id, payload_digest, note, passing))
            if payload_digest is not None:
                self._seen[group].add(message_id)

    def missing(self) -> int:
        """How many deliveries of acknowledged messages are still to come."""
        with self._lock:
            return sum(
                published.acknowledged and message_id not in self._seen[group]
                for message_id, published in self._published.items()
                for group in self.groups
            )

    def counts(self) -> dict[str, int]:
        with self._lock:
            delivered = sum(len(deliveries) for deliveries in self._delivered.values())
            return {
                "published": len(self._published),
                "acknowledged": sum(p.acknowledged for p in self._published.values()),
                "delivered": delivered,
                "repeats": delivered - sum(len({d.message_id for d in ds}) for ds in self._delivered.values()),
            }

    def check(self) -> list[Violation]:
        """Every promise that was broken; call it when nothing happens any more."""
        with self._lock:
            found: list[Violation] = []
            for group in self.groups:
                found += self._check_group(group)
            return found

    def _check_group(self, group: str) -> list[Violation]:
        found: list[Violation] = []
        arrived: set[str] = set()  # with their payload
        occurred: set[str] = set()
        last: dict[str, int] = {}  # highest sequence of each key whose first occurrence was seen
        for delivery in self._delivered[group]:
            published = self._published.get(delivery.message_id)
            if published is None:
                found.append(Violation("INVENTED", f"{group}: {delivery.message_id} was never published"))
                continue
            if delivery.digest is None and not delivery.passing:
                found.append(Violation("PAYLOAD_MISSING", f"{group}: {delivery.message_id} {delivery.note}"))
                continue
            if delivery.digest is not None:
                if delivery.digest != published.digest:
                    found.append(Violation("DAMAGED", f"{group}: {delivery.message_id} is not what was published"))
                arrived.add(delivery.message_id)
            if delivery.message_id in occurred:
                continue
            occurred.add(delivery.message_id)
            before = last.get(published.key, -1)
            if published.sequence < before:
                text = f"{group}: {published.key}#{published.sequence} came for the first time after #{before}"
                found.append(Violation("INVERTED", text))
            last[published.key] = max(before, published.sequence)
        for message_id, published in self._published.items():
            if published.acknowledged and message_id not in arrived:
                text = f"{group}: {published.key}#{published.sequence} ({message_id}) was acknowledged and never came"
                found.append(Violation("LOST", text))
        return found
