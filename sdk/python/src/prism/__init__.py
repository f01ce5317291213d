"""Client of Prism, the data access proxy.

    import prism

    with prism.Client("localhost:8980", namespace="orders") as client:
        client.publish("created", b"...", metadata={"source": "shop"})
        for event in client.subscribe("created", group="billing"):
            print(event.id, event.payload)
"""

from prism.client import Client
from prism.errors import PrismError, Timeout
from prism.publishing import Durability, Message, Publisher, PublishResult
from prism.subscribing import Event, SettleStatus, Subscriber

__all__ = [
    "Client",
    "Durability",
    "Event",
    "Message",
    "PrismError",
    "PublishResult",
    "Publisher",
    "SettleStatus",
    "Subscriber",
    "Timeout",
]
