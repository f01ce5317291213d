"""RFC-014's end-to-end test, as it is written there. proves: K-04, K-05, K-06, K-07, K-08, A-07, A-10, C-24"""

from prism.testing import PrismTestServer


def test_e2e_large_payload_pubsub():
    # Setup Prism with Outbox + Claim Check
    prism = PrismTestServer(config={
        "namespace": "test",
        "client_api": "pubsub",
        "patterns": [
            {"type": "outbox", "database": "postgres"},
            {"type": "claim-check", "threshold": "1MB", "storage": "s3"}
        ],
        "backend": {"type": "kafka"}
    })

    client = prism.client()

    # Publish 10MB payload
    large_payload = b"x" * 10_000_000
    response = client.publish("test-topic", large_payload)
    assert response.success

    # Consume and verify full payload reconstructed
    subscriber = client.subscribe("test-topic")
    event = next(subscriber)
    assert event.payload == large_payload

    # Verify S3 object cleaned up after consumption
    assert prism.s3.object_count() == 0
