"""Session-kNN and pairs against the same by plain loops over sessions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.ranking.features import HalfLives, Signal
from millrace.ranking.item_table import ItemTable
from millrace.ranking.pool import CandidatePool
from millrace.ranking.session_index import REACH, SessionIndex
from millrace.ranking.session_knn import (
    AROUND_PRIOR,
    NEAREST,
    PAIR_PRIOR,
    POSTINGS,
    POSTINGS_NEWEST,
    largest,
    most_proposed,
    propose_of_sessions,
)
from millrace.settings import HOUR_MS, MINUTE_MS

T0 = 1_700_000_000_000
SIGNALS = {
    "share": Signal.SIMILAR,
    "near": Signal.SIMILAR_NEAR,
    "after": Signal.AFTER,
    "before": Signal.BEFORE,
    "newest": Signal.AFTER_NEWEST,
    "around": Signal.AROUND,
}


def filled(sessions: dict[str, list[str]]) -> SessionIndex:
    index = SessionIndex(ItemTable(100, 5, HalfLives(10 * MINUTE_MS, 6 * HOUR_MS)), 1_000, 30 * MINUTE_MS)
    for user, items in sessions.items():
        for item in items:
            index.add(user, 1, item, T0)
    return index


def signals(
    index: SessionIndex, session: list[str], older: Sequence[str] = (), user: str = "me"
) -> dict[str, dict[str, float]]:
    """Name of the signal -> item -> value, where it is not 0."""
    table = index._table
    own, before = ([table.rows[item] for item in items if item in table.rows] for items in (session, older))
    pool = CandidatePool(table.rows_max)
    pool.begin(most_proposed(len(own) + len(before)))
    propose_of_sessions(pool, index, np.array([*own, *before], dtype=np.int64), len(own), user)
    assert not index.alike.any()
    names = [table.id_of(row) for row in pool.rows.tolist()]
    return {
        name: {item: value for item, value in zip(names, pool.signals[:, signal].tolist(), strict=True) if value}
        for name, signal in SIGNALS.items()
    }


def by_loops(
    sessions: dict[str, list[str]], session: list[str], older: list[str], user: str = "me"
) -> dict[str, dict[str, float]]:
    """The same, of few and short sessions."""
    others = [items for owner, items in sessions.items() if owner != user]
    sums: dict[str, dict[str, float]] = {name: {} for name in SIGNALS}

    def add(name: str, item: str, value: float) -> None:
        if value:
            sums[name][item] = sums[name].get(item, 0.0) + value

    likeness = [
        sum(max(1 - 0.1 * place, 0.05) for place, item in enumerate(session) if item in items) for items in others
    ]
    for items, alike in zip(others, likeness, strict=True):
        if alike:
            shared = next(item for item in session if item in items)
            at = len(items) - 1 - items[::-1].index(shared)
            for place, item in enumerate(items):
                add("share", item, alike / sum(likeness))
                add("near", item, alike / sum(likeness) * math.exp(-abs(place - at) / 2))
    for place, common in enumerate([*session, *older] if session else ()):
        postings = [items for items in others if common in items]
        for items in postings:
            at = len(items) - 1 - items[::-1].index(common)
            for distance in (*range(-REACH, 0), *range(1, REACH + 1)):
                if not 0 <= at + distance < len(items):
                    continue
                around = 1 / math.sqrt(abs(distance)) / (len(postings) + AROUND_PRIOR) ** 0.7 / (1 + place)
                add("around", items[at + distance], around)
                if place < len(session):
                    value = 1 / abs(distance) / (len(postings) + PAIR_PRIOR) / math.sqrt(1 + place)
                    add("after" if distance > 0 else "before", items[at + distance], value)
                    if place == 0 and distance > 0:
                        add("newest", items[at + distance], value)
    return sums


def test_by_hand() -> None:
    """Two sessions of others share the newest item, one of them the older one too."""
    index = filled({"u": ["a", "b", "c"], "v": ["b", "d"], "w": ["x", "y"]})
    found = signals(index, ["b", "a"])
    assert found["share"] == pytest.approx({"a": 1.9 / 2.9, "b": 1.0, "c": 1.9 / 2.9, "d": 1 / 2.9})
    assert found["near"]["c"] == pytest.approx(1.9 / 2.9 * math.exp(-0.5))
    assert found["newest"] == pytest.approx({"c": 1 / (2 + PAIR_PRIOR), "d": 1 / (2 + PAIR_PRIOR)})
    beside = 1 / (1 + PAIR_PRIOR) / math.sqrt(2)
    assert found["after"] == pytest.approx({"b": beside, "c": 1 / (2 + PAIR_PRIOR) + beside / 2, "d": 1 / 5})
    assert found["before"] == pytest.approx({"a": 1 / (2 + PAIR_PRIOR)})


def test_nothing_in_common_says_nothing() -> None:
    index = filled({"u": ["a", "b"]})
    assert not any(signals(index, []).values())
    assert not any(signals(index, ["never seen"]).values())
    assert not any(signals(index, ["a"], user="u").values()), "the user's own sessions are left out"


def test_the_nearest_are_the_most_alike_and_of_these_the_newest() -> None:
    sessions = {f"old {number}": ["a", "stale"] for number in range(NEAREST)}
    sessions |= {f"new {number}": ["a", "fresh"] for number in range(NEAREST - 10)}
    sessions |= {f"both {number}": ["a", "b", "alike"] for number in range(10)}
    found = signals(filled(sessions), ["a", "b"])["share"]
    assert found["alike"] == pytest.approx(19 / (19 + NEAREST - 10))
    assert "stale" not in found
    assert found["fresh"] == pytest.approx(1 - found["alike"])


def test_postings_are_bounded_by_place_in_the_session() -> None:
    index = filled({f"u{number}": ["a", f"x{number % 7}"] for number in range(300)} | {"v": ["newest", "y"]})
    once = signals(index, ["a"])["newest"]
    assert sum(once.values()) == pytest.approx(POSTINGS_NEWEST / (POSTINGS_NEWEST + PAIR_PRIOR))
    second = signals(index, ["newest", "a"])["after"]
    assert sum(value for item, value in second.items() if item != "y") == pytest.approx(
        POSTINGS / (POSTINGS + PAIR_PRIOR) / math.sqrt(2)
    )


@given(st.lists(st.floats(-5, 5), min_size=1), st.data())
def test_the_largest_as_sorting_finds_them(numbers: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(numbers)))
    assert largest(np.array(numbers), k) == sorted(numbers)[-k]


items = st.sampled_from("abcdefg")


@given(
    st.dictionaries(st.sampled_from(["me", *"uvwxyz"]), st.lists(items, min_size=1, max_size=12), max_size=6),
    st.lists(items, max_size=5, unique=True),
    st.integers(0, 2),
)
def test_equal_to_loops(sessions: dict[str, list[str]], recent: list[str], earlier: int) -> None:
    # What nobody ever turned to has no row, and is not part of a session.
    recent = [item for item in recent if any(item in items for items in sessions.values())]
    session, older = recent[earlier:], recent[:earlier]
    found, expected = signals(filled(sessions), session, older), by_loops(sessions, session, older)
    for name in SIGNALS:
        assert found[name] == pytest.approx(expected[name])
