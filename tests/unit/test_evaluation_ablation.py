"""The learner ablation from end to end, on a stream that can be learned."""

from __future__ import annotations

import pytest

from millrace.evaluation.learner_ablation import CONTENDERS, OWN_ORDER, REFERENCE, run
from millrace.settings import Settings
from tests.evaluation_support import stream


def test_contenders_are_compared_on_the_same_events() -> None:
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1

    rows = run(stream(200), Settings(), every=2, warm_up=400, seed=0, step=step)
    assert steps == 1_000
    assert [row.learner for row in rows] == [OWN_ORDER, *CONTENDERS]
    by_name = {row.learner: row for row in rows}
    # Four clicks of a session have one before them, every other one is asked for, and 400 of 1,000 are not counted.
    assert {row.n for row in rows} == {240}
    assert by_name[REFERENCE].hr_gain == by_name[REFERENCE].mrr_gain == (0.0, 0.0, 0.0)
    for row in rows:
        assert row.hr[0] > 0.6, row.learner
        assert row.mrr_gain[0] == pytest.approx(row.mrr[0] - by_name[REFERENCE].mrr[0], abs=1e-12)
        for slots in row.slots.values():
            assert abs(slots["platt_bias"] - 1) < 0.5
