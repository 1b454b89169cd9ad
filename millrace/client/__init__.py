"""What a shop's own code uses: publish what users do, ask what they should see.

.. code-block:: python

    from millrace.client import EventProducer, RecommenderClient

    with EventProducer() as events, RecommenderClient() as recommender:
        events.item("shoe-7", title="Red shoe", category="shoes", price=59.90)
        events.interaction("ann", "shoe-7", "click")
        answer = recommender.recommend("ann", k=5)
        for item in answer.items:
            print(item.item_id, f"{item.score:.3f}", item.sources)
        events.interaction("ann", answer.items[0].item_id, "purchase", value=59.90, request_id=answer.request_id)

Every value is checked before it is sent (``InvalidField`` names the field). What could not be delivered raises
``DeliveryFailed`` at the next call or when the block ends. ``AsyncEventProducer`` and ``AsyncRecommenderClient``
have the same methods to be awaited.
"""

from __future__ import annotations

from millrace.client.answers import KnownPosition, Recommendation, RecommendedItem
from millrace.client.async_producer import AsyncEventProducer
from millrace.client.async_recommender import AsyncRecommenderClient
from millrace.client.errors import DeliveryFailed, RecommenderUnavailable, Undelivered
from millrace.client.producer import EventProducer
from millrace.client.recommender import RecommenderClient
from millrace.errors import InvalidField
from millrace.events.build import request

__all__ = [
    "AsyncEventProducer",
    "AsyncRecommenderClient",
    "DeliveryFailed",
    "EventProducer",
    "InvalidField",
    "KnownPosition",
    "Recommendation",
    "RecommendedItem",
    "RecommenderClient",
    "RecommenderUnavailable",
    "Undelivered",
    "request",
]
