"""Differences between shops with the same shoppers, and days until one has recovered."""

from __future__ import annotations

import math

import numpy as np
import pytest

from millrace.simulation.catalogue import Floats
from millrace.simulation.figures import Count
from millrace.simulation.paired import days_until_recovered, figure, recovery_draws, recovery_interval, relative


def totals(slots: Floats, clicks: Floats) -> Floats:
    made: Floats = np.zeros((len(slots), len(Count)))
    made[:, Count.SLOTS], made[:, Count.CLICKS] = slots, clicks
    return made


def by_day(click_through: list[float]) -> Floats:
    return np.array([totals(np.array([1_000.0] * 2), np.array([1_000.0 * each] * 2)) for each in click_through])


def test_a_shop_does_not_differ_from_itself() -> None:
    own = totals(np.array([10.0, 30.0, 20.0]), np.array([1.0, 2.0, 3.0]))
    assert relative(own, own, "click_through").value == 0
    assert relative(own, own, "click_through").error == pytest.approx(0)
    assert math.isnan(relative(own, totals(np.ones(3), np.zeros(3)), "click_through").value)


def test_pairs_tell_more_than_two_groups_and_their_intervals_hold() -> None:
    rng = np.random.default_rng(11)
    runs, shoppers, covered = 400, 300, 0
    for _ in range(runs):
        slots: Floats = rng.integers(1, 20, shoppers).astype(np.float64) * 10
        liking = rng.beta(2, 30, shoppers)
        base = totals(slots, rng.binomial(slots.astype(int), liking).astype(float))
        own = totals(slots, rng.binomial(slots.astype(int), 1.2 * liking).astype(float))
        estimate = relative(own, base, "click_through")
        covered += estimate.low <= 0.2 <= estimate.high
        unpaired = figure(own, "click_through").relative_to(figure(base, "click_through"))
        assert estimate.value == pytest.approx(unpaired.value)
        assert estimate.error < unpaired.error
    # 95 % of 400 are 380; the binomial's standard deviation is 4.4: four of them.
    assert abs(covered - 0.95 * runs) < 4 * 4.4


@pytest.mark.parametrize(
    ("after", "days"),
    [
        # One window of three days has to be back: not a single good day.
        ([0.04, 0.04, 0.04], 3),
        ([0.02, 0.02, 0.04, 0.04, 0.04], 5),
        ([0.02, 0.038, 0.038, 0.038], 4),
        ([0.02, 0.0379, 0.0379, 0.0379], None),
        ([0.02, 0.05, 0.02, 0.02, 0.02], None),
        ([0.04, 0.04], None),
    ],
)
def test_days_until_recovered(after: list[float], days: int | None) -> None:
    assert days_until_recovered(by_day([0.9, 0.04, 0.04, *after]), "click_through", 3, 2) == days


def test_days_until_recovered_have_an_interval_of_shoppers() -> None:
    # Half of the shoppers are back on the first day, half on the sixth: who is drawn decides.
    soon, late = [0.9, 0.04, 0.04, *[0.04] * 10], [0.9, 0.04, 0.04, *[0.02] * 5, *[0.04] * 5]
    of_days = np.array([soon, late]).T
    mixed = np.array([totals(np.full(40, 1_000.0), 1_000 * np.tile(each, 20)) for each in of_days])
    assert days_until_recovered(mixed, "click_through", 3, 2) == 8
    low, high = recovery_interval(draws(mixed))
    assert low is not None
    assert high is not None
    assert 3 <= low <= 8 <= high
    everyone = by_day([0.9, 0.04, 0.04, *[0.02] * 4, *[0.04] * 3])
    assert recovery_interval(draws(everyone)) == (7, 7)
    never = by_day([0.9, 0.04, 0.04, *[0.02] * 8])
    assert recovery_interval(draws(never)) == (None, None)


def test_shops_are_compared_by_the_same_draws() -> None:
    rng = np.random.default_rng(7)
    days = [
        totals(np.full(50, 1_000.0), 1_000 * rate * rng.uniform(0, 2, 50))
        for rate in (0.9, 0.04, 0.04, *[0.02] * 4, *[0.06] * 5)
    ]
    soon = np.array(days)
    # The same shop, back a day later.
    late = np.array([*days[:3], days[3], *days[3:-1]])
    assert (draws(soon) < draws(late)).mean() > 0.95
    assert not (draws(soon) > draws(late)).any()
    assert (draws(soon) == draws(soon)).all()


def draws(counts: Floats) -> Floats:
    return recovery_draws(counts, "click_through", 3, 2, np.random.default_rng(4))
