"""Impressions and interactions for tests of the joiner."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from millrace.events.build import EventType, interaction
from millrace.ranking.features import FEATURE_NAMES, FEATURE_SCHEMA
from millrace.v1.impression_pb2 import AnswerStatus, Fallback, Impression, Slot
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.outcome_pb2 import ImpressionOrigin, Label, Outcome

T0 = 1_700_000_000_000


def impression(request_id: str, user_id: str, items: Sequence[str], at_ms: int = T0, viewport: int = 10) -> Impression:
    """An answer that shows some items, with made-up features."""
    chance = random.Random(request_id)
    return Impression(
        request_id=request_id,
        user_id=user_id,
        served_at_ms=at_ms,
        model_name="ranker",
        model_version="1",
        propensity=1.0,
        feature_schema=FEATURE_SCHEMA,
        status=AnswerStatus.ANSWER_STATUS_OK,
        fallback=Fallback.FALLBACK_NONE,
        viewport=viewport,
        slots=[
            Slot(item_id=item, rank=rank, score=0.1, features=[chance.random() for _ in FEATURE_NAMES])
            for rank, item in enumerate(items)
        ],
    )


def act(
    user_id: str, item_id: str, kind: EventType = "click", at_ms: int = T0, request_id: str = "", event_id: str = ""
) -> Interaction:
    """Something that a user did."""
    event = interaction(
        user_id,
        item_id,
        kind,
        occurred_at=at_ms,
        request_id=request_id,
        value=4.0 if kind in ("purchase", "rating") else None,
    )
    if event_id:
        event.event_id = event_id
    return event


def labels(outcomes: Iterable[Outcome]) -> dict[tuple[str, str], str]:
    """Label of each decided slot by answer and item; fails where one is decided twice."""
    found: dict[tuple[str, str], str] = {}
    for outcome in outcomes:
        for decided in outcome.slots:
            key = outcome.request_id, decided.slot.item_id
            assert key not in found, f"{key} is decided twice"
            found[key] = Label.Name(decided.label).removeprefix("LABEL_").lower()
    return found


def check_frames(outcomes: Iterable[Outcome]) -> None:
    """Each served impression has exactly one first outcome, and it comes first; after the final one comes none."""
    begun: set[str] = set()
    ended: set[str] = set()
    for outcome in outcomes:
        assert outcome.request_id not in ended
        assert outcome.first == (outcome.request_id not in begun)
        begun.add(outcome.request_id)
        if outcome.final:
            ended.add(outcome.request_id)
        if outcome.origin == ImpressionOrigin.IMPRESSION_ORIGIN_SERVED:
            assert not outcome.impression.slots
            assert outcome.impression.request_id == outcome.request_id
