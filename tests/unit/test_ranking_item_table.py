"""The item table: newest version wins, rows are never shared, memory is bounded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.errors import MillraceError
from millrace.ranking.features import HalfLives, ItemColumn
from millrace.ranking.item_table import NO_ROW, ItemTable
from millrace.ranking.popular import FRESH_CLICKS_MAX, FRESH_KEPT, TRENDING_KEPT, PopularItems
from millrace.settings import HOUR_MS, MINUTE_MS
from millrace.v1.item_pb2 import ItemState

NOW = 1_700_000_000_000
POPULARITY_LONG = ItemColumn.POPULARITY_LONG
HALF_LIVES = HalfLives(10 * MINUTE_MS, 6 * HOUR_MS)


def table(items_max: int = 100, neighbours_kept: int = 3) -> ItemTable:
    return ItemTable(items_max, neighbours_kept, HALF_LIVES)


def state(
    item_id: str,
    version: int = 1,
    popularity: float = 0.0,
    neighbours: dict[str, float] | None = None,
    available: bool | None = None,
    as_of_ms: int = NOW,
    clicks: int = 0,
    published_at_ms: int | None = None,
) -> ItemState:
    made = ItemState(item_id=item_id, version=version)
    made.counts.clicks = clicks
    for total in (made.popularity_short, made.popularity_long):
        total.value, total.as_of_ms = popularity, as_of_ms
    for other, weight in (neighbours or {}).items():
        made.neighbours.item_ids.append(other)
        made.neighbours.weights.append(weight)
    if available is not None:
        made.catalogue.available = available
    if published_at_ms is not None:
        made.catalogue.published_at_ms = published_at_ms
    return made


def neighbours_of(table: ItemTable, item_id: str) -> dict[str, float]:
    row = table.rows[item_id]
    return {
        table.id_of(other): float(share)
        for other, share in zip(table.neighbours[row].tolist(), table.shares[row], strict=True)
        if other != NO_ROW
    }


def assert_sound(table: ItemTable) -> None:
    """Rows and ids map one to one, and every neighbour points to the item that it was meant to."""
    assert sorted(table.rows.values()) == sorted(
        row for row in range(table.rows_used) if table.id_of(row) and table.rows.get(table.id_of(row)) == row
    )
    live = {item for item, row in table.rows.items() if table._live[row]}
    assert len(live) == len(table) <= table.items_max
    assert len(table.rows) <= table.rows_max
    references = np.zeros(table.rows_max, dtype=np.int64)
    for item in live:
        for other in table.neighbours[table.rows[item]]:
            if other != NO_ROW:
                references[other] += 1
    np.testing.assert_array_equal(references[: table.rows_used], table._references[: table.rows_used])
    for item, row in table.rows.items():
        assert item in live or references[row] > 0, f"{item} is held for nobody"
    assert not table.servable[[row for item, row in table.rows.items() if item not in live]].any()


def test_the_newest_version_wins() -> None:
    items = table()
    assert items.apply(state("a", version=5, popularity=5), NOW)
    assert not items.apply(state("a", version=4, popularity=4), NOW)
    assert items.items[items.rows["a"], POPULARITY_LONG] == 5
    assert items.apply(state("a", version=5, popularity=5), NOW), "the same again does no harm"
    assert items.apply(state("a", version=6, popularity=6), NOW)
    assert items.items[items.rows["a"], POPULARITY_LONG] == 6


def test_after_a_tombstone_an_item_may_come_back_with_any_version() -> None:
    items = table()
    items.apply(state("a", version=5), NOW)
    items.drop("a")
    items.drop("a")
    items.drop("never heard of")
    assert len(items) == 0
    assert items.apply(state("a", version=1), NOW)
    assert len(items) == 1
    assert_sound(items)


def test_neighbours_are_conditional_probabilities_with_a_doubt() -> None:
    items = table()
    items.apply(state("a", neighbours={"b": 6.0, "c": 3.0}), NOW)
    assert neighbours_of(items, "a") == pytest.approx({"b": 0.6, "c": 0.3})
    assert not items.servable[items.rows["b"]], "only known as a neighbour"
    items.apply(state("a", version=2, neighbours={"c": 1.0}), NOW)
    assert neighbours_of(items, "a") == pytest.approx({"c": 0.5})
    assert "b" not in items.rows, "nobody points to it any more"
    assert_sound(items)


def test_a_list_longer_than_kept_is_cut_and_takes_no_rows() -> None:
    items = table(neighbours_kept=2)
    items.apply(state("a", neighbours={"b": 3.0, "c": 2.0, "d": 1.0}), NOW)
    assert set(neighbours_of(items, "a")) == {"b", "c"}
    assert "d" not in items.rows
    assert_sound(items)


def test_an_item_may_be_its_own_neighbour() -> None:
    items = table()
    items.apply(state("a", neighbours={"a": 1.0}), NOW)
    assert_sound(items)
    items.drop("a")
    assert not items.rows
    assert_sound(items)


def test_a_row_is_not_given_away_while_a_list_points_to_it() -> None:
    items = table()
    items.apply(state("b"), NOW)
    items.apply(state("a", neighbours={"b": 1.0}), NOW)
    items.drop("b")
    items.apply(state("stranger"), NOW)
    assert set(neighbours_of(items, "a")) == {"b"}
    assert_sound(items)


def test_the_longest_unchanged_items_make_room() -> None:
    items = table(items_max=100)
    for number in range(150):
        items.apply(state(f"i{number}"), NOW + number)
    assert len(items) == 100
    assert items.evicted == 50
    assert set(items.rows) == {f"i{number}" for number in range(50, 150)}
    assert_sound(items)


def test_unknown_neighbours_are_bounded_too() -> None:
    items = table(items_max=4, neighbours_kept=3)
    for number in range(20):
        neighbours = {f"n{number}-{place}": 1.0 for place in range(3)}
        items.apply(state(f"i{number}", neighbours=neighbours), NOW + number)
        assert_sound(items)
    assert items.neighbours_left_out > 0


def test_silent_items_expire_unless_the_catalogue_holds_them() -> None:
    items = table()
    items.apply(state("silent"), NOW)
    items.apply(state("in the catalogue", available=True), NOW)
    items.apply(state("heard of"), NOW + 10)
    assert items.expire(NOW + 5, most=10) == 1
    assert set(items.rows) == {"in the catalogue", "heard of"}


def test_expiry_does_a_bounded_piece_of_work() -> None:
    items = table()
    for number in range(10):
        items.apply(state(f"i{number}"), NOW)
    assert [items.expire(NOW + 1, most=4) for _ in range(4)] == [4, 4, 2, 0]


NAMES = "abcdef"
changes = st.one_of(
    st.tuples(
        st.sampled_from(NAMES),
        st.integers(1, 5),
        st.dictionaries(st.sampled_from(NAMES), st.floats(0.01, 10), max_size=3),
    ),
    st.sampled_from(NAMES),
)


@settings(max_examples=300)
@given(st.lists(changes, max_size=40), st.integers(1, 4))
def test_any_history_leaves_the_table_sound(
    history: list[tuple[str, int, dict[str, float]] | str], items_max: int
) -> None:
    items = table(items_max=items_max)
    popular = PopularItems(items)
    for number, change in enumerate(history):
        if isinstance(change, str):
            items.drop(change)
        else:
            item_id, version, neighbours = change
            items.apply(state(item_id, version, popularity=version, neighbours=neighbours), NOW + number)
        assert_sound(items)
        popular.refresh()
        live = {row for row in items.rows.values() if items._live[row]}
        assert set(popular.short.tolist()) == set(popular.long.tolist()) == live


def ids(items: ItemTable, rows: np.ndarray) -> list[str]:
    return [items.id_of(row) for row in rows.tolist()]


def test_trending_orders_by_popularity_at_any_time() -> None:
    items = table()
    popular = PopularItems(items)
    # Half of the long half-life earlier: 10 is worth 7.07 when 8 was counted.
    items.apply(state("older", popularity=10, as_of_ms=NOW - 3 * HOUR_MS), NOW)
    items.apply(state("newer", popularity=8), NOW)
    items.apply(state("never engaged"), NOW)
    popular.refresh()
    assert ids(items, popular.long) == ["newer", "older"]
    orders = items.long_order[popular.long]
    assert np.exp2(orders[0] - orders[1]) == pytest.approx(8 / (10 * 2**-0.5))


def test_unavailable_items_leave_the_lists() -> None:
    items = table()
    popular = PopularItems(items)
    items.apply(state("a", popularity=2, available=True), NOW)
    items.apply(state("b", popularity=1), NOW)
    popular.refresh()
    assert ids(items, popular.short) == ["a", "b"]
    items.apply(state("a", version=2, popularity=2, available=False), NOW)
    popular.refresh()
    assert ids(items, popular.short) == ["b"]
    assert not len(popular.fresh)


def test_fresh_items_are_new_ones_of_the_catalogue_that_nobody_knows_yet() -> None:
    items = table()
    popular = PopularItems(items)
    items.apply(state("old", published_at_ms=NOW - HOUR_MS), NOW)
    items.apply(state("new", published_at_ms=NOW), NOW)
    items.apply(state("undated", available=True), NOW - MINUTE_MS)
    items.apply(state("known", published_at_ms=NOW, clicks=FRESH_CLICKS_MAX), NOW)
    items.apply(state("not in the catalogue"), NOW)
    popular.refresh()
    assert ids(items, popular.fresh) == ["new", "undated", "old"]


def test_long_lists_equal_a_sort_of_everything_through_arrivals_and_departures() -> None:
    random = np.random.default_rng(5)
    count = 3 * TRENDING_KEPT
    items = table(items_max=count)
    popular = PopularItems(items)
    popularity = random.permutation(count) + 1.0

    def top() -> list[str]:
        alive = [number for number in range(count) if f"i{number}" in items.rows]
        return [f"i{number}" for number in sorted(alive, key=lambda number: -popularity[number])]

    for number in range(count):
        items.apply(state(f"i{number}", popularity=popularity[number], available=True), NOW)
        if number % 500 == 0:
            popular.refresh()
    popular.refresh()
    assert ids(items, popular.long) == top()[:TRENDING_KEPT]
    assert len(popular.fresh) == FRESH_KEPT
    for _ in range(4):
        for item_id in top()[:400]:
            items.drop(item_id)
        popular.refresh()
        listed = ids(items, popular.long)
        assert len(listed) >= TRENDING_KEPT // 2
        assert listed == top()[: len(listed)]


def test_rows_for_who_keeps_the_state_in_this_process() -> None:
    items = table(items_max=2)
    assert [items.row_for(item_id) for item_id in ("a", "b", "a")] == [1, 2, 1]
    assert items.servable[1]
    assert len(items) == 2
    items.put(1, (4.0, 8.0, NOW, NOW, NOW, NOW, 0.05, 0.5), clicks=7)
    assert items.touched == {1}
    assert items.clicks[1] == 7
    assert items.items[1, POPULARITY_LONG] == 8.0
    assert items.long_order[1] - NOW / (6 * HOUR_MS) == pytest.approx(3.0)
    with pytest.raises(MillraceError, match="more than 2 items"):
        items.row_for("c")
