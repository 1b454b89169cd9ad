"""What of ``interactions`` gets into the index of recent sessions."""

from __future__ import annotations

from millrace.features.session_intake import SessionIntake
from millrace.ranking.corpus import Corpus
from millrace.settings import FeatureSettings, RecommenderSettings
from millrace.v1.interaction_pb2 import Interaction, InteractionType
from tests.unit.test_ranking_session_index import T0, runs


def event(item: str, name: str = "click", user: str = "anna", event_id: str = "") -> Interaction:
    kind = InteractionType.Value(f"INTERACTION_TYPE_{name.upper()}")
    return Interaction(event_id=event_id or f"{name} {item}", user_id=user, item_id=item, type=kind, occurred_at_ms=T0)


def test_engagements_count_once_and_the_rest_says_nothing() -> None:
    sessions = Corpus.empty(FeatureSettings(), RecommenderSettings(mirror_items_max=100)).sessions
    intake = SessionIntake(sessions)
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
