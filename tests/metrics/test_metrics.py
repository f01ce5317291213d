"""Every metric by name, type, labels and help, and what the values say after known traffic. proves: M-20

`PRISM_UPDATE_GOLDEN=1 pytest tests/metrics/test_metrics.py` writes golden.json anew; scripts/metrics-reference --write then writes
docs/reference/metrics.md.
"""

from __future__ import annotations

import json
import math
import os
import pathlib
import re
import time

import traffic
from conftest import Measured
from prism.testing import PrismTestServer
from scrape import Scrape, difference, wait_for

GOLDEN = pathlib.Path(__file__).with_name("golden.json")
PUBLISHED = traffic.MEDIA_SMALL + traffic.MEDIA_LARGE


def test_every_metric_is_as_listed(measured: Measured) -> None:
    found = {
        family.name: {"name": family.name, "type": family.type, "labels": family.labels(), "help": family.help}
        for family in measured.after.families.values()
    }
    listed = {metric["name"]: metric for metric in json.loads(GOLDEN.read_text())} if GOLDEN.exists() else {}
    if os.environ.get("PRISM_UPDATE_GOLDEN"):
        found |= {name: metric for name, metric in listed.items() if "only" in metric}
        GOLDEN.write_text(json.dumps([found[name] for name in sorted(found)], indent=1) + "\n")
        return
    # What only real backends have is not shown by embedded ones; src/namespaces/waiting_test.cc has it.
    missing = {name for name in listed.keys() - found.keys() if "only" not in listed[name]}
    assert not missing, f"listed and not shown: {sorted(missing)}"
    assert not found.keys() - listed.keys(), f"shown and not listed: {sorted(found.keys() - listed.keys())}"
    for name, metric in found.items():
        assert metric == listed[name]


def test_names_and_helps_are_as_prometheus_wants_them(measured: Measured) -> None:
    # The names that the RFCs dictate are what they are.
    dictated = {
        "prism_claim_check_stored_count", "prism_pattern_claim_check_cleanup_success", "prism_outbox_publish_latency_ms",
        "prism_pattern_outbox_pending_count", "prism_outbox_unpublished_count",
    }  # fmt: skip
    for family in measured.after.families.values():
        assert re.fullmatch(r"(prism|process)(_[a-z0-9]+)+", family.name), family.name
        assert re.match("[A-Z0-9]", family.help) and family.help.endswith("."), family
        if family.name in dictated:
            continue
        assert (family.type == "counter") == family.name.endswith("_total"), family.name
        assert not family.name.endswith(("_ms", "_count", "_sum", "_bucket", "_kb", "_millis")), family.name
        if family.type == "histogram":
            assert family.name.endswith(("_seconds", "_bytes")), family.name
            for labels, count in measured.after.samples(family.name + "_count"):
                assert measured.after.value(family.name + "_bucket", **labels, le="+Inf") == count, (family.name, labels)


def test_labels_are_bounded(measured: Measured) -> None:
    """Keys, topics, message ids and clients are no labels, and a group is only up to a number of them."""
    names = {ns["name"] for ns in traffic.CONFIG["namespaces"]} | {"_none"}
    for family in measured.after.families.values():
        for _, labels, _ in family.samples:
            assert labels.keys() <= {
                "namespace", "service", "method", "code", "reason", "pattern", "backend", "operation", "name", "state", "loop", "pool",
                "group", "version", "result", "le",
            }, family.name  # fmt: skip
            assert labels.get("namespace", "_none") in names, (family.name, labels)


def test_undeclared_groups_share_a_series_when_they_are_many() -> None:
    config = {"namespace": "many", "client_api": "pubsub", "backend": "kafka"}
    with PrismTestServer(config) as server, server.client() as client:
        client.publish("many", b"one")
        for i in range(60):
            client.subscribe("many", group=f"g{i}", timeout=30).close()
        scrape = wait_for(server.admin, lambda s: s.value("prism_consumer_lag_messages", namespace="many") == 60)
        groups = [labels["group"] for labels, _ in scrape.samples("prism_consumer_lag_messages")]
        assert len(groups) == 51 and "_other" in groups
        assert scrape.value("prism_consumer_lag_messages", group="_other") == 10


