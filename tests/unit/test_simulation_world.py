"""The made-up shop: the same for the same seed, with items that come and go and people who differ."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest

from millrace.events.rules import check_item
from millrace.simulation.catalogue import CATEGORIES, Catalogue, Floats
from millrace.simulation.clicks import liking
from millrace.simulation.people import DRIFT_PERIOD_S, People
from millrace.simulation.shelves import HALF_LIFE_S, Shelves
from millrace.simulation.world import REMEMBERED, make_world

EPOCH_MS = 1_790_000_000_000
HOUR_S = 3600.0


def likings(people: People, catalogue: Catalogue, now_s: float = 0.0) -> Floats:
    """float64[shoppers, items]"""
    rows = np.arange(len(catalogue))
    return np.array([liking(catalogue, rows, people.taste(shopper, now_s)) for shopper in range(len(people))])


def alike(before: Floats, after: Floats) -> float:
    """Mean over shoppers of the correlation of what they like."""
    return float(np.mean([np.corrcoef(*pair)[0, 1] for pair in zip(before, after, strict=True)]))


def test_the_same_seed_gives_the_same_shop() -> None:
    first, again, other = (Catalogue(50, seed, EPOCH_MS) for seed in (7, 7, 8))
    assert first.entries() == again.entries()
    assert first.advance(9 * HOUR_S) == again.advance(9 * HOUR_S)
    assert first.entries() == again.entries()
    assert {entry.title for entry in first.entries()} != {entry.title for entry in other.entries()}
    assert set(first.item_ids).isdisjoint(other.item_ids), "two worlds on one broker do not mix"


def test_entries_are_valid_and_say_when_they_were_published() -> None:
    catalogue = Catalogue(200, 7, EPOCH_MS)
    for entry in catalogue.entries():
        check_item(entry)
        assert entry.available
        assert entry.published_at_ms <= EPOCH_MS


def test_items_come_and_go() -> None:
    """In a tenth of a lifetime a tenth of the items goes, and as many come; five standard deviations of 100 are 50."""
    catalogue = Catalogue(1_000, 7, EPOCH_MS, lifetime_s=10 * HOUR_S)
    before = set(catalogue.item_ids)
    changes = [change for minute in range(1, 61) for change in catalogue.advance(minute * 60.0)]
    assert len(changes) == pytest.approx(100, abs=50)
    assert len(set(catalogue.item_ids)) == 1_000
    for change in changes:
        check_item(change.gone)
        check_item(change.came)
        assert not change.gone.available
        assert catalogue.row(change.gone.item_id) is None
        assert EPOCH_MS < change.came.published_at_ms <= EPOCH_MS + 3_600_000
    came = {change.came.item_id for change in changes}
    assert came.isdisjoint(before)
    assert catalogue.rows([changes[0].gone.item_id]).tolist() == [-1]
    assert catalogue.advance(HOUR_S) == []


def test_popularity_is_uneven() -> None:
    """exp(quality) follows Zipf's law: a tenth of the items has several times its share."""
    weights = np.sort(np.exp(Catalogue(2_000, 7).quality))[::-1]
    assert weights[:200].sum() / weights.sum() > 0.3


def test_people_differ_and_change_slowly() -> None:
    people, catalogue = People(40, 7), Catalogue(300, 7)
    now = likings(people, catalogue)
    assert np.array_equal(now, likings(People(40, 7), catalogue))
    pairs = [np.corrcoef(now[one], now[one + 1])[0, 1] for one in range(39)]
    assert float(np.mean(pairs)) < 0.6, "one taste tells little of another's"
    assert alike(now, likings(people, catalogue, HOUR_S)) > 0.98
    assert alike(now, likings(people, catalogue, DRIFT_PERIOD_S / 4)) < 0.6
    assert np.std(likings(people, catalogue, DRIFT_PERIOD_S / 3)) == pytest.approx(np.std(now), rel=0.2)


def test_a_shift_changes_what_everyone_likes_and_does() -> None:
    people, catalogue = People(40, 7), Catalogue(300, 7)
    before, habits = likings(people, catalogue), people.habits
    categories = people.taste(0, 0.0).category
    people.shift()
    after = likings(people, catalogue)
    assert abs(alike(before, after)) < 0.25
    assert np.std(after) == pytest.approx(np.std(before), rel=0.25)
    assert all(old != new for old, new in zip(astuple(habits), astuple(people.habits), strict=True))
    assert not np.any(categories == people.taste(0, 0.0).category), "no category keeps its place"
    assert sorted(categories) == sorted(people.taste(0, 0.0).category)
    again = People(40, 7)
    again.shift()
    assert np.array_equal(after, likings(again, catalogue))
    people.shift()
    assert abs(alike(after, likings(people, catalogue))) < 0.25


def test_some_come_more_often() -> None:
    people = People(1_000, 7)
    who = [people.who(share) for share in np.linspace(0, 1, 20_000)]
    assert set(who) <= set(range(1_000))
    assert sum(shopper < 100 for shopper in who) / len(who) > 0.3


def test_shelves_show_what_was_clicked_lately() -> None:
    catalogue = Catalogue(20, 7)
    shelves = Shelves(catalogue)
    a, b, c = catalogue.item_ids[11:14]
    for item in (a, a, a, b, b, "gone"):
        shelves.clicked(item, 0.0)
    assert shelves.popular(2, 1.0) == [a, b]
    for _ in range(2):
        shelves.clicked(c, 2 * HALF_LIFE_S)
    assert shelves.popular(3, 2 * HALF_LIFE_S) == [c, a, b]
    shelves.replaced(13)
    assert shelves.popular(2, 2 * HALF_LIFE_S) == [a, b]
    shown = shelves.random(50, np.random.default_rng(1))
    assert sorted(shown) == sorted(catalogue.item_ids)


def test_memory_is_bounded_and_keeps_purchases() -> None:
    world = make_world(7, 50, 5)
    world.remember(3, "bought", bought=True)
    for item in range(REMEMBERED - 1):
        world.remember(3, f"item {item}")
    world.remember(3, "bought")
    assert world.remembered[3]["bought"]
    world.remember(3, "one more")
    assert len(world.remembered[3]) == REMEMBERED
    assert "item 0" not in world.remembered[3]


def test_what_goes_together_is_never_the_same() -> None:
    world = make_world(7, 50, 5)
    assert world.complements.shape[0] == len(CATEGORIES)
    for own, others in enumerate(world.complements):
        assert own not in others
        assert len(set(others.tolist())) == len(others)


def test_a_part_of_the_stock_is_sold_out_at_once_and_nothing_else_changes() -> None:
    world = make_world(3, 90, 10)
    before = {row: world.catalogue.item_ids[row] for row in range(90)}
    changes = world.sell_out(1 / 3)
    assert len(changes) == 30
    assert [change.gone.item_id for change in changes] == [before[change.row] for change in changes]
    assert not any(change.gone.available for change in changes)
    rows = {change.row for change in changes}
    assert all((world.catalogue.item_ids[row] == before[row]) == (row not in rows) for row in range(90))
    assert all(world.catalogue.row(change.came.item_id) == change.row for change in changes)
    assert all(world.catalogue.row(change.gone.item_id) is None for change in changes)
    # Each row has one item that leaves at its own time: what came is not taken away when what went would have been.
    leaving = sorted(row for _, row in world.catalogue._leaving)
    assert leaving == list(range(90))
