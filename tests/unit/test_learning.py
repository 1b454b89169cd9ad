"""Online learning: what is learned, that a stop anywhere changes nothing, and what is refused."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.errors import InvalidField, MillraceError
from millrace.learning.examples import FEATURE_MAX, read_examples
from millrace.learning.learner import OnlineRanker
from millrace.learning.parameters import apply, changed, from_vector, to_vector, vector_size
from millrace.learning.state import LearnerState, fresh
from millrace.learning.updates import CHUNK_BYTES, Lines, SnapshotAssembler, snapshot_records
from millrace.ranking.features import FEATURE_NAMES, FEATURE_SCHEMA, FloatMatrix
from millrace.ranking.first import first_ranker
from millrace.ranking.model import UnusableModel
from millrace.settings import LearnerSettings
from millrace.v1.common_pb2 import Position, SparseValues
from millrace.v1.model_pb2 import ModelUpdate, ParameterUpdate
from millrace.v1.outcome_pb2 import Outcome
from tests.learning_support import D, outcomes, truth

EXAMPLES = [read_examples(outcome, FEATURE_SCHEMA, D) for outcome in outcomes(200)]
ROWS = [row for rows, _ in EXAMPLES for row in rows]
LABELS = [label for _, labels in EXAMPLES for label in labels]


def start() -> LearnerState:
    return fresh(first_ranker(), "1", "reign", epoch=1)


def test_it_learns_what_the_world_is_like() -> None:
    ranker = OnlineRanker(start())
    slots = [read_examples(outcome, FEATURE_SCHEMA, D) for outcome in outcomes(2_000, seed=2)]
    losses = [ranker.learn(rows, labels) / len(rows) for rows, labels in slots]
    assert np.mean(losses[-500:]) < 0.6 < np.mean(losses[:100])
    model = ranker.model()
    chances = model.score(np.concatenate((np.eye(D), -np.eye(D))).astype(np.float32)).astype(np.float64)
    odds = np.log(chances) - np.log1p(-chances)
    assert np.corrcoef(odds[:D] - odds[D:], truth(7))[0, 1] > 0.75
    assert ranker.examples == 10_000
    assert model.observations == 11_000


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, len(ROWS)), max_size=6))
def test_stops_and_buffers_change_nothing(cuts: list[int]) -> None:
    whole = OnlineRanker(start())
    whole.learn(ROWS, LABELS)
    state = start()
    places = [0, *sorted(cuts), len(ROWS)]
    for first, last in pairwise(places):
        ranker = OnlineRanker(LearnerState.from_bytes(state.to_bytes()))
        ranker.learn(ROWS[first:last], LABELS[first:last])
        state = ranker.state(1, {0: last}, "topic")
    assert (to_vector(state.model) == to_vector(whole.model())).all()
    assert (state.squared_gradients == whole.state(1, {}, "").squared_gradients).all()
    assert state.examples == len(ROWS)


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_it_learns_and_scores_as_rivers_pipeline(scale: float) -> None:
    """Also where predictions are as good as certain, and for a feature that never varies."""
    rows = [[0.0, *(scale * float(value) for value in row[1:])] for row in ROWS]
    model = first_ranker()
    model = replace(model, variances=model.variances * (np.arange(len(model.columns)) > 0))
    ranker = OnlineRanker(fresh(model, "1", "reign", epoch=1))
    loss = ranker.learn(rows, LABELS)
    pipeline, theirs = model.to_river(), 0.0
    for row, label in zip(rows, LABELS, strict=True):
        x = pipeline["Terms"].transform_one(dict(zip(FEATURE_NAMES, row, strict=True)))
        pipeline["StandardScaler"].learn_one(x)
        z = pipeline["StandardScaler"].transform_one(x)
        theirs -= math.log(max(pipeline["LogisticRegression"].predict_proba_one(z)[label], 1e-12))
        pipeline["LogisticRegression"].learn_one(z, label)
    state, scaler, regression = ranker.state(1, {}, ""), pipeline["StandardScaler"], pipeline["LogisticRegression"]
    for ours, by_name in (
        (state.model.means, scaler.means),
        (state.model.variances, scaler.vars),
        (state.model.weights, regression.weights),
        (state.squared_gradients, regression.optimizer.g2),
    ):
        np.testing.assert_allclose(ours, [by_name[name] for name in model.columns], rtol=1e-9, atol=1e-12)
    assert (state.model.intercept, loss) == pytest.approx((regression.intercept, theirs), rel=1e-9)
    scores = [pipeline.predict_proba_one(dict(zip(FEATURE_NAMES, row, strict=True)))[True] for row in rows[:100]]
    np.testing.assert_allclose(ranker.model().score(np.array(rows[:100], dtype=np.float32)), scores, atol=1e-6)


def test_the_largest_features_allowed_keep_parameters_finite() -> None:
    ranker = OnlineRanker(start())
    for sign in (1, -1, 1, -1):
        ranker.learn([[sign * FEATURE_MAX] * D] * 50, [sign > 0] * 50)
        ranker.learn(ROWS[:50], LABELS[:50])
    assert np.isfinite(to_vector(ranker.model())).all()


def broken(change: Callable[[Outcome], None]) -> Outcome:
    outcome = next(outcomes(1))
    change(outcome)
    return outcome


def set_feature(value: float) -> Callable[[Outcome], None]:
    def change(outcome: Outcome) -> None:
        outcome.slots[2].slot.features[3] = value

    return change


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda one: setattr(one.impression, "feature_schema", "v0-other"), "impression.feature_schema"),
        (set_feature(math.nan), "slots[2].slot.features[3]"),
        (set_feature(-math.inf), "slots[2].slot.features[3]"),
        (set_feature(2 * FEATURE_MAX), "slots[2].slot.features[3]"),
        (lambda one: one.slots[1].slot.features.append(1.0), "slots[1].slot.features"),
        (lambda one: setattr(one.slots[0], "label", 0), "slots[0].label"),
        (lambda one: one.ClearField("user_id"), "user_id"),
        (lambda one: one.ClearField("request_id"), "request_id"),
    ],
)
def test_outcomes_that_break_a_rule_are_refused_by_field(change: Callable[[Outcome], None], field: str) -> None:
    with pytest.raises(InvalidField) as refused:
        read_examples(broken(change), FEATURE_SCHEMA, D)
    assert refused.value.field == field


def test_unseen_slots_are_no_examples_whatever_they_hold() -> None:
    def change(outcome: Outcome) -> None:
        set_feature(math.nan)(outcome)
        outcome.slots[2].label = 3  # type: ignore[assignment]  # UNSEEN

    rows, labels = read_examples(broken(change), FEATURE_SCHEMA, D)
    assert len(rows) == len(labels) == 4


def test_an_answer_that_failed_teaches_nothing_and_is_no_bad_outcome() -> None:
    failed = broken(lambda outcome: outcome.ClearField("slots"))
    failed.impression.ClearField("feature_schema")
    rows, labels = read_examples(failed, FEATURE_SCHEMA, D)
    assert (rows.shape, labels) == ((0, D), [])


def test_updates_carry_what_changed() -> None:
    model = first_ranker()
    before = to_vector(model)
    assert len(before) == vector_size(len(model.columns))
    after, intercept = before.copy(), len(model.columns)
    after[[2, intercept]] = 0.25, -3.0
    values = changed(before, after)
    assert list(values.indices) == [2, intercept]
    assert from_vector(model, apply(before, values)).intercept == -3.0
    assert (to_vector(from_vector(model, before)) == before).all()
    with pytest.raises(InvalidField):
        apply(before, SparseValues(indices=[len(before)], values=[1.0]))
    with pytest.raises(InvalidField):
        apply(before, SparseValues(indices=[0, 1], values=[1.0]))
    with pytest.raises(UnusableModel):
        from_vector(model, apply(before, SparseValues(indices=[0], values=[math.nan])))


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_state_cut_short_is_refused(keep: float) -> None:
    content = start().to_bytes()
    cut = content[: int(keep * len(content)) if keep < 1 else int(keep)]
    with pytest.raises(UnusableModel):
        LearnerState.from_bytes(cut)


def test_a_state_is_what_it_was_after_the_way_through_bytes() -> None:
    state = replace(start(), sequence=5, examples=9, topic_id="t", learned={2: 7, 0: 3})
    again = LearnerState.from_bytes(state.to_bytes())
    assert again.to_bytes() == state.to_bytes()
    assert again.learned == {0: 3, 2: 7}
    assert again.checkpoint_id == "1.1.5"


def chunks(state: LearnerState) -> list[ModelUpdate]:
    """A snapshot in several pieces."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("millrace.learning.updates.CHUNK_BYTES", 500)
        return snapshot_records("ranker", state, 1)


