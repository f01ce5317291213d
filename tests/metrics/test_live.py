"""What becomes of the metrics when the configuration of a running server changes."""

from __future__ import annotations

import json
import math
import os
import pathlib
import subprocess
from typing import Any

import traffic
from prism.testing import PrismTestServer, find_binary
from scrape import Scrape, wait_for


def config(**observability: bool) -> dict[str, Any]:
    return {
        "namespaces": [
            {
                "name": "live",
                "client_api": "pubsub",
                "patterns": [traffic.outbox("live_outbox"), traffic.CLAIM_CHECK],
                "backend": "kafka",
                **({"observability": observability} if observability else {}),
            },
            {"name": "other", "client_api": "pubsub", "backend": "kafka"},
        ]
    }


def apply(server: PrismTestServer, path: pathlib.Path, new: dict[str, Any]) -> None:
    path.write_text(json.dumps(new))
    done = subprocess.run([find_binary(), "apply", path, "--admin", server.admin], capture_output=True, text=True, timeout=60, env=os.environ)
    assert done.returncode == 0, done


def of_patterns(scrape: Scrape) -> set[str]:
    return {
        name
        for name, family in scrape.families.items()
        if name.startswith(("prism_pattern", "prism_claim_check", "prism_outbox"))
        for _, labels, _ in family.samples
        if labels["namespace"] == "live"
    }


def test_counters_go_on_and_pattern_metrics_come_and_go(tmp_path: pathlib.Path) -> None:
    # proves: M-26
    with PrismTestServer(config()) as server, server.client(namespace="live") as client:
        for _ in range(3):
            client.publish("live", b"x" * 2000)
        before = wait_for(server.admin, lambda s: s.value("prism_pattern_outbox_published_total", namespace="live") == 3)
        shown = of_patterns(before)
        assert len(shown) > 12

        # Another assembly with another option: it goes on counting.
        changed = config()
        changed["namespaces"][0]["patterns"][0]["publisher"]["interval"] = "30ms"
        apply(server, tmp_path / "prism.yaml", changed)
        client.publish("live", b"x" * 2000)
        after = wait_for(server.admin, lambda s: s.value("prism_pattern_outbox_published_total", namespace="live") == 4)
        assert after.value("prism_pattern_claim_check_stored_total", namespace="live") == 4
        assert after.value("prism_pattern_claim_check_storage_objects", namespace="live") == 4
        assert after.value("prism_publish_duration_seconds_count", namespace="live") == 4

        apply(server, tmp_path / "prism.yaml", config(pattern_metrics=False))
        client.publish("live", b"x" * 2000)
        quiet = wait_for(server.admin, lambda s: not of_patterns(s))
        assert quiet.value("prism_publish_duration_seconds_count", namespace="live") == 5
        assert quiet.value("prism_job_shards", namespace="live", name="outbox/relay") == 2

        apply(server, tmp_path / "prism.yaml", config(pattern_metrics=True))
        client.publish("live", b"x" * 2000)
        wait_for(server.admin, lambda s: s.value("prism_pattern_outbox_published_total", namespace="live") >= 1)


def test_a_namespace_that_is_gone_is_not_shown(tmp_path: pathlib.Path) -> None:
    with PrismTestServer(config()) as server:
        assert Scrape.of(server.admin).value("prism_subscriptions", namespace="other") == 0
        without = config()
        del without["namespaces"][1]
        apply(server, tmp_path / "prism.yaml", without)
        gone = wait_for(server.admin, lambda s: math.isnan(s.value("prism_subscriptions", namespace="other")))
        assert math.isnan(gone.value("prism_publish_duration_seconds_count", namespace="other"))
        assert gone.value("prism_subscriptions", namespace="live") == 0
