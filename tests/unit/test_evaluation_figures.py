"""Figures against values computed by hand, and how periods and lags divide a stream."""

from __future__ import annotations

import math

import numpy as np
import pytest

from millrace.errors import MillraceError
from millrace.evaluation.figures import Record, percentile_rank, period_weights
from millrace.evaluation.intervals import block_bootstrap
from millrace.evaluation.lag import Boundaries, parse_lag
from millrace.evaluation.prequential import Answer
from millrace.evaluation.protocols import protocol
from millrace.evaluation.questions import MISS
from millrace.evaluation.stream import EventStream, Happened, checksum
from millrace.settings import HOUR_MS, MINUTE_MS

CLICK = 2


def happened(user: str, item: str, at_ms: int = 0, session: str = "", value: float = 0.0) -> Happened:
    return Happened(user, item, CLICK, at_ms, session, value, "")


def stream_of(*periods: list[Happened], tested_from: int = 0) -> EventStream:
    events = [event for period in periods for event in period]
    starts = np.cumsum([0, *(len(period) for period in periods[:-1])]).tolist()
    return EventStream("test", events, starts, tested_from, checksum(events))


def answer(rank: int, top: list[int], known: int = 11, period: int = 0, us: float = 1.0) -> Answer:
    recall, ndcg = protocol("next-in-session", stream_of([happened("u", "a")])).judge(0, rank, [], 3)
    return Answer(
        place=0,
        period=period,
        counted=True,
        rank=rank,
        top=np.array(top, dtype=np.int32),
        ranked=5,
        known=known,
        segment="new" if period else "casual",
        recall=recall,
        ndcg=ndcg,
        recommend_us=us,
        update_us=2 * us,
    )


def add(record: Record, one: Answer) -> None:
    """Items are named by their rows."""
    record.add(one, [str(row) for row in one.top.tolist()])


def test_figures_by_hand() -> None:
    """Three answers of three items: first, fourth (not in the answer), and no candidate."""
    record = Record(k=3)
    for item in "1112":
        record.meet(item)
    add(record, answer(1, [1, 2, 3], us=10))
    add(record, answer(4, [1, 2, 4], us=20))
    add(record, answer(MISS, [2], us=30))
    figures = record.figures(known=20, by_period=False)
    assert figures is not None
    assert figures.n == 3
    assert figures.hr == figures.recall == pytest.approx(1 / 3)
    assert figures.mrr == figures.ndcg == pytest.approx(1 / 3)
    assert figures.found == pytest.approx(2 / 3)
    assert figures.mpr == pytest.approx((0 + 3 / 10 + 1) / 3)
    assert figures.coverage == pytest.approx(4 / 20)
    # The average item was met twice; those of the answers 4/3, 4/3 and 1 times.
    assert figures.popularity_bias == pytest.approx((4 / 3 + 4 / 3 + 1) / 2 / 3)
    assert figures.recommend_us_p90 == pytest.approx(28)
    assert figures.update_us_p90 == pytest.approx(56)
    assert all(math.isnan(bound) for bound in figures.ci95["hr"]), "three answers give no interval"


def test_second_place_by_hand() -> None:
    record = Record(k=3)
    add(record, answer(2, [1, 2, 3]))
    figures = record.figures(known=3, by_period=False)
    assert figures is not None
    assert (figures.hr, figures.mrr) == (1.0, 0.5)
    assert figures.ndcg == pytest.approx(1 / math.log2(3))


def test_periods_weigh_the_same() -> None:
    record = Record(k=3)
    for rank, period in ((1, 1), (1, 1), (MISS, 1), (MISS, 1), (1, 2)):
        add(record, answer(rank, [], period=period))
    figures = record.figures(known=1, by_period=True)
    assert figures is not None
    assert figures.hr == pytest.approx((1 / 2 + 1) / 2)
    assert figures.segments.keys() == {"new"}
    assert figures.segments["new"].n == 5
    assert figures.segments["new"].hr[0] == figures.segments["new"].mrr[0] == 3 / 5
    assert period_weights([1, 1, 1, 1, 2]).tolist() == [0.25, 0.25, 0.25, 0.25, 1]
    low, high = block_bootstrap(np.ones(100), period_weights([1] * 90 + [2] * 10))
    assert (low, high) == (1.0, 1.0)


def test_percentile_rank() -> None:
    assert [percentile_rank(rank, 11) for rank in (1, 6, 11, MISS)] == [0, 0.5, 1, 1]
    assert percentile_rank(1, 1) == 0


def test_no_answers_no_figures() -> None:
    assert Record(k=3).figures(known=1, by_period=False) is None


@pytest.mark.parametrize(
    ("text", "reached"),
    [
        ("0", [0, 0, 0, 0]),
        ("1h", [0, 0, 1, 0]),
        ("30m", [0, 1, 1, 0]),
        ("2sessions", [0, 0, 1, 0]),
        ("period", [0, 0, 0, 1]),
    ],
)
def test_boundaries(text: str, reached: list[int]) -> None:
    """Four events: at 0:00, 0:40, 1:10 and 1:20, the last one in another period; the second goes on in a session."""
    boundaries = Boundaries(parse_lag(text))
    events = [(0, 0, True), (40, 0, False), (70, 0, True), (80, 1, True)]
    found = [boundaries.reached(minute * MINUTE_MS, period, new) for minute, period, new in events]
    assert [int(one) for one in found] == reached


def test_a_boundary_is_passed_once_however_times_wander() -> None:
    boundaries = Boundaries(parse_lag("1h"))
    assert [boundaries.reached(hour * HOUR_MS, 0, True) for hour in (5, 4, 5, 6, 5, 6)] == [
        *(False, False, False),
        *(True, False, False),
    ]


@pytest.mark.parametrize("text", ["", "1", "0h", "5 m", "-1h", "1.5h", "0sessions", "weekly"])
def test_other_lags_are_refused(text: str) -> None:
    with pytest.raises(MillraceError, match="500sessions"):
        parse_lag(text)
