"""A server that has seen traffic through every feature, scraped before and after it."""

from __future__ import annotations

import dataclasses
from typing import Iterator

import pytest

import traffic
from prism.testing import PrismTestServer
from scrape import Scrape, wait_for


@dataclasses.dataclass
class Measured:
    server: PrismTestServer
    before: Scrape
    after: Scrape


def done(scrape: Scrape) -> bool:
    """Is the background work of the traffic done, and seen?"""
    return (
        scrape.value("prism_pattern_outbox_published_total", namespace="media") == traffic.MEDIA_SMALL + traffic.MEDIA_LARGE
        and scrape.value("prism_pattern_outbox_published_total", namespace="kept") == traffic.KEPT
        and scrape.value("prism_pattern_outbox_pending_count", namespace="media") == 0
        and scrape.value("prism_outbox_publish_latency_ms", namespace="media") > 0  # known
        and scrape.value("prism_pattern_claim_check_cleanup_success", namespace="media") == traffic.MEDIA_LARGE
        and scrape.value("prism_consumer_lag_messages", namespace="plain", group="g") == 0
        and scrape.value("prism_consumer_lag_messages", namespace="media", group="archive") == 0
        and scrape.value("prism_subscriptions") == 0
        and scrape.value("prism_requests_in_flight") == 0
        and scrape.value("prism_job_items_total", namespace="kept", name="outbox/cleanup") == traffic.KEPT
        and scrape.value("prism_trace_spans_dropped_total") > 0
    )


@pytest.fixture(scope="session")
def measured() -> Iterator[Measured]:
    with PrismTestServer(traffic.CONFIG) as server:
        before = Scrape.of(server.admin)
        traffic.run(server)
        wait_for(server.admin, done)
        traffic.break_a_table(server)
        yield Measured(server, before, wait_for(server.admin, lambda s: done(s) and s.value("prism_measure_errors_total", namespace="kept") > 0))
