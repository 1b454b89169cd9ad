"""What of ``interactions`` gets into the index of recent sessions and the counts by circumstances."""

from __future__ import annotations

from zlib import crc32

import numpy as np
import pytest

from millrace.features.event_intake import EventIntake
from millrace.ranking.circumstances import FIELDS, circumstances
from millrace.ranking.corpus import Corpus
from millrace.settings import FeatureSettings, RecommenderSettings
from millrace.v1.common_pb2 import Context
from millrace.v1.interaction_pb2 import Interaction, InteractionType
from tests.unit.test_ranking_session_index import T0, runs


def event(item: str, name: str = "click", user: str = "anna", event_id: str = "") -> Interaction:
    kind = InteractionType.Value(f"INTERACTION_TYPE_{name.upper()}")
    return Interaction(event_id=event_id or f"{name} {item}", user_id=user, item_id=item, type=kind, occurred_at_ms=T0)


def test_engagements_count_once_and_the_rest_says_nothing() -> None:
    corpus = Corpus.empty(FeatureSettings(), RecommenderSettings(mirror_items_max=100))
    sessions = corpus.sessions
    intake = EventIntake(corpus)
    for one in (
        event("a"),
        event("b", "view"),
        event("c", "purchase"),
        event("d", "dislike"),
        event("a", event_id="click a"),
        event("a", event_id="once more"),
        event("x", user="bob", event_id="click a"),
        event("y", event_id="view b"),
    ):
        intake.take(one)
    assert runs(sessions) == [["a", "c", "a"], ["x"]]
    forget = Interaction(
        event_id="f", user_id="anna", type=InteractionType.INTERACTION_TYPE_FORGET, occurred_at_ms=T0 + 1
    )
    intake.take(forget)
    assert runs(sessions) == [["x"]]


SOUTH = Context(region="south")


def lift(corpus: Corpus, item: str) -> float:
    keys = np.array([crc32(item.encode())], dtype=np.uint32)
    found, row = np.zeros((1, len(FIELDS))), np.zeros(1, dtype=np.int32)
    corpus.contexts.add_lifts(circumstances(SOUTH), row, keys, T0, found)
    return float(found[0, FIELDS.index("region")])


def test_counts_without_a_click_are_those_before_it() -> None:
    corpus = Corpus.empty(FeatureSettings(), RecommenderSettings(mirror_items_max=100))
    intake = EventIntake(corpus)
    for place, item in enumerate("aab"):
        one = event(item, event_id=str(place))
        one.context.CopyFrom(SOUTH if place else Context(region="north"))
        intake.take(one)
    before = lift(corpus, "c")
    click = event("c", event_id="click")
    click.context.CopyFrom(SOUTH)
    with intake.without(click):
        assert lift(corpus, "c") == before, "it was not taken yet"
    intake.take(click)
    after = lift(corpus, "c")
    assert after > before
    with intake.without(click):
        assert lift(corpus, "c") == pytest.approx(before)
    assert lift(corpus, "c") == pytest.approx(after)
    view = event("c", "view", event_id="view")
    intake.take(view)
    with intake.without(view):
        assert lift(corpus, "c") == pytest.approx(after), "a view counts nothing"
