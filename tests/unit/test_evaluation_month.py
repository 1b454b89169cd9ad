"""A small month: its arms differ in nothing but what they know, and its figures can be made again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from millrace.evaluation.month import WAYS, month
from millrace.settings import DAY_MS, Settings
from millrace.simulation.catalogue import Floats
from millrace.simulation.days import DaysPlan
from millrace.simulation.figures import Count
from millrace.simulation.paired import figure
from millrace.simulation.worlds import EPOCH_MS, WORLDS

TINY = replace(WORLDS["news"], plan=DaysPlan(days=3, sessions_per_day=20.0, shift_on=2), shoppers=30, items=40)


def counted(name: str, seed: int = 3) -> Floats:
    days = month(WAYS[name], TINY, seed, Settings())
    assert list(days.run()) == [0, 1, 2]
    return days.counts


@pytest.fixture(scope="module")
def counts() -> dict[str, Floats]:
    return {name: counted(name) for name in WAYS}


def test_the_same_seed_gives_the_same_figures(counts: dict[str, Floats]) -> None:
    assert (counted("hourly") == counts["hourly"]).all()
    assert (counted("hourly", seed=4) != counts["hourly"]).any()


def test_every_arm_has_the_same_visitors(counts: dict[str, Floats]) -> None:
    for name in WAYS:
        assert (counts[name][:, :, Count.SESSIONS] == counts["live"][:, :, Count.SESSIONS]).all(), name
        assert (counts[name][:, :, Count.PAGES] == counts["live"][:, :, Count.PAGES]).all(), name


def test_arms_that_reached_no_boundary_yet_are_the_same(counts: dict[str, Floats]) -> None:
    # On the first day neither a night nor a week has passed.
    assert (counts["nightly"][0] == counts["weekly"][0]).all()
    assert (counts["nightly"][1:] != counts["weekly"][1:]).any()
    assert (counts["live"][0] != counts["nightly"][0]).any()


def test_figures_of_a_tiny_run(counts: dict[str, Floats]) -> None:
    for name, of_days in counts.items():
        totals = of_days.sum(axis=0)
        pages, slots = totals[:, Count.PAGES].sum(), totals[:, Count.SLOTS].sum()
        # The most clicked items are ten from the first page on; so are new ones where nothing else is known.
        assert slots == 10 * pages, name
        assert pages > totals[:, Count.CLICKS].sum() > 0, name
        click_through = figure(totals, "click_through")
        assert click_through.value == totals[:, Count.CLICKS].sum() / slots
        assert click_through.low < click_through.value < click_through.high
    assert np.isfinite(figure(counts["live"].sum(axis=0), "conversion").value)


@pytest.mark.parametrize("name", WORLDS)
def test_worlds_are_watched_for_whole_weeks_and_a_shift(name: str) -> None:
    kind = WORLDS[name]
    assert EPOCH_MS % (7 * DAY_MS) == 0
    assert kind.warm_up_days % 7 == 0, "after the warm-up each rhythm has reached a boundary"
    assert kind.plan.days - kind.warm_up_days == 30
    assert kind.plan.shift_on is not None
    # The middle of what may happen to weekly learning.
    assert kind.plan.shift_on % 7 == 3
