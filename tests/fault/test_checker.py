"""The checker finds what it is there to find. proves: O-14 (its control), O-15 (its control)"""

from __future__ import annotations

import dataclasses
import random

import pytest

from checker import History, digest_of

GROUPS = ("a", "b")


@dataclasses.dataclass
class Sent:
    message_id: str
    key: str
    sequence: int
    payload: bytes


def make(count: int = 6, keys: int = 2) -> list[Sent]:
    return [Sent(f"m{n}", f"key-{n % keys}", n // keys, b"payload %d" % n) for n in range(count)]


def publish(history: History, messages: list[Sent], acknowledge: bool = True) -> None:
    for m in messages:
        history.publishing(m.message_id, m.key, m.sequence, digest_of(m.payload))
        if acknowledge:
            history.acknowledged(m.message_id)


def deliver(history: History, group: str, messages: list[Sent]) -> None:
    for m in messages:
        history.delivered(group, m.message_id, digest_of(m.payload))


def kinds(history: History) -> set[str]:
    return {violation.kind for violation in history.check()}


def test_accepts_everything_delivered_in_order():
    history, messages = History(GROUPS), make()
    publish(history, messages)
    for group in GROUPS:
        deliver(history, group, messages)
    assert history.check() == [] and history.missing() == 0


def test_accepts_repeats_and_unacknowledged_arrivals_and_other_keys_overtaking():
    history, messages = History(GROUPS), make()
    publish(history, messages[:-1])
    publish(history, messages[-1:], acknowledge=False)
    by_key = sorted(messages, key=lambda m: (m.key, m.sequence))
    deliver(history, "a", by_key + messages[2:4])  # keys one after the other, then a run again
    deliver(history, "b", messages[:-1])           # the unacknowledged one never came
    assert history.check() == []
    assert history.counts()["repeats"] == 2


def test_finds_an_acknowledged_message_that_one_group_never_got():
    history, messages = History(GROUPS), make()
    publish(history, messages)
    deliver(history, "a", messages)
    deliver(history, "b", messages[:3] + messages[4:])
    assert history.missing() == 1
    assert [v.kind for v in history.check()] == ["LOST"]
    assert "b: key-1#1" in str(history.check()[0])


def test_finds_first_occurrences_out_of_order():
    history, messages = History(("a",)), make(keys=1)
    publish(history, messages)
    deliver(history, "a", [messages[0], messages[2], messages[1], *messages[3:]])
    assert kinds(history) == {"INVERTED"}


def test_a_repeat_out_of_order_is_no_inversion():
    history, messages = History(("a",)), make(keys=1)
    publish(history, messages)
    deliver(history, "a", messages + [messages[0]])
    assert history.check() == []


def test_finds_a_missing_payload_even_if_it_came_later():
    history, messages = History(("a",)), make()
    publish(history, messages)
    history.delivered("a", "m0", None, "PAYLOAD_MISSING")
    deliver(history, "a", messages)
    assert kinds(history) == {"PAYLOAD_MISSING"}


def test_a_payload_that_is_away_for_now_keeps_its_place_and_must_come():
    history, messages = History(("a",)), make(3, keys=1)
    publish(history, messages)
    history.delivered("a", "m0", None, "its store is away", passing=True)
    deliver(history, "a", messages[1:])  # of the same run
    assert kinds(history) == {"LOST"} and history.missing() == 1
    deliver(history, "a", messages)
    assert history.check() == [] and history.missing() == 0


def test_finds_a_damaged_payload_and_an_invented_message():
    history, messages = History(("a",)), make()
    publish(history, messages)
    deliver(history, "a", messages)
    history.delivered("a", "m1", digest_of(b"something else"))
    history.delivered("a", "nobody's", digest_of(b""))
    assert kinds(history) == {"DAMAGED", "INVENTED"}


# --- Control: a model of the server whose steps can be put in a wrong order, killed at every point of it ----------------------------------


class Killed(Exception):
    pass


class Model:
    """Publish, relay and clean-up as steps on durable state; `kill_at` ends the process before that step, once.

    Right: store the object, commit the row, answer; append to the log, then mark the row; delete below every group's floor.
    """

    def __init__(self, history: History, wrong: str, kill_at: int) -> None:
        self.history, self.wrong, self.kill_at = history, wrong, kill_at
        self.step = 0
        self.rows: list[Sent] = []
        self.marked: set[str] = set()
        self.log: list[Sent] = []
        self.objects: set[str] = set()
        self.answered: set[str] = set()

    def point(self) -> None:
        """A place at which the process may be killed."""
        self.step += 1
        if self.step == self.kill_at:
            raise Killed

    def publish(self, message: Sent) -> None:
        def store() -> None:
            self.objects.add(message.message_id)

        def commit() -> None:
            if message not in self.rows:
                self.rows.append(message)

        def answer() -> None:
            self.answered.add(message.message_id)
            self.history.acknowledged(message.message_id)

        steps = [store, commit, answer]
        if self.wrong == "answers before the commit":
            steps = [store, answer, commit]
        if self.wrong == "commits before the upload":
            steps = [commit, answer, store]
        for step in steps:
            self.point()
            step()

    def relay(self) -> None:
        for row in list(self.rows):
            if row.message_id in self.marked:
                continue

            def append(row: Sent = row) -> None:
                self.log.append(row)

            def mark(row: Sent = row) -> None:
                self.marked.add(row.message_id)

            steps = [append, mark]
            if self.wrong == "marks before the append":
                steps = [mark, append]
            for step in steps:
                self.point()
                step()

    def clean_up_after(self, group: str) -> None:
        if self.wrong == "cleans up after the first group" and group == GROUPS[0]:
            self.objects.clear()

    def deliver(self, group: str) -> None:
        for m in self.log:
            self.history.delivered(group, m.message_id, digest_of(m.payload) if m.message_id in self.objects else None)


def run_model(wrong: str, kill_at: int) -> set[str]:
    history = History(GROUPS)
    messages = make(4)
    model = Model(history, wrong, kill_at)
    for m in messages:
        history.publishing(m.message_id, m.key, m.sequence, digest_of(m.payload))
        try:
            model.publish(m)
        except Killed:
            if m.message_id not in model.answered:
                model.publish(m)  # the client got no answer: it repeats, with the same id
        try:
            model.relay()
        except Killed:
            pass
    model.relay()
    for group in GROUPS:
        model.deliver(group)
        model.clean_up_after(group)
    return kinds(history)


POINTS = range(1, 40)


def test_the_right_order_of_steps_survives_a_kill_at_every_point():
    assert set().union(*(run_model("nothing", point) for point in POINTS)) == set()


@pytest.mark.parametrize(
    "wrong, shown",
    [
        ("answers before the commit", "LOST"),
        ("marks before the append", "LOST"),
        ("commits before the upload", "PAYLOAD_MISSING"),
        ("cleans up after the first group", "PAYLOAD_MISSING"),
    ],
)
def test_a_wrong_order_of_steps_is_found(wrong: str, shown: str):
    assert shown in set().union(*(run_model(wrong, point) for point in POINTS))


def test_a_relay_with_a_cursor_loses_a_row_that_commits_late():
    """The classic mistake: ids are taken before the commit, the cursor passes the gap. A relay by pending rows does not."""
    shuffle = random.Random(7)
    messages = make(30, keys=5)
    for naive, expected in ((True, {"LOST"}), (False, set())):
        history = History(("a",))
        publish(history, messages)
        committed: list[Sent] = []
        relayed: list[Sent] = []
        cursor, pending = -1, list(enumerate(messages))
        open_late = {n for n in range(30) if n % 7 == 3}  # these transactions commit one round late
        for begin in range(0, 35, 5):
            rows = [(n, m) for n, m in pending if n < begin + 5 and (n not in open_late or n < begin)]
            shuffle.shuffle(rows)
            if naive:
                rows = [(n, m) for n, m in sorted(rows) if n > cursor]
                cursor = max([cursor, *(n for n, _ in rows)])
            else:
                # A key's later row waits: its earlier one is not committed, so its transaction has not been answered yet.
                ready = {n for n, _ in rows}
                rows = [(n, m) for n, m in sorted(rows) if all(k in ready or k in committed_ids(relayed) for k in earlier(messages, n))]
            relayed += [m for _, m in rows]
            pending = [(n, m) for n, m in pending if m not in relayed]
            committed = relayed
        deliver(history, "a", committed)
        assert kinds(history) == expected


def earlier(messages: list[Sent], n: int) -> list[int]:
    return [k for k in range(n) if messages[k].key == messages[n].key]


def committed_ids(relayed: list[Sent]) -> set[int]:
    return {int(m.message_id[1:]) for m in relayed}
