"""The first stage: its formula by hand, and that what it leaves out ranks behind what it keeps."""

from __future__ import annotations

import numpy as np
import pytest

from millrace.evaluation.features import MemoryFeatures
from millrace.evaluation.questions import MISS, Questioner
from millrace.evaluation.stream import Happened
from millrace.ranking.features import SIGNALS, Candidates, HalfLives, Signal
from millrace.ranking.first_stage import first_scores
from millrace.ranking.item_table import ItemTable
from millrace.settings import HOUR_MS, MINUTE_MS, FeatureSettings, RecommenderSettings
from millrace.v1.interaction_pb2 import InteractionType
from millrace.v1.item_pb2 import ItemState

NOW = 1_700_000_000_000
C = 0.001


def table(*popularities: float) -> ItemTable:
    items = ItemTable(10, 5, HalfLives(10 * MINUTE_MS, 6 * HOUR_MS))
    for number, popularity in enumerate(popularities):
        state = ItemState(item_id=f"i{number}", version=1)
        for total in (state.popularity_short, state.popularity_long):
            total.value, total.as_of_ms = popularity, NOW
        items.apply(state, NOW)
    return items


def candidates(items: ItemTable, **signals: list[float]) -> Candidates:
    rows = np.array(list(items.rows.values()), dtype=np.int32)
    found = np.zeros((len(rows), SIGNALS))
    for name, values in signals.items():
        found[:, Signal[name]] = values
    return Candidates(rows, np.zeros(len(rows), dtype=np.int64), found)


def test_the_score_by_hand() -> None:
    items = table(0.0, 8.0)
    found = candidates(
        items, AROUND=[0.5, 0.0], SIMILAR=[0.2, 0.0], AFTER=[0.1, 0.0], BEFORE=[0.3, 0.0], COVISIT=[0.04, 0.0]
    )
    # Six hours are 36 half-lives of the short popularity, and one of the long.
    scores = first_scores(found, items, NOW + 6 * HOUR_MS)
    known = (0.5 + C) * ((0.2 + C) * (0.4 + C)) ** 0.25 * (0.04 + C) ** 0.125
    popular = C * (C * C * (1 + 8 * 2**-36) * (1 + 4)) ** 0.25 * C**0.125
    assert scores == pytest.approx([known, popular], rel=1e-12)


@pytest.mark.parametrize("signal", ["AROUND", "SIMILAR", "AFTER", "BEFORE", "COVISIT"])
def test_more_of_a_signal_is_never_worse(signal: str) -> None:
    items = table(1.0, 1.0, 1.0)
    scores = first_scores(candidates(items, **{signal: [0.0, 0.1, 0.2]}), items, NOW)
    assert scores[0] < scores[1] < scores[2]


def test_a_state_from_after_now_counts_as_it_is() -> None:
    items = table(3.0)
    assert first_scores(candidates(items), items, NOW - HOUR_MS) == first_scores(candidates(items), items, NOW)


def click(number: int, item: str, user: str = "me") -> Happened:
    kind = InteractionType.INTERACTION_TYPE_CLICK
    return Happened(user, item, kind, NOW + number * MINUTE_MS, "", 0.0, "")


def test_what_is_left_out_ranks_behind_what_is_kept() -> None:
    features, recommender = FeatureSettings(), RecommenderSettings(candidates_max=2, fresh_items=0)
    memory = MemoryFeatures(features, recommender)
    for number in range(30):
        # Item n is clicked n + 1 times.
        for again in range(number % 6 + 1):
            event = click(number, f"i{number % 6}", f"user {number} {again}")
            context = memory.meet(event)
            assert context is not None
            memory.learn(event, context)
    memory.ready(None)
    questioner = Questioner(memory, features, recommender, 2, np.random.default_rng(0))
    ranks = []
    for number in range(6):
        question = questioner.before(click(40, f"i{number}"))
        assert len(question.candidates) == 2
        scores = first_scores(question.candidates, memory.table, question.now_ms)
        ranks.append(question.rank(scores))
    assert sorted(ranks) == [1, 2, 3, 4, 5, 6]
    assert ranks[5] == 1
    assert questioner.before(click(40, "never heard of")).rank(scores) == MISS
