"""Counts, rolling windows and dispersion: laws of adding up, and what counts as missing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.drift.block import Block
from millrace.drift.counts import NAMES_MAX, SORTED_FROM, Categories, Edges
from millrace.drift.dispersion import Dispersion, of_cells, of_distribution
from millrace.drift.reference import Reference
from millrace.drift.rolling import Rolling
from millrace.errors import InvalidField

NUMBERS = st.lists(st.one_of(st.floats(width=32), st.sampled_from([0.0, 1.0, -1.0])), max_size=60)
NAMES = st.lists(st.sampled_from(["a", "b", "c", None]), max_size=40)
EVENTS = st.lists(st.tuples(st.integers(0, 12), st.booleans(), st.booleans()), max_size=60)


@given(NUMBERS, NUMBERS, NUMBERS)
def test_counts_of_two_halves_are_those_of_the_whole(
    reference: list[float], one: list[float], two: list[float]
) -> None:
    edges = Edges.of(reference)
    both, whole = edges.count(one) + edges.count(two), edges.count(one + two)
    assert (both.cells == whole.cells).all()
    assert both.missing == whole.missing
    assert both.present + both.missing == len(one) + len(two)


@given(NAMES, NAMES, NAMES)
def test_counts_of_categories_add_up(reference: list[str | None], one: list[str | None], two: list[str | None]) -> None:
    names = Categories.of(reference)
    both, whole = names.count(one) + names.count(two), names.count(one + two)
    assert (both.cells == whole.cells).all()
    assert both.missing == whole.missing == (one + two).count(None)


@given(NUMBERS)
def test_a_cell_holds_what_its_edges_say(values: list[float]) -> None:
    edges = Edges.of(values)
    there = np.array([value for value in values if np.isfinite(value)])
    up_to = np.cumsum(edges.count(values).cells)[:-1]
    assert (up_to == [(there <= edge).sum() for edge in edges.edges]).all()


def test_many_values_are_counted_as_few_are() -> None:
    values = np.random.default_rng(1).normal(size=2 * SORTED_FROM).round(1)
    values[::7] = np.nan
    edges = Edges.of(values)
    few = [edges.count(part) for part in np.array_split(values, 10)]
    assert (edges.count(values).cells == sum(few[1:], few[0]).cells).all()


def test_frequent_values_have_cells_of_their_own() -> None:
    """Nine zeros of ten and a continuum: what goes below zero, and what is zero no more, is seen."""
    values = np.concatenate([np.zeros(900), np.linspace(1, 2, 100)])
    edges = Edges.of(values)
    counts = edges.count(values).cells
    at = int(np.searchsorted(edges.edges, 0.0))
    assert counts[at] == 900
    assert edges.count([-1e-40]).cells[at] == 0


def test_a_value_is_the_same_in_32_and_64_bits() -> None:
    """log(.001), the floor of several features, is another number in each: the cells must not care."""
    floor = np.log(0.001)
    values = np.concatenate([np.full(900, floor), np.linspace(-6, 0, 100)])
    edges = Edges.of(values)
    assert (edges.count(values).cells == edges.count(values.astype(np.float32)).cells).all()
    assert edges.count([np.float64(floor), 1e300]).missing == 1, "and what does not fit is infinite"


def test_nan_none_and_infinities_are_missing() -> None:
    assert Edges.of([1.0, np.nan, 2.0]).count([np.nan, np.inf, -np.inf, 1.5]).missing == 3
    assert Categories.of(["a", None]).count([None, "a", "new"]).missing == 1


def test_categories_beyond_the_limit_count_as_new() -> None:
    names = Categories.of([f"name-{each}" for each in range(300)] + ["often"] * 2)
    assert names.names[0] == "often"
    assert names.size == NAMES_MAX + 1
    assert names.count(["unheard of"]).cells[-1] == 1


@given(EVENTS, st.integers(1, 6))
def test_two_workers_windows_merged_are_one_over_the_whole(events: list[tuple[int, bool, bool]], keep: int) -> None:
    """In whatever order the halves come, and whatever was dropped on the way."""
    whole, halves = Rolling[Block](keep), (Rolling[Block](keep), Rolling[Block](keep))
    for at, clicked, left in events:
        block = Block(1, float(clicked), 1.0)
        whole.add(at, block)
        halves[left].add(at, block)
    first, second = halves
    first.merge(second)
    assert dict(first.in_order()) == dict(whole.in_order())
    assert len(whole.blocks) <= keep
    assert whole.total() == (sum((block for _, block in whole.in_order()), Block(0, 0, 0)) if events else None)


def test_the_design_effect_of_clusters_is_kishs() -> None:
    """1 + (size - 1) correlation: 4,000 clusters of 20 of correlation .1 at the median, and 1 without correlation."""
    rng = np.random.default_rng(2)
    rates = rng.beta(4.5, 4.5, size=4_000)
    ones = rng.binomial(20, rates)
    for blocks, expected in ((ones, 2.9), (rng.binomial(20, 0.5, 4_000), 1.0)):
        table = np.stack([blocks, 20 - blocks], axis=1)
        for found in (of_cells(table), of_distribution(table)):
            assert found.effect == pytest.approx(expected, rel=0.06)
            assert found.freedom == 3_999


def test_the_design_effect_of_two_blocks_is_its_formula() -> None:
    """3 and 7 of ten each: the variance of the mean is .2^2, that of 20 independent values .25 / 20."""
    table = np.array([[3, 7], [7, 3]])
    assert of_cells(table).effect == pytest.approx(0.04 / (0.25 / 20))
    assert of_distribution(table).effect == pytest.approx(0.04 / (0.25 / 20))
    assert of_cells(table).directions == pytest.approx(1.0)


def test_one_block_says_nothing_of_dispersion() -> None:
    assert of_cells(np.array([[3, 4]])) == of_distribution(np.array([[3, 4], [0, 0]])) == Dispersion()


def test_counts_and_cells_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InvalidField, match="ascending"):
        Edges(np.array([1.0, 1.0], dtype=np.float32))
    with pytest.raises(InvalidField, match="twice"):
        Categories(("a", "a"))
    with pytest.raises(InvalidField, match=r"x\.blocks"):
        Reference("x", Edges(np.array([1.0], dtype=np.float32)), np.zeros((1, 3), dtype=int), np.zeros(1, dtype=int))
    with pytest.raises(InvalidField, match="below 0"):
        Reference("x", Edges(np.array([1.0], dtype=np.float32)), np.array([[1, -1]]), np.zeros(1, dtype=int))
    with pytest.raises(InvalidField, match="keep"):
        Rolling[Block](0)