def test_snapshots_go_through_pieces() -> None:
    state = start()
    assert len(snapshot_records("ranker", state, 1)) == 1 <= len(state.to_bytes()) // CHUNK_BYTES + 1
    pieces = chunks(state)
    assert len(pieces) > 3
    whole = SnapshotAssembler()
    found = [whole.add(piece.snapshot) for piece in pieces]
    assert found[:-1] == [None] * (len(pieces) - 1)
    assert found[-1] is not None
    assert found[-1].to_bytes() == state.to_bytes()


@pytest.mark.parametrize("damage", ["lost", "first lost", "swapped", "changed", "other"])
def test_damaged_snapshots_are_passed_over(damage: str) -> None:
    pieces = chunks(start())
    if damage == "lost":
        del pieces[1]
    elif damage == "first lost":
        del pieces[0]
    elif damage == "swapped":
        pieces[1], pieces[2] = pieces[2], pieces[1]
    elif damage == "changed":
        pieces[1].snapshot.payload = bytes(len(pieces[1].snapshot.payload))
    else:
        pieces[1].snapshot.sha256 = b"another"
    lines = Lines("ranker")
    for piece in pieces:
        lines.apply(piece)
    assert not lines.newest
    for piece in chunks(replace(start(), epoch=2)):
        lines.apply(piece)
    assert {reign: state.epoch for reign, state in lines.newest.items()} == {"reign": 2}


