"""The whole loop on real parts, through the public clients: a click changes the next recommendation."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from millrace.client import Recommendation
from millrace.ranking.first import first_ranker
from millrace.settings import KafkaSettings, StreamSettings
from millrace.stream.reader import TopicReader
from millrace.topics import IMPRESSIONS
from millrace.v1.impression_pb2 import Impression
from tests.e2e.conftest import Loop, eventually

SHOPPERS = 30


def test_a_click_changes_the_next_recommendation(loop: Loop, topics_applied: KafkaSettings) -> None:
    events, recommender = loop.events, loop.recommender
    for number in range(SHOPPERS):
        # Who looks at tents looks at stoves next; who looks at novels, at bookmarks.
        first, second = ("tent", "stove") if number % 2 else ("novel", "bookmark")
        events.interaction(f"shopper {number}", first, "click")
        events.interaction(f"shopper {number}", second, "click")
    for item in ("tent", "stove", "novel", "bookmark"):
        events.item(item, title=item.title(), category="all")
    events.flush()

    def ask() -> Recommendation:
        return recommender.recommend("newcomer", k=4, explain=True)

    # The champion comes from the registry, by way of model-events; the items by way of item-state.
    stranger = eventually(ask, lambda answer: answer.model_version and len(answer.items) == 4)
    assert stranger.fallback == "unknown_user"
    assert stranger.known is None

    events.interaction("newcomer", "tent", "click", request_id=stranger.request_id)
    events.flush()
    # Who follows whom is learned from the others' clicks, and comes by another way than the newcomer's own.
    known = eventually(ask, lambda answer: answer.known is not None and "neighbours" in sources(answer, "stove"))
    assert known.fallback == "none"
    scores = {item.item_id: item.score for item in known.items}
    assert scores["stove"] > max(scores["novel"], scores["bookmark"])

    logged = _impression(topics_applied, known.request_id)
    assert [slot.item_id for slot in logged.slots] == [item.item_id for item in known.items]
    pipeline = first_ranker().to_river()
    for slot in logged.slots:
        features = dict(zip(first_ranker().feature_names, slot.features, strict=True))
        assert pipeline.predict_proba_one(features)[True] == pytest.approx(slot.score, abs=1e-6)


def sources(answer: Recommendation, item_id: str) -> Sequence[str]:
    """Where an item of the answer comes from."""
    return next((item.sources for item in answer.items if item.item_id == item_id), ())


def _impression(kafka: KafkaSettings, request_id: str) -> Impression:
    """The logged impression of an answer."""
    with TopicReader(kafka, [IMPRESSIONS], stream=StreamSettings()) as reader:
        found: list[Impression] = []

        def look() -> list[Impression]:
            messages = [record.message for record in reader.poll()]
            found.extend(m for m in messages if isinstance(m, Impression) and m.request_id == request_id)
            return found

        return eventually(look, bool)[0]
