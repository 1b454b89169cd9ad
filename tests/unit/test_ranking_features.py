"""Features: finite whatever the state, and each what its line in the table says."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.ranking.circumstances import FIELDS
from millrace.ranking.compute import compute_features
from millrace.ranking.features import (
    FEATURE_NAMES,
    FEATURE_SCHEMA,
    Candidates,
    HalfLives,
    ItemColumn,
    UserActivity,
    item_row,
)
from millrace.ranking.first import first_ranker
from millrace.settings import DAY_MS, HOUR_MS, MINUTE_MS
from millrace.v1.common_pb2 import DecayedSum, InteractionCounts
from millrace.v1.impression_pb2 import CandidateSource
from millrace.v1.item_pb2 import Item, ItemState

NOW = 1_700_000_000_000
HALF_LIVES = HalfLives(short_ms=10 * MINUTE_MS, long_ms=6 * HOUR_MS)

times = st.one_of(st.just(0), st.integers(631_152_000_000, 4_000_000_000_000))
counts = st.integers(0, 2**63 - 1)
sums = st.floats(0, 1e300)


@st.composite
def item_states(draw: st.DrawFn) -> ItemState:
    state = ItemState(first_seen_ms=draw(times), last_seen_ms=draw(times))
    for total in (state.popularity_short, state.popularity_long):
        total.value, total.as_of_ms = draw(sums), draw(times)
    for name in ("views", "clicks", "likes", "dislikes"):
        setattr(state.counts, name, draw(counts))
    state.catalogue.published_at_ms = draw(times)
    return state


@st.composite
def states(draw: st.DrawFn) -> tuple[Candidates, np.ndarray, UserActivity, int]:
    n = draw(st.integers(0, 5))
    items = np.array([item_row(draw(item_states())) for _ in range(n)]).reshape(n, len(ItemColumn))

    def numbers(values: st.SearchStrategy[float] | st.SearchStrategy[int], count: int = n) -> np.ndarray:
        return np.array(draw(st.lists(values, min_size=count, max_size=count)), dtype=np.float64)

    candidates = Candidates(
        rows=np.arange(n, dtype=np.int32),
        sources=numbers(st.integers(0, 255)).astype(np.int64),
        signals=np.stack(
            [
                *numbers(st.floats(0, 3), 3 * n).reshape(3, n),
                numbers(times),
                numbers(st.integers(0, 64)),
                *numbers(st.floats(0, 1), 7 * n).reshape(7, n),
                numbers(st.integers(0, 10**6)),
                *numbers(st.floats(-20, 20), (len(FIELDS) + 2) * n).reshape(len(FIELDS) + 2, n),
            ],
            axis=1,
        ),
    )
    return candidates, items, UserActivity(draw(sums), draw(times)), draw(times)


@given(states())
def test_features_and_scores_are_finite(state: tuple[Candidates, np.ndarray, UserActivity, int]) -> None:
    candidates, items, user, now_ms = state
    features = compute_features(candidates, items, user, now_ms, HALF_LIVES)
    assert features.shape == (len(candidates), len(FEATURE_NAMES))
    assert features.dtype == np.float32
    assert np.isfinite(features).all()
    scores = first_ranker().score(features)
    assert ((scores >= 0) & (scores <= 1)).all()


def one(
    *,
    covisit: float = 0.0,
    sources: int = 0,
    seen_count: int = 0,
    seen_at_ms: int = 0,
    sessions: Sequence[float] = (0.0,) * 8,
    lifts: Sequence[float] = (0.0,) * len(FIELDS),
    tastes: Sequence[float] = (0.0, 0.0),
    user: UserActivity | None = None,
    state: ItemState | None = None,
) -> dict[str, float]:
    candidates = Candidates(
        rows=np.zeros(1, dtype=np.int32),
        sources=np.array([sources]),
        signals=np.array(
            [[covisit, covisit / 2, 0.25, seen_at_ms, seen_count, *sessions, *lifts, *tastes]], dtype=np.float64
        ),
    )
    items = np.array([item_row(state or ItemState())])
    row = compute_features(candidates, items, user or UserActivity(), NOW, HALF_LIVES)[0]
    return dict(zip(FEATURE_NAMES, row.tolist(), strict=True))


def popular(short: float, short_as_of_ms: int, long: float, long_as_of_ms: int) -> ItemState:
    return ItemState(
        popularity_short=DecayedSum(value=short, as_of_ms=short_as_of_ms),
        popularity_long=DecayedSum(value=long, as_of_ms=long_as_of_ms),
    )


def test_sessions() -> None:
    found = one(sessions=(0.5, 0.25, 0.1, 0.05, 0.01, 0.2, 1.0, 9))
    logs = [found[name] for name in ("similar_log", "similar_near_log", "after_log", "before_log", "after_newest_log")]
    assert logs == pytest.approx([math.log(share + 0.001) for share in (0.5, 0.25, 0.1, 0.05, 0.01)])
    assert (found["similar"], found["newest"]) == (0.5, 1.0)
    assert found["in_sessions"] == pytest.approx(math.log1p(9))
    assert (found["around"], found["around_log"]) == pytest.approx((0.2, math.log(0.201)))


def test_circumstances() -> None:
    found = one(lifts=[0.1 * place for place in range(len(FIELDS))])
    assert [found[f"context_{name}"] for name in FIELDS] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6])


def test_tastes() -> None:
    found = one(tastes=(0.5, -1.5))
    assert (found["taste"], found["taste_session"]) == (0.5, -1.5)


def test_covisitation() -> None:
    row = one(covisit=0.4)
    assert (row["covisit"], row["covisit_last"], row["covisit_support"]) == pytest.approx((0.4, 0.2, 0.25))
    assert row["covisit_log"] == pytest.approx(math.log(0.401), rel=1e-6)
    assert one()["covisit_log"] == pytest.approx(math.log(0.001), rel=1e-6)


def test_popularity_decays_to_now_with_its_half_life() -> None:
    row = one(state=popular(8, NOW - 20 * MINUTE_MS, 8, NOW - 6 * HOUR_MS))
    assert row["popularity_short"] == pytest.approx(math.log1p(2), rel=1e-6)
    assert row["popularity_long"] == pytest.approx(math.log1p(4), rel=1e-6)
    assert row["trend"] == pytest.approx(2 / 5, rel=1e-6)


def test_a_state_from_after_as_of_is_taken_as_it_is() -> None:
    state = popular(8, NOW + DAY_MS, 8, NOW + DAY_MS)
    state.first_seen_ms = state.last_seen_ms = NOW + DAY_MS
    row = one(state=state)
    assert row["popularity_short"] == pytest.approx(math.log1p(8), rel=1e-6)
    assert row["idle"] == 0
    assert row["age"] == 0


def test_ages_and_unknown_times() -> None:
    known = one(state=ItemState(first_seen_ms=NOW - 3 * HOUR_MS, last_seen_ms=NOW - 5 * MINUTE_MS))
    assert known["age"] == pytest.approx(math.log1p(3), rel=1e-6)
    assert known["idle"] == pytest.approx(math.log1p(5), rel=1e-6)
    published = ItemState(first_seen_ms=NOW - 3 * HOUR_MS, catalogue=Item(published_at_ms=NOW - HOUR_MS))
    assert one(state=published)["age"] == pytest.approx(math.log(2), rel=1e-6)
    unknown = one()
    assert unknown["age"] == 0
    assert unknown["idle"] == pytest.approx(math.log1p(30 * 24 * 60), rel=1e-6)


def test_click_through_needs_views() -> None:
    unseen = ItemState(counts=InteractionCounts(clicks=1_000))
    assert one(state=unseen)["click_through"] == pytest.approx(0.05)
    seen = ItemState(counts=InteractionCounts(clicks=50, views=980))
    assert one(state=seen)["click_through"] == pytest.approx(51 / 1_000)


def test_approval_is_smoothed() -> None:
    assert one()["approval"] == 0.5
    liked = ItemState(counts=InteractionCounts(likes=2, dislikes=1))
    assert one(state=liked)["approval"] == pytest.approx(3 / 5)


def test_repeats() -> None:
    never = one()
    assert (never["seen"], never["seen_ago"], never["seen_count"]) == (0, 0, 0)
    twice = one(seen_count=2, seen_at_ms=NOW - 9 * MINUTE_MS)
    assert twice["seen"] == 1
    assert twice["seen_ago"] == pytest.approx(math.log(10), rel=1e-6)
    assert twice["seen_count"] == pytest.approx(math.log(3), rel=1e-6)


@pytest.mark.parametrize("source", ["TRENDING_SHORT", "TRENDING_LONG", "FRESH"])
def test_source_flags(source: str) -> None:
    flags = one(sources=1 << CandidateSource.Value(f"CANDIDATE_SOURCE_{source}"))
    assert [name for name in FEATURE_NAMES if name.startswith("from_") and flags[name]] == [f"from_{source.lower()}"]


def test_user() -> None:
    row = one(user=UserActivity(engagements=3.0, last_seen_ms=NOW - MINUTE_MS))
    assert row["user_activity"] == pytest.approx(math.log(4), rel=1e-6)
    assert row["user_idle"] == pytest.approx(math.log(2), rel=1e-6)


def test_the_schema_is_named_after_its_columns() -> None:
    """Another list of columns needs another name: logged features are read by it for weeks."""
    assert FEATURE_SCHEMA == "v1-1bc93355"
    assert len(set(FEATURE_NAMES)) == len(FEATURE_NAMES)