def test_the_claim_check_in_the_names_of_both_rfcs(measured: Measured) -> None:
    # proves: M-05, M-06, M-11, M-12, M-13, M-14
    after = measured.after
    assert after.value("prism_pattern_claim_check_stored_total", namespace="media") == traffic.MEDIA_LARGE
    assert after.value("prism_claim_check_stored_count", namespace="media") == traffic.MEDIA_LARGE
    assert after.value("prism_pattern_claim_check_retrieved_total", namespace="media") == traffic.MEDIA_LARGE
    assert after.value("prism_pattern_claim_check_cleanup_success", namespace="media") == traffic.MEDIA_LARGE
    assert after.value("prism_pattern_claim_check_storage_bytes", namespace="media") == 0
    assert after.value("prism_claim_check_storage_bytes", namespace="media") == 0
    assert after.families["prism_claim_check_stored_count"].type == "counter"
    assert after.families["prism_pattern_claim_check_cleanup_success"].type == "counter"
    assert after.families["prism_claim_check_storage_bytes"].type == "gauge"


def test_the_outbox_in_the_names_of_both_rfcs(measured: Measured) -> None:
    # proves: M-09, M-10, M-15, M-16, M-17, M-18
    after = measured.after
    assert after.value("prism_pattern_outbox_inserted_total", namespace="media") == PUBLISHED
    assert after.value("prism_pattern_outbox_published_total", namespace="media") == PUBLISHED
    assert after.value("prism_pattern_outbox_pending_count", namespace="media") == 0
    assert after.value("prism_outbox_unpublished_count", namespace="media") == 0
    assert after.value("prism_pattern_outbox_lag_seconds", namespace="media") == 0
    assert 0 < after.value("prism_outbox_publish_latency_ms", namespace="media") < 60_000
    assert after.value("prism_pattern_outbox_publish_latency_seconds_count", namespace="media") == PUBLISHED
    mean = after.value("prism_pattern_outbox_publish_latency_seconds_sum", namespace="media") / PUBLISHED
    assert 0 < mean < 60


def test_the_chain_by_pattern(measured: Measured) -> None:
    # proves: M-19
    after = measured.after
    for pattern in ("claim-check", "outbox"):
        assert after.value("prism_pattern_chain_duration_seconds_count", namespace="media", pattern=pattern) == PUBLISHED
    own = sum(after.value("prism_pattern_chain_duration_seconds_sum", namespace="media", pattern=p) for p in ("claim-check", "outbox"))
    whole = after.value("prism_pattern_inclusive_duration_seconds_sum", namespace="media", pattern="claim-check")
    chain = after.value("prism_publish_duration_seconds_sum", namespace="media")
    assert after.value("prism_publish_duration_seconds_count", namespace="media") == PUBLISHED
    assert math.isclose(own, whole, rel_tol=0.05, abs_tol=0.001) and math.isclose(whole, chain, rel_tol=1e-6)
    assert {labels["pattern"] for labels, _ in after.samples("prism_pattern_chain_duration_seconds_count")} == {"claim-check", "outbox"}
    assert math.isnan(after.value("prism_pattern_chain_duration_seconds_count", namespace="plain"))


def test_pattern_metrics_can_be_left_out(measured: Measured) -> None:
    # proves: M-26
    of_patterns = [name for name in measured.after.families if "_pattern_" in name or "claim_check" in name or "outbox" in name]
    assert len(of_patterns) > 15
    for name in of_patterns:
        assert all(labels["namespace"] != "quiet" for _, labels, _ in measured.after.families[name].samples), name
    # What is no pattern's remains.
    assert measured.after.value("prism_messages_published_total", namespace="quiet") == 1
    assert measured.after.value("prism_publish_duration_seconds_count", namespace="quiet") == 1
    assert measured.after.value("prism_job_rounds_total", namespace="quiet", name="outbox/relay") > 0


