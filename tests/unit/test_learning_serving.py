"""Following parameters: in order, by reign, and never half of something."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from millrace.learning.parameters import to_vector
from millrace.learning.serving import LINES_MAX, ServedLines, Taken
from millrace.learning.state import LearnerState, fresh
from millrace.learning.updates import snapshot_records
from millrace.ranking.first import first_ranker
from millrace.v1.common_pb2 import SparseValues
from millrace.v1.model_pb2 import ModelUpdate, ParameterUpdate


def state(reign: str = "reign", epoch: int = 1, sequence: int = 0, intercept: float = -6.0) -> LearnerState:
    model = replace(first_ranker(), intercept=intercept)
    return replace(fresh(model, "1", reign, epoch), sequence=sequence)


def update(sequence: int, value: float, epoch: int = 1, reign: str = "reign", index: int = 0) -> ModelUpdate:
    values = SparseValues(indices=[index], values=[value])
    return ModelUpdate(
        update=ParameterUpdate(
            model_name="ranker", reign_id=reign, epoch=epoch, sequence=sequence, parameters=values, model_version="1"
        )
    )


def lines(*states: LearnerState) -> ServedLines:
    served = ServedLines("ranker")
    for one in states:
        [record] = snapshot_records("ranker", one, 1)
        assert served.apply(record) is Taken.APPLIED
    return served


def snapshot(one: LearnerState) -> ModelUpdate:
    [record] = snapshot_records("ranker", one, 1)
    return record


def weight(served: ServedLines, reign: str = "reign") -> float:
    line = served.of(reign)
    assert line is not None
    return float(line.model().weights[0])


def test_updates_are_applied_in_order_and_once() -> None:
    served = lines(state())
    assert served.apply(update(1, 0.1)) is Taken.APPLIED
    assert served.apply(update(2, 0.2)) is Taken.APPLIED
    assert served.apply(update(1, 0.1)) is Taken.PASSED
    assert weight(served) == 0.2


def test_after_a_gap_only_a_snapshot_goes_on() -> None:
    served = lines(state())
    assert served.apply(update(2, 0.2)) is Taken.GAP
    assert served.apply(update(1, 0.1)) is Taken.GAP
    before = weight(served)
    assert served.apply(update(3, 0.3)) is Taken.GAP
    assert weight(served) == before
    assert served.apply(snapshot(state(sequence=3, intercept=-1.0))) is Taken.APPLIED
    assert served.apply(update(4, 0.4)) is Taken.APPLIED
    assert weight(served) == 0.4


def test_a_new_epoch_begins_with_its_snapshot() -> None:
    served = lines(state(sequence=7))
    assert served.apply(update(1, 9.0, epoch=2)) is Taken.GAP
    assert served.apply(snapshot(state(epoch=2))) is Taken.APPLIED
    assert served.apply(update(8, 9.0, epoch=1)) is Taken.PASSED
    assert served.apply(snapshot(state(epoch=1, sequence=9))) is Taken.PASSED
    assert served.apply(update(1, 0.5, epoch=2)) is Taken.APPLIED
    assert weight(served) == 0.5


def test_reigns_do_not_mix() -> None:
    served = lines(state("old", epoch=1), state("new", epoch=2))
    assert served.apply(update(1, 0.1, epoch=1, reign="old")) is Taken.APPLIED
    assert served.apply(update(1, 0.2, epoch=2, reign="new")) is Taken.APPLIED
    assert (weight(served, "old"), weight(served, "new")) == (0.1, 0.2)
    assert served.of("unknown") is None
    assert served.apply(update(1, 0.3, reign="unknown")) is Taken.GAP
    other = update(1, 0.3)
    other.update.model_name = "other"
    assert served.apply(other) is Taken.PASSED


def test_what_cannot_be_served_is_refused_and_a_snapshot_mends_it() -> None:
    for bad in (
        update(1, math.nan),
        update(1, 1.0, index=10_000),
        update(1, -1.0, index=2 * len(first_ranker().columns) + 7),
    ):
        served = lines(state())
        line = served.of("reign")
        assert line is not None
        before = line.vector.copy()
        assert served.apply(bad) is Taken.REFUSED
        assert (line.vector == before).all()
        assert served.apply(update(2, 0.1)) is Taken.GAP
        assert served.apply(snapshot(state(sequence=2))) is Taken.APPLIED


def test_a_model_of_a_line_is_the_learners() -> None:
    served = lines(state(intercept=-2.5))
    line = served.of("reign")
    assert line is not None
    np.testing.assert_array_equal(to_vector(line.model()), to_vector(state(intercept=-2.5).model))
    assert line.model().feature_schema == first_ranker().feature_schema


def test_only_so_many_lines_are_kept() -> None:
    served = lines(*(state(f"reign {number}", epoch=number) for number in range(2 * LINES_MAX)))
    assert served.of("reign 0") is None
    assert served.of(f"reign {2 * LINES_MAX - 1}") is not None
