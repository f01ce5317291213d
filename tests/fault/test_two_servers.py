"""Two servers on one data folder: one is stopped past its lease and let go again. proves: O-15, K-08 (see docs/requirements.md)"""

from __future__ import annotations

from load import CONFIG, Load, nothing_dangles, until
from prism.testing import PrismTestServer

LEASE = 2  # seconds
RELAY = "load/outbox/relay"
HOLDING = ("running", "idle", "failing")


def relay_states(server: PrismTestServer) -> list[str]:
    return [job["state"] for job in server.get_json("/jobs")["jobs"] if job["name"] == RELAY]


def holds_a_shard(server: PrismTestServer) -> bool:
    return any(state in HOLDING for state in relay_states(server))


def holds_all_shards(server: PrismTestServer) -> bool:
    return all(state in HOLDING for state in relay_states(server))


def test_a_server_stopped_past_its_lease_does_no_harm(tmp_path, full: bool) -> None:
    rounds = 12 if full else 4
    arguments = ("--lease", str(LEASE))
    with (
        PrismTestServer(CONFIG, namespace="load", data=tmp_path, args=arguments) as first,
        PrismTestServer(CONFIG, namespace="load", data=tmp_path, args=arguments) as second,
    ):
        # Clients use the second server only; the relay of the first runs beside it, until it is stopped.
        load = Load([first, second], [second], [second], publishers=3)
        taken_over = 0
        for _ in range(4 * rounds):
            if taken_over == rounds:
                break
            before = load.acknowledged()
            assert until(lambda: load.acknowledged() > before + 10, 60), second.log()[-3000:]
            if not until(lambda: holds_a_shard(first), 4 * LEASE):
                second_gives_way(second, first)
            first.pause()
            # It may have been stopped while it held the write lock of the shared file: then the other cannot go on before it does.
            taken_over += until(lambda: holds_all_shards(second), 3 * LEASE)
            first.resume()
        load.finish()
        print(taken_over, "take-overs", load.history.counts())
        assert taken_over == rounds
        assert [str(violation) for violation in load.history.check()] == []
        assert nothing_dangles(second) == {"pending_rows": 0, "objects": 0}


def second_gives_way(second: PrismTestServer, first: PrismTestServer) -> None:
    """The relay of the first server gets its leases back."""
    second.post(f"/jobs/pause?name={RELAY}")
    assert until(lambda: holds_a_shard(first), 10 * LEASE), first.log()[-3000:]
    second.post(f"/jobs/resume?name={RELAY}")
