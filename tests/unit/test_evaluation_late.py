"""A recommender that gets to know things late: what it cannot know does not change its answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from millrace.evaluation.lag import parse_lag
from millrace.evaluation.late import LateRecommender
from millrace.events import build
from millrace.events.build import EventType
from millrace.settings import DAY_MS, HOUR_MS, MINUTE_MS, Settings

BEGAN_MS = 20_000 * DAY_MS
ITEMS = [f"item-{number:02}" for number in range(30)]


def recommender(lag: str, knows_user: bool = False) -> LateRecommender:
    made = LateRecommender(Settings(), parse_lag(lag), 100, np.random.default_rng(1), knows_user)
    for item_id in ITEMS:
        made.memory.offer(item_id, BEGAN_MS - DAY_MS)
    return made


def do(
    recommender: LateRecommender,
    user_id: str,
    item_ids: Sequence[str],
    at_ms: int,
    kind: EventType = "click",
    request_id: str = "",
) -> None:
    for place, item_id in enumerate(item_ids):
        event = build.interaction(
            user_id,
            item_id,
            kind,
            occurred_at=at_ms + place,
            event_id=f"{kind}-{at_ms}-{place}",
            session_id=f"{user_id}-{at_ms}",
            request_id=request_id,
        )
        recommender.take(event, at_ms + place)


def ask(recommender: LateRecommender, user_id: str, at_ms: int) -> list[str]:
    return recommender.recommend(user_id, 10, f"asked-{at_ms}", "session", at_ms)


@pytest.mark.parametrize(
    ("lag", "waits"), [("0", False), ("1h", True), ("24h", True), ("7d", True)], ids=["live", "hour", "day", "week"]
)
def test_what_happened_after_the_boundary_does_not_change_an_answer(lag: str, waits: bool) -> None:
    one, other = recommender(lag), recommender(lag)
    for each in (one, other):
        do(each, "early", ITEMS[:5], BEGAN_MS + MINUTE_MS)
    now_ms = BEGAN_MS + 8 * DAY_MS
    # The first request after a boundary; from here on only one of the two sees clicks.
    assert ask(one, "ada", now_ms) == ask(other, "ada", now_ms)
    for number in range(10):
        do(one, f"other-{number}", ITEMS[20:25], now_ms + number + 1)
    do(one, "ada", ITEMS[25:], now_ms + 100)

    later_ms = now_ms + MINUTE_MS
    assert (ask(one, "ada", later_ms) == ask(other, "ada", later_ms)) is waits
    # Past the next boundary of any of them it is known.
    assert set(ask(one, "bob", now_ms + 7 * DAY_MS)[:5]) <= set(ITEMS[20:])


def test_a_known_user_meets_items_that_are_not() -> None:
    day_ms = BEGAN_MS + DAY_MS
    late, knowing = recommender("24h"), recommender("24h", knows_user=True)
    for each in (late, knowing):
        do(each, "early", ITEMS[:5], BEGAN_MS + MINUTE_MS)
        ask(each, "ada", day_ms)
        do(each, "ada", ITEMS[:1], day_ms + 1)
    assert late.memory.users.get("ada") is None
    user = knowing.memory.users.get("ada")
    assert user is not None
    assert [one.item_id for one in user.recent] == [ITEMS[0]]
    for each in (late, knowing):
        each.memory.ready_all()
        row = each.memory.table.rows[ITEMS[0]]
        assert each.memory.table.clicks[row] == 1, "of the day before"


def test_labels_wait_for_the_boundary_too() -> None:
    live, nightly = recommender("0"), recommender("24h")
    for each in (live, nightly):
        at_ms = BEGAN_MS + HOUR_MS
        shown = ask(each, "ada", at_ms)
        do(each, "ada", shown[:3], at_ms + 1, "view", f"asked-{at_ms}")
        do(each, "ada", shown[2:3], at_ms + 10, "click", f"asked-{at_ms}")
        # An hour later the answer's window is over: two slots were seen and left alone.
        ask(each, "bob", at_ms + HOUR_MS)
    assert live.examples >= 3
    assert nightly.examples == 0
    ask(nightly, "bob", BEGAN_MS + DAY_MS)
    assert nightly.examples == live.examples


def test_what_is_on_sale_is_known_at_once() -> None:
    weekly = recommender("7d")
    do(weekly, "early", ITEMS[:5], BEGAN_MS + MINUTE_MS)
    assert ITEMS[0] in ask(weekly, "ada", BEGAN_MS + 7 * DAY_MS)
    for item_id in ITEMS:
        weekly.memory.withdraw(item_id)
    weekly.memory.offer("new", BEGAN_MS)
    assert ask(weekly, "ada", BEGAN_MS + 7 * DAY_MS + 1) == ["new"]
