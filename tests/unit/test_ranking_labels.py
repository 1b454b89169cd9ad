"""Labels of items, and tastes: what they are, and that they follow every change of the table."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.ranking.features import HalfLives
from millrace.ranking.item_table import ItemTable
from millrace.ranking.labels import LABELS, LABELS_KEPT, labels_of, numbers_of
from millrace.settings import DAY_MS, MINUTE_MS
from millrace.v1.item_pb2 import Item, ItemState

NOW = 1_700_000_000_000
HALF_LIFE_MS = 7 * DAY_MS
NAMES = ("drama", "comedy", "horror", "war")


def table(items_max: int = 50) -> ItemTable:
    return ItemTable(items_max, 5, HalfLives(10 * MINUTE_MS, HALF_LIFE_MS))


def state(item_id: str, labels: tuple[str, ...], popularity: float, as_of_ms: int = NOW, version: int = 1) -> ItemState:
    made = ItemState(item_id=item_id, version=version)
    made.popularity_long.value, made.popularity_long.as_of_ms = popularity, as_of_ms
    if labels:
        made.catalogue.category = labels[0]
        made.catalogue.tags.extend(labels[1:])
    return made


def tastes(of: ItemTable, known: dict[str, int], asked: list[str]) -> list[float]:
    found = np.zeros(len(asked))
    of.labels.add_tastes(
        np.array([of.rows[item] for item in known], dtype=np.int32),
        np.array(list(known.values()), dtype=np.int64),
        np.array([of.rows[item] for item in asked], dtype=np.int32),
        found,
    )
    return found.tolist()


def test_labels_are_category_and_tags_once_each() -> None:
    labels = labels_of(Item(category="drama", tags=["war", "drama", "", "horror"]))
    assert labels == numbers_of(["drama", "war", "horror"])
    assert all(0 < label < LABELS for label in labels)
    assert len(labels_of(Item(tags=[str(number) for number in range(64)]))) == LABELS_KEPT
    assert labels_of(Item()) == []


def test_a_taste_is_the_lift_of_the_item_s_labels() -> None:
    films = table()
    for film in (
        state("a", ("drama",), 6.0),
        state("b", ("drama", "war"), 2.0),
        state("c", ("comedy",), 2.0),
        state("d", ("horror",), 0.0),
        state("e", (), 90.0),
    ):
        films.apply(film, NOW)
    # Of ten engagements with labelled items, drama has 7, war 1 and comedy 2; of the user's four, drama has 3.5.
    drama, war, comedy, horror = (3.5 + 1) / (2.8 + 1), (0.5 + 1) / (0.4 + 1), 1 / (0.8 + 1), 1 / 1
    expected = [math.log(drama), math.log(drama * war) / 2, math.log(comedy), math.log(horror), 0.0]
    assert tastes(films, {"a": 3, "b": 1, "e": 5}, ["a", "b", "c", "d", "e"]) == pytest.approx(expected)


def test_nothing_is_said_where_nothing_is_known() -> None:
    films = table()
    films.apply(state("a", ("drama",), 1.0), NOW)
    films.apply(state("b", (), 1.0), NOW)
    assert tastes(films, {}, ["a"]) == tastes(films, {"b": 2}, ["a"]) == [0.0]
    assert tastes(table(), {}, []) == []


@st.composite
def changes(draw: st.DrawFn) -> list[tuple[str, tuple[str, ...], float, int] | str]:
    one = st.tuples(
        st.sampled_from("abcdef"),
        st.lists(st.sampled_from(NAMES), max_size=3, unique=True).map(tuple),
        st.floats(0, 1e6),
        st.integers(NOW - 3_000 * DAY_MS, NOW + 3_000 * DAY_MS),
    )
    return draw(st.lists(st.one_of(one, st.sampled_from("abcdef")), max_size=30))


@given(changes(), st.lists(st.sampled_from("abcdef"), min_size=1, max_size=8))
def test_whatever_changes_shares_are_those_of_the_items_that_are_there(
    made: list[tuple[str, tuple[str, ...], float, int] | str], turned_to: list[str]
) -> None:
    films, there = table(), dict[str, ItemState]()
    newest_ms = NOW
    for version, change in enumerate(made, start=1):
        if isinstance(change, str):
            films.drop(change)
            there.pop(change, None)
        else:
            item, labels, popularity, as_of_ms = change
            # An item's sum only ever stands at a later time.
            as_of_ms = newest_ms = max(newest_ms, as_of_ms)
            there[item] = state(item, labels, popularity, as_of_ms, version)
            films.apply(there[item], NOW)
    known = {item: times for item, times in Counter(turned_to).items() if item in there}
    asked = list(there)
    weights, profile = defaultdict[int, float](float), defaultdict[int, float](float)
    for item, film in there.items():
        numbers = labels_of(film.catalogue)
        total = film.popularity_long
        for number in numbers:
            weights[number] += total.value * 2 ** ((total.as_of_ms - newest_ms) / HALF_LIFE_MS) / len(numbers)
            profile[number] += known.get(item, 0) / len(numbers)
    everybody, own = sum(weights.values()), sum(profile.values())
    # What is hardly anything beside what was taken away is lost in the rounding.
    if everybody < 1e-3:
        return
    for item, taste in zip(asked, tastes(films, known, asked), strict=True):
        lifts = [
            math.log((profile[label] + 1) / (own * weights[label] / everybody + 1))
            for label in labels_of(there[item].catalogue)
        ]
        assert taste == pytest.approx(sum(lifts) / len(lifts) if lifts and own else 0.0, abs=1e-5)


def test_an_item_that_went_leaves_nothing_to_the_next_in_its_row() -> None:
    films = table(items_max=1)
    films.apply(state("a", ("drama",), 5.0), NOW)
    films.apply(state("b", ("war",), 1.0), NOW)
    assert "a" not in films.rows
    assert tastes(films, {"b": 1}, ["b"]) == pytest.approx([math.log(2 / 2)])
