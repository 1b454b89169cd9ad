"""The index of recent sessions against a plain list of them, and its bounds."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.ranking.features import HalfLives
from millrace.ranking.item_table import NO_ROW, ItemTable
from millrace.ranking.session_index import NOWHERE, REACH, RUN, SessionIndex
from millrace.settings import HOUR_MS, MINUTE_MS

T0 = 1_700_000_000_000
GAP_MS = 30 * MINUTE_MS


def table(items_max: int = 1_000) -> ItemTable:
    return ItemTable(items_max, 5, HalfLives(10 * MINUTE_MS, 6 * HOUR_MS))


def index(runs_max: int = 100, items_max: int = 1_000) -> SessionIndex:
    return SessionIndex(table(items_max), runs_max, GAP_MS)


def run(slot: int) -> slice:
    """The places of a run."""
    return slice(slot * RUN, (slot + 1) * RUN)


def within(place: int, reach: int) -> slice:
    """The places of the same run that are not further away."""
    own = run(place // RUN)
    return slice(max(place - reach, own.start), min(place + reach + 1, own.stop))


def postings(sessions: SessionIndex, item: str) -> list[int]:
    """The places of an item, the newest first."""
    found, place = list[int](), int(sessions.newest[sessions._table.rows[item]])
    while place != NOWHERE:
        found.append(place)
        place = int(sessions.earlier[place])
    return found


def runs(sessions: SessionIndex) -> list[list[str]]:
    """The items of each slot that holds any, in order."""
    own = sessions._table
    found = [
        [own.id_of(row) for row in sessions.rows[run(slot)].tolist() if row != NO_ROW] for slot in range(len(sessions))
    ]
    return [items for items in found if items]


def around(sessions: SessionIndex, item: str) -> list[list[str]]:
    """For each posting of an item, the items up to ``REACH`` places around it and itself."""
    own = sessions._table
    return [
        [own.id_of(row) for row in sessions.rows[within(at, REACH)].tolist() if row != NO_ROW]
        for at in postings(sessions, item)
    ]


def test_sessions_are_told_apart_by_id_and_by_gap() -> None:
    sessions = index()
    for user, session, item, minutes in (
        ("anna", 1, "a", 0),
        ("bob", 1, "x", 0),
        ("anna", 2, "b", 1),
        ("anna", 1, "c", 90),
        ("carl", 0, "d", 0),
        ("carl", 0, "e", 29),
        ("carl", 0, "f", 59),
        ("carl", 0, "g", 60),
    ):
        sessions.add(user, session, item, T0 + minutes * MINUTE_MS)
    assert runs(sessions) == [["a", "c"], ["x"], ["b"], ["d", "e"], ["f", "g"]]
    assert around(sessions, "c") == [["a", "c"]]


def test_a_long_session_goes_on_with_what_stood_last() -> None:
    sessions = index()
    items = [f"i{number}" for number in range(RUN + 3)]
    for item in items:
        sessions.add("anna", 1, item, T0)
    assert runs(sessions) == [items[:RUN], items[RUN - REACH :]]
    assert around(sessions, items[RUN]) == [items[RUN - REACH :]]


def test_an_item_that_comes_again_has_one_posting_a_session_its_newest_place() -> None:
    sessions = index()
    for item in ("a", "b", "a", "c"):
        sessions.add("anna", 1, item, T0)
    assert postings(sessions, "a") == [2]
    assert sessions.places[sessions._table.rows["a"]] == 2


def test_the_oldest_run_makes_room_and_lets_its_items_go() -> None:
    sessions = index(runs_max=2)
    own = sessions._table
    for number, user in enumerate(("anna", "bob", "carl")):
        sessions.add(user, 1, "everywhere", T0)
        sessions.add(user, 1, f"only {number}", T0)
    assert len(sessions) == 2
    assert sorted(map(sorted, runs(sessions))) == [["everywhere", "only 1"], ["everywhere", "only 2"]]
    assert "only 0" not in own.rows, "nothing points to it any more"
    assert len(around(sessions, "everywhere")) == 2
    # Anna's session goes on: in a new run.
    sessions.add("anna", 1, "only 0", T0)
    assert [items for items in runs(sessions) if "only 0" in items] == [["only 0"]]


def test_postings_come_newest_first_whichever_run_they_are_in() -> None:
    sessions = index()
    for user, item in (("anna", "x"), ("bob", "a"), ("anna", "a"), ("carl", "a"), ("bob", "a")):
        sessions.add(user, 1, item, T0)
    assert postings(sessions, "a") == [RUN + 1, 2 * RUN, 1], "bob's newest, carl's, anna's"


def test_forgetting_a_user_empties_all_their_sessions() -> None:
    sessions = index()
    for user, session in (("anna", 1), ("bob", 1), ("anna", 2)):
        sessions.add(user, session, "a", T0)
        sessions.add(user, session, f"of {user}", T0)
    sessions.forget("anna")
    assert runs(sessions) == [["a", "of bob"]]
    assert "of anna" not in sessions._table.rows
    sessions.add("anna", 1, "b", T0)
    assert runs(sessions) == [["b"], ["a", "of bob"]]


def test_an_item_that_finds_no_row_is_left_out() -> None:
    sessions = index(items_max=2)
    for number in range(5):
        sessions.add("anna", 1, f"i{number}", T0)
    assert runs(sessions) == [["i0", "i1"]]


events = st.lists(
    st.tuples(st.sampled_from("ABCD"), st.integers(0, 2), st.sampled_from("abcdefgh"), st.integers(0, 120)),
    max_size=200,
)


@given(events, st.integers(1, 6))
def test_counts_postings_and_rows_stay_one(log: list[tuple[str, int, str, int]], runs_max: int) -> None:
    """Whatever is added, evicted and forgotten: places, references and postings say the same."""
    sessions = index(runs_max=runs_max)
    own = sessions._table
    for user, session, item, minutes in log:
        if minutes == 0:
            sessions.forget(user)
        sessions.add(user, session, item, T0 + minutes * MINUTE_MS)
        standing: dict[str, int] = defaultdict(int)
        for items in runs(sessions):
            for one in items:
                standing[one] += 1
        assert {item_id: int(sessions.places[row]) for item_id, row in own.rows.items()} == standing
        assert {item_id: int(own._references[row]) for item_id, row in own.rows.items()} == standing
        for item_id in standing:
            found = around(sessions, item_id)
            assert sum(item_id in items for items in found) == sum(item_id in items for items in runs(sessions))
    assert len(sessions._open) <= runs_max
    with pytest.raises(KeyError):
        own.rows["never"]