def test_lines_know_the_newest_state_of_each_reign_and_the_highest_epoch() -> None:
    lines = Lines("ranker")
    for reign, epoch in (("a", 1), ("b", 2), ("b", 3)):
        for piece in chunks(replace(start(), reign_id=reign, epoch=epoch)):
            lines.apply(piece)
    lines.apply(ModelUpdate(update=ParameterUpdate(model_name="ranker", epoch=4)))
    lines.apply(ModelUpdate(update=ParameterUpdate(model_name="other", epoch=9)))
    assert {reign: state.epoch for reign, state in lines.newest.items()} == {"a": 1, "b": 3}
    assert lines.epoch == 4


def test_lines_know_how_far_was_learned_to_the_last_update() -> None:
    lines = Lines("ranker")
    for piece in chunks(replace(start(), topic_id="t", learned={0: 10, 1: 4})):
        lines.apply(piece)
    assert (lines.learned, lines.topic_id) == ({0: 10, 1: 4}, "t")
    learned = [Position(topic_id="t", partition=number, offset=offset) for number, offset in ((0, 24), (1, 3))]
    lines.apply(ModelUpdate(update=ParameterUpdate(model_name="ranker", epoch=1, sequence=1, learned=learned)))
    assert (lines.learned, lines.topic_id) == ({0: 25, 1: 4}, "t")
    # Before the first outcome there is nothing to say.
    lines.apply(ModelUpdate(update=ParameterUpdate(model_name="ranker", epoch=1, sequence=2)))
    assert (lines.learned, lines.topic_id) == ({0: 25, 1: 4}, "t")


def test_the_largest_buffer_and_a_checkpoint_stay_within_their_bounds() -> None:
    largest = 100_000
    with pytest.raises(MillraceError, match=r"ONLINE_LEARNING_BUFFER_SIZE: .* less than or equal to 100000"):
        LearnerSettings(buffer_size=largest + 1)
    (outcome,) = outcomes(1)
    tracemalloc.start()
    rows: list[FloatMatrix] = []
    while len(rows) * len(outcome.slots) < largest / 50:
        rows.append(read_examples(outcome, FEATURE_SCHEMA, D)[0])
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held * 50 < 30e6
    # As many parameters as the schema has room for, and as much again for the optimizer: no more as learning goes on.
    assert len(fresh(first_ranker(), "1", "a reign", 1).to_bytes()) < 500e6