def test_requests(measured: Measured) -> None:
    after = measured.after

    def requests(namespace: str, method: str, code: str = "OK") -> float:
        return after.value("prism_requests_total", namespace=namespace, method=method, code=code)

    def published(namespace: str, method: str) -> float:
        return after.value("prism_messages_published_total", namespace=namespace, method=method)

    assert requests("media", "Publish") == PUBLISHED == published("media", "Publish")
    expected = traffic.MEDIA_SMALL * 100 + traffic.MEDIA_LARGE * traffic.LARGE_BYTES
    assert after.value("prism_published_bytes_total", namespace="media") == expected
    assert after.value("prism_messages_delivered_total", namespace="media", method="SubscribeStream") == PUBLISHED
    assert after.value("prism_delivered_bytes_total", namespace="media") == expected

    assert requests("plain", "PublishBatch") == 1 and published("plain", "PublishBatch") == traffic.BATCH
    assert after.value("prism_messages_refused_total", namespace="plain", method="PublishBatch", reason="METADATA_RESERVED") == 1
    assert requests("plain", "PublishStream") == 1 and published("plain", "PublishStream") == traffic.STREAM
    assert requests("plain", "PublishPayload") == 1 and published("plain", "PublishPayload") == 1
    assert after.value("prism_published_bytes_total", namespace="plain") == traffic.BATCH * 5 + traffic.STREAM * 6 + 20
    assert requests("plain", "Publish", "INVALID_ARGUMENT") == 1
    assert after.value("prism_request_errors_total", namespace="plain", method="Publish", reason="METADATA_RESERVED") == 1
    assert requests("_none", "Publish", "NOT_FOUND") == 1
    assert after.value("prism_request_errors_total", namespace="_none", reason="NAMESPACE_NOT_FOUND") == 1

    queue = "prism.queue.v1.QueueService"
    assert after.value("prism_requests_total", namespace="work", service=queue, method="Publish", code="OK") == 1
    assert after.value("prism_messages_delivered_total", namespace="work", service=queue, method="Subscribe") == 1
    assert after.value("prism_requests_total", service="prism.session.v1.SessionService", method="Open", code="OK") >= 1
    assert after.value("prism_requests_in_flight", method="SubscribeStream") == 0
    assert after.value("prism_sessions") == 0  # opened and closed
    assert after.value("prism_request_duration_seconds_count", namespace="media", method="Publish") == PUBLISHED


def test_deliveries(measured: Measured) -> None:
    after = measured.after
    count = traffic.BATCH + traffic.STREAM + 1
    assert after.value("prism_messages_acked_total", namespace="plain") == count
    assert after.value("prism_messages_nacked_total", namespace="plain") == 1
    assert after.value("prism_messages_redelivered_total", namespace="plain") >= 1
    assert after.value("prism_settles_rejected_total", namespace="plain") == 1
    assert after.value("prism_delivery_delay_seconds_count", namespace="media") == PUBLISHED
    assert after.value("prism_messages_acked_total", namespace="media") == PUBLISHED


def test_backends(measured: Measured) -> None:
    before, after = measured.before, measured.after

    def calls(backend: str, operation: str) -> float:
        return difference(before, after, "prism_backend_operations_total", {"backend": backend, "operation": operation})

    assert calls("s3", "objects.put") == traffic.MEDIA_LARGE + 2  # of quiet and checked
    assert after.value("prism_backend_duration_seconds_count", backend="s3", operation="objects.put") == traffic.MEDIA_LARGE + 2
    assert after.value("prism_backend_errors_total", backend="s3", operation="objects.get", reason="OBJECT_NOT_FOUND") == 1
    assert calls("postgres", "sql.atomically") >= PUBLISHED
    assert calls("kafka", "log.append") >= 3
    assert after.value("prism_backend_in_flight", backend="s3", operation="objects.put") == 0
    # On behalf of requests only: the relay's appends are not.
    step = {"namespace": "media", "pattern": "outbox", "backend": "postgres", "operation": "sql.atomically"}
    assert after.value("prism_pattern_backend_duration_seconds_count", **step) == PUBLISHED
    assert math.isnan(after.value("prism_pattern_backend_duration_seconds_count", namespace="media", pattern="log", operation="log.append"))
    assert after.value("prism_pattern_backend_duration_seconds_count", namespace="plain", pattern="log", operation="log.append") > 0


