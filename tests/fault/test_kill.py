"""SIGKILL at random points under load. proves: O-14, O-15, O-19, C-27, C-32, L-13 (see docs/requirements.md)"""

from __future__ import annotations

import random
import time

from load import CONFIG, Load, nothing_dangles, until
from prism.testing import PrismTestServer


def test_nothing_acknowledged_is_lost_when_the_server_is_killed(full: bool) -> None:
    kills, seed = (45 if full else 12), random.randrange(1 << 30)
    print(f"seed {seed}")
    dice = random.Random(seed)
    with PrismTestServer(CONFIG, namespace="load") as server:
        load = Load([server], [server], [server], seed=seed)
        for _ in range(kills):
            # Something new must have been acknowledged since the last kill: a server that never comes back to work is no test.
            before = load.acknowledged()
            assert until(lambda: load.acknowledged() > before + 5, 60), f"no progress\n{server.log()[-3000:]}"
            time.sleep(dice.uniform(0, 0.6))  # the random point
            server.kill()
            server.restart()
        load.finish()
        print(load.history.counts())
        assert [str(violation) for violation in load.history.check()] == []
        assert nothing_dangles(server) == {"pending_rows": 0, "objects": 0}
