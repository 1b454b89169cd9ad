"""Labels by serving time: whatever the order of decisions, and whoever saw them, the same blocks come out once."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from millrace.drift.block import Baseline, Block
from millrace.drift.e_detector import EDetector
from millrace.drift.settling import Settling

LABELS = st.lists(st.tuples(st.integers(0, 20), st.booleans(), st.booleans()), max_size=60)


@given(LABELS, st.integers(0, 22), st.integers(0, 22))
def test_two_workers_merged_hand_out_the_blocks_of_the_whole(
    labels: list[tuple[int, bool, bool]], first: int, second: int
) -> None:
    whole, halves = Settling[Block](), (Settling[Block](), Settling[Block]())
    for at, clicked, left in labels:
        whole.add(at, Block(1, float(clicked), 1.0))
        halves[left].add(at, Block(1, float(clicked), 1.0))
    merged, other = halves
    assert merged.merge(other)
    for below in (first, second, 30):
        assert merged.settle(below) == whole.settle(below)
    assert not merged.blocks


@given(LABELS, st.integers(0, 22))
def test_every_label_is_handed_out_once_in_order_or_refused(labels: list[tuple[int, bool, bool]], below: int) -> None:
    settling = Settling[Block]()
    half = len(labels) // 2
    taken = sum(settling.add(at, Block(1, float(clicked), 1.0)) for at, clicked, _ in labels[:half])
    out = settling.settle(below)
    taken += sum(settling.add(at, Block(1, float(clicked), 1.0)) for at, clicked, _ in labels[half:])
    out += settling.settle(30)
    assert [at for at, _ in out] == sorted({at for at, _ in out})
    assert sum(block.count for _, block in out) == taken
    assert not settling.add(5, Block(1, 0.0, 1.0))


def test_what_was_handed_out_stays_so() -> None:
    """A clock that goes back opens nothing again."""
    settling = Settling[Block]()
    settling.settle(30)
    assert settling.settle(5) == []
    assert not settling.add(10, Block(1, 0.0, 1.0))


def test_growing_traffic_is_no_change_by_serving_time_and_is_one_by_decision() -> None:
    """Clicks come at once, all other labels half an hour later, while traffic grows fourfold within three hours."""
    rng = np.random.default_rng(1)
    minutes = [int(30 * 4 ** min(minute / 180, 1)) for minute in range(300)]
    clicks = [int(rng.binomial(size, 0.05)) for size in minutes]
    baseline = Baseline.of([Block(100_000, 5_000.0, 100_000.0)])
    by_serving, by_decision = EDetector(baseline, 200_000), EDetector(baseline, 200_000)
    settling = Settling[Block]()
    alarms = 0
    for minute in range(300):
        clicked = float(clicks[minute])
        settling.add(minute, Block(clicks[minute], clicked, clicked))
        decided = Block(clicks[minute], clicked, clicked)
        if minute >= 30:
            missed = minutes[minute - 30] - clicks[minute - 30]
            settling.add(minute - 30, Block(missed, 0.0, float(missed)))
            decided += Block(missed, 0.0, float(missed))
        if minute >= 60:
            alarms += by_decision.update(decided) is not None
        for _, block in settling.settle(minute - 30):
            assert by_serving.update(block) is None
    assert alarms > 0