def test_jobs(measured: Measured) -> None:
    after = measured.after
    relay = {"namespace": "media", "name": "outbox/relay"}
    assert after.value("prism_job_items_total", **relay) == PUBLISHED
    assert after.value("prism_job_items_total", namespace="kept", name="outbox/cleanup") == traffic.KEPT
    assert after.value("prism_job_items_total", namespace="media", name="claim-check/cleaner") == traffic.MEDIA_LARGE
    assert after.value("prism_job_shards", **relay) == 2
    assert after.value("prism_job_errors_total", **relay) == 0
    assert after.value("prism_job_lag_seconds", **relay) < 5
    start = after.value("process_start_time_seconds")
    assert after.value("prism_job_last_success_timestamp_seconds", **relay) >= start - 1


def test_the_process_and_its_runtime(measured: Measured) -> None:
    after = measured.after
    (labels, one), = after.samples("prism_build_info")
    assert one == 1 and re.fullmatch(r"\d+\.\d+\.\d+", labels["version"])
    assert 0 < after.value("prism_uptime_seconds") < 3600
    assert after.value("process_open_fds") > 3 and after.value("process_resident_memory_bytes") > 1 << 20
    assert after.value("prism_loop_lag_seconds_count") > 0
    assert after.value("prism_offload_threads", pool="files") > 0
    assert after.value("prism_payload_budget_bytes") > 1 << 20 and after.value("prism_payload_budget_waiting") == 0


def test_what_is_held_is_right_after_a_restart_and_in_every_process(tmp_path: pathlib.Path) -> None:
    # proves: M-06, M-13, M-17, M-18
    config = {
        "namespaces": [
            {"name": "held", "client_api": "pubsub", "patterns": [traffic.CLAIM_CHECK, traffic.outbox("held_outbox")], "backend": "kafka"}
        ]
    }

    def held(scrape: Scrape) -> tuple[float, float]:
        return (
            scrape.value("prism_pattern_claim_check_storage_bytes", namespace="held"),
            scrape.value("prism_pattern_claim_check_storage_objects", namespace="held"),
        )

    with PrismTestServer(config, data=tmp_path) as first:
        with first.client(namespace="held") as client:
            for _ in range(3):
                client.publish("held", b"z" * 2000)
        assert held(wait_for(first.admin, lambda s: held(s)[1] == 3)) == (6000, 3)
        with PrismTestServer(config, data=tmp_path) as second:
            seen = wait_for(second.admin, lambda s: held(s) == (6000, 3))
            assert seen.value("prism_pattern_claim_check_stored_total", namespace="held") == 0
        first.kill()
        first.restart()
        wait_for(first.admin, lambda s: held(s) == (6000, 3))
        # Consumed in this process, or another: it goes down.
        with first.client(namespace="held") as client:
            subscriber = client.subscribe("held", timeout=30)
            for _ in range(3):
                next(subscriber)
            assert client.wait_settled()
            subscriber.close()
        assert held(wait_for(first.admin, lambda s: held(s)[1] == 0)) == (0, 0)


