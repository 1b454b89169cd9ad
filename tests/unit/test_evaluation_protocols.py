"""Before which events each protocol asks, and how it judges."""

from __future__ import annotations

import math
from bisect import bisect_right

import pytest

from millrace.errors import MillraceError
from millrace.evaluation.protocols import kept, protocol
from millrace.evaluation.sessions import Sessions
from millrace.evaluation.stream import EventStream, Happened
from millrace.settings import MINUTE_MS
from tests.unit.test_evaluation_figures import happened, stream_of


def asked(name: str, stream: EventStream, warm_up: int = 0) -> list[str]:
    """For each event: "" not asked, "-" asked and not counted, "+" counted."""
    rules, sessions = protocol(name, stream, warm_up), Sessions(30 * MINUTE_MS)
    found = []
    for place, event in enumerate(stream.events):
        one = rules.asks(place, event, bisect_right(stream.starts, place) - 1, sessions.continues(event))
        found.append("" if one is None else "-+"[one.counted])
    return found


def test_next_in_session() -> None:
    events = [
        happened("u", "a", 0),
        happened("u", "b", 29 * MINUTE_MS),
        happened("u", "c", 59 * MINUTE_MS),  # a gap of 30 minutes
        happened("u", "d", 60 * MINUTE_MS, session="s"),
        happened("u", "e", 900 * MINUTE_MS, session="s"),
        happened("v", "e", 900 * MINUTE_MS, session="s"),  # another user's
    ]
    assert asked("next-in-session", stream_of(events)) == ["", "+", "", "", "+", ""]
    assert asked("next-in-session", stream_of(events), warm_up=2) == ["", "-", "", "", "+", ""]
    assert asked("next-in-session", stream_of(events[:2], events[2:], tested_from=2)) == ["", "-", "", "", "+", ""]


def test_next_item_knows_no_sessions() -> None:
    events = [happened("u", "a", 0), happened("v", "b", 1), happened("u", "c", 900 * MINUTE_MS)]
    assert asked("next-item", stream_of(events)) == ["", "", "+"]


def test_flurs_tests_the_last_seven_tenths_without_the_users_own() -> None:
    events = [happened("u", f"i{number}", number) for number in range(9)] + [happened("u", "i0", 9)]
    stream = stream_of(events)
    assert asked("flurs", stream) == ["-"] * 3 + ["+"] * 7
    rules = protocol("flurs", stream)
    without = [rules.asks(place, event, 0, False) for place, event in enumerate(events)]
    assert without[3] is not None
    assert without[3].without == {"i0", "i1", "i2"}
    assert without[9] is not None
    assert without[9].without == {f"i{number}" for number in range(1, 9)}, "the item that comes is a candidate"
    values = (0.0, 1.0, 4.5, 5.0)
    assert [kept("flurs", happened("u", "a", value=value)) for value in values] == [True, False, False, True]
    assert all(kept("next-item", happened("u", "a", value=value)) for value in values)


def test_ader_leaves_out_items_that_no_earlier_period_had() -> None:
    def click(session: str, item: str) -> Happened:
        return happened(session, item, session=session)

    first = [click("s1", "a"), click("s1", "b"), click("s2", "c")]
    second = [click("s3", "new"), click("s3", "a"), click("s3", "new"), click("s3", "c"), click("s4", "b")]
    third = [click("s5", "new"), click("s5", "b")]
    stream = stream_of(first, second, third)
    assert asked("ader", stream) == ["", "-", "", *("", "", "", "+", ""), *("", "+")]
    assert protocol("ader", stream).by_period
    with pytest.raises(MillraceError, match="periods"):
        protocol("ader", stream_of(first))


def test_serenade_judges_by_all_that_is_left_of_the_session() -> None:
    train = [happened("s0", "x", session="s0")]
    test = [happened("s1", item, place, session="s1") for place, item in enumerate("abcb")]
    stream = stream_of(train, test, tested_from=1)
    assert asked("serenade", stream) == ["", "", "+", "+", "+"]
    rules = protocol("serenade", stream)
    # Before the second event of the session b, c are left (b twice); c stands second and b third in the answer.
    recall, ndcg = rules.judge(2, 3, ["z", "c", "b"], 3)
    assert recall == 1.0
    assert ndcg == pytest.approx((1 + 1 / math.log2(3)) / (1 + 1))
    assert rules.judge(4, 0, ["z", "c"], 3) == (0.0, 0.0)
    with pytest.raises(MillraceError, match="--train"):
        protocol("serenade", stream_of(train))
