"""The evaluator's features in memory are what Redis, the scripts and the mirror make of the same events."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given

from millrace.evaluation.features import MemoryFeatures
from millrace.features.event_intake import EventIntake
from millrace.features.user_state import UserState
from millrace.features.writer import FeatureWriter
from millrace.ranking.candidates import CandidateLimits, CandidateRequest, generate
from millrace.ranking.compute import compute_features
from millrace.ranking.corpus import Corpus
from millrace.ranking.features import HalfLives, UserActivity
from millrace.ranking.item_table import NO_ROW, ItemTable
from millrace.settings import HOUR_MS, MINUTE_MS, FeatureSettings, RecommenderSettings
from tests.feature_ledger import Logged
from tests.feature_logs import ITEMS, PROPERTY, USERS, logs
from tests.feature_support import T0, CrashingStore, close, connected, events_of, load_item, load_user

# Small bounds and half-lives, so that a few dozen events go over each of them: neighbour lists are trimmed (6 of at
# most 7 other items would not be), and their landmark moves (256 half-lives are less than the three hours of a log).
FEATURES = FeatureSettings(
    backward_weight=0.2,
    dedup_window=10,
    recent_kept=12,
    user_batch_max=5,
    session_context=4,
    half_life_short_ms=10 * MINUTE_MS,
    neighbour_half_life_ms=30_000,
    neighbours_kept=3,
)
# Nothing is cut: of two items that are equal but for rounding, either may be cut.
LIMITS = CandidateLimits(candidates_max=50, context_items=3, session_items=4, trending_items=50, fresh_items=2)
RECOMMENDER = RecommenderSettings(mirror_items_max=100, session_runs_max=6)
HALF_LIVES = HalfLives(FEATURES.half_life_short_ms, FEATURES.half_life_long_ms)


@pytest.fixture(scope="module")
def store(redis_url: str) -> Iterator[CrashingStore]:
    store = connected(redis_url)
    yield store
    store.close()


@PROPERTY
@given(log=logs(partitions=1))
def test_memory_equals_the_pipeline(store: CrashingStore, log: list[Logged]) -> None:
    """Users, table, candidates and features; also where the table was read, in part, between the events."""
    log = [Logged(0, offset, logged.event) for offset, logged in enumerate(log)]
    store.ask("FLUSHDB")
    FeatureWriter(store, FEATURES).take(events_of(log))
    memory = MemoryFeatures(FEATURES, RECOMMENDER)
    for _, _, event in log:
        memory.take(event)
        memory.ready(memory.users.get(event.user_id))
    memory.ready_all()

    corpus = Corpus.empty(FEATURES, RECOMMENDER)
    mirror = corpus.table
    for item_id in ITEMS:
        state = load_item(store, item_id, FEATURES)
        assert (state is None) == (item_id not in memory.table.rows)
        if state is not None:
            mirror.apply(state, appended_ms=0)
    for item_id, row in mirror.rows.items():
        ours = memory.table.rows[item_id]
        assert memory.table.items[ours].tolist() == close(mirror.items[row].tolist())
        assert memory.table.short_order[ours] == close(mirror.short_order[row])
        assert memory.table.long_order[ours] == close(mirror.long_order[row])
        assert memory.table.clicks[ours] == mirror.clicks[row]
        assert memory.table.servable[ours]
        assert mirror.servable[row]
        assert neighbours(memory.table, ours) == neighbours(mirror, row)
    corpus.popular.refresh()
    intake = EventIntake(corpus)
    for _, _, event in log:
        intake.take(event)
    for user_id in USERS:
        known = memory.users.get(user_id)
        ours_state, theirs = known.state() if known else None, load_user(store, user_id)
        assert (ours_state is None) == (theirs is None)
        if ours_state is None or theirs is None:
            continue
        assert replace(ours_state, decayed={}, purchase_value=0) == replace(theirs, decayed={}, purchase_value=0)
        assert ours_state.purchase_value == close(theirs.purchase_value)
        answers = [
            answer(memory.corpus, user_id, ours_state),
            answer(corpus, user_id, theirs),
        ]
        assert answers[0].keys() == answers[1].keys()
        for item_id, features in answers[0].items():
            assert features == pytest.approx(answers[1][item_id], rel=1e-5, abs=1e-5)


def neighbours(table: ItemTable, row: int) -> list[tuple[str, object]]:
    """Neighbours and shares, in the order of the table. Weights that rounding made unequal may change places."""
    pairs = zip(table.neighbours[row].tolist(), table.shares[row].tolist(), strict=True)
    return sorted((table.id_of(other), pytest.approx(share, rel=1e-6)) for other, share in pairs if other != NO_ROW)


def answer(corpus: Corpus, user_id: str, user: UserState) -> dict[str, np.typing.NDArray[np.float32]]:
    """Item -> features of each candidate, an hour after the log's end."""
    now_ms = T0 + 4 * HOUR_MS
    table = corpus.table
    request = CandidateRequest(k=3, user_id=user_id, recent=user.recent, blocked=user.disliked)
    candidates = generate(corpus, request, LIMITS, np.random.default_rng(1))
    activity = UserActivity(user.engagements(now_ms, FEATURES.user_half_life_ms), user.last_seen_ms)
    features = compute_features(candidates, table.items, activity, now_ms, HALF_LIVES)
    return {table.id_of(row): one for row, one in zip(candidates.rows.tolist(), features, strict=True)}