def test_streams_and_sessions_are_counted_while_they_are_open() -> None:
    config = {"namespace": "open", "client_api": "pubsub", "backend": "kafka"}
    shown = ("prism_requests_in_flight", "prism_subscriptions", "prism_sessions")

    def counts(scrape: Scrape) -> tuple[float, ...]:
        return scrape.value(shown[0], method="SubscribeStream"), scrape.value(shown[1], namespace="open"), scrape.value(shown[2])

    with PrismTestServer(config) as server:
        assert counts(Scrape.of(server.admin)) == (0, 0, 0)
        with server.client() as client:
            client.open_session()
            streams = [client.subscribe("open", group) for group in ("a", "b")]
            wait_for(server.admin, lambda s: counts(s) == (2, 2, 1))
            streams[0].close()
            wait_for(server.admin, lambda s: counts(s) == (1, 1, 1))
        wait_for(server.admin, lambda s: counts(s) == (0, 0, 0))


def test_what_waits_is_the_same_in_every_process(tmp_path: pathlib.Path) -> None:
    # proves: M-09, M-17, M-18
    config = {"namespaces": [{"name": "slow", "client_api": "pubsub", "patterns": [traffic.outbox("slow_outbox")], "backend": "kafka"}]}

    def waiting(scrape: Scrape) -> bool:
        return scrape.value("prism_pattern_outbox_pending_count", namespace="slow") == 5 and scrape.value("prism_pattern_outbox_lag_seconds", namespace="slow") > 0

    def behind(scrape: Scrape) -> bool:
        return scrape.value("prism_consumer_lag_messages", namespace="slow", group="g") == 5

    with PrismTestServer(config, data=tmp_path) as first, PrismTestServer(config, data=tmp_path) as second, first.client() as client:
        client.subscribe("slow", "g").close()
        for server in (first, second):
            server.post("/jobs/pause?name=slow/outbox/relay")
        for server in (first, second):
            wait_for(server.admin, lambda s: s.value("prism_job_shards", name="outbox/relay", state="paused") == 2)
        for _ in range(5):
            client.publish("slow", b"waits")
        for server in (first, second):
            wait_for(server.admin, waiting)
        second.post("/jobs/resume?name=slow/outbox/relay")  # published by the one that did not take them
        for server in (first, second):
            done = wait_for(server.admin, lambda s: behind(s) and s.value("prism_pattern_outbox_pending_count", namespace="slow") == 0)
        assert done.value("prism_pattern_outbox_published_total", namespace="slow") == 5
        assert done.value("prism_pattern_outbox_inserted_total", namespace="slow") == 0
        assert Scrape.of(first.admin).value("prism_pattern_outbox_published_total", namespace="slow") == 0


def test_rows_that_wait_are_seen_with_their_age(tmp_path: pathlib.Path) -> None:
    # proves: M-09, M-17, M-18
    config = {"namespaces": [{"name": "slow", "client_api": "pubsub", "patterns": [traffic.outbox("slow_outbox")], "backend": "kafka"}]}
    with PrismTestServer(config, data=tmp_path) as server, server.client(namespace="slow") as client:
        server.post("/jobs/pause?name=slow/outbox/relay")
        wait_for(server.admin, lambda s: s.value("prism_job_shards", name="outbox/relay", state="paused") == 2)
        for _ in range(5):
            client.publish("slow", b"waits")
        committed = time.monotonic()
        waiting = wait_for(server.admin, lambda s: s.value("prism_pattern_outbox_lag_seconds", namespace="slow") > 1 and s.value("prism_pattern_outbox_pending_count", namespace="slow") == 5)
        assert waiting.value("prism_outbox_unpublished_count", namespace="slow") == 5
        assert waiting.value("prism_job_lag_seconds", namespace="slow", name="outbox/relay") > 0
        least = 1000 * (time.monotonic() - committed)
        server.post("/jobs/resume?name=slow/outbox/relay")
        done = wait_for(
            server.admin,
            lambda s: s.value("prism_pattern_outbox_pending_count", namespace="slow") == 0
            and s.value("prism_outbox_publish_latency_ms", namespace="slow") > 0,
        )
        assert done.value("prism_pattern_outbox_lag_seconds", namespace="slow") == 0
        assert done.value("prism_outbox_publish_latency_ms", namespace="slow") > least - 10  # two clocks
