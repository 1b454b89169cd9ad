"""CUPED against numpy's covariance and scipy's regression."""

from __future__ import annotations

from functools import reduce
from operator import add

import numpy as np
import pytest
from scipy.stats import linregress

from millrace.experiments.comparison import Comparison
from millrace.experiments.cuped import Activity

RNG = np.random.default_rng(5)
EARLIER = RNG.gamma(1.0, 3.0, 2_000)
OUTCOME = 0.5 * EARLIER + RNG.normal(0.0, 1.0, 2_000)


def known(users: slice) -> Activity:
    return reduce(add, (Activity.of(x, y) for x, y in zip(EARLIER[users], OUTCOME[users], strict=True)), Activity())


def test_the_coefficient_is_that_of_a_regression_and_the_rest_its_residual() -> None:
    activity, line = known(slice(None)), linregress(EARLIER, OUTCOME)
    assert activity.coefficient == pytest.approx(line.slope)
    assert activity.remaining == pytest.approx(1 - line.rvalue**2)


def test_later_outcomes_keep_their_mean_and_lose_variance() -> None:
    """The coefficient of the first half leaves of the second what its own would leave."""
    activity = known(slice(0, 1_000))
    later = slice(1_000, None)
    adjusted = [activity.adjusted(x, y) for x, y in zip(EARLIER[later], OUTCOME[later], strict=True)]
    assert np.var(adjusted) / np.var(OUTCOME[later]) == pytest.approx(known(later).remaining, rel=0.02)
    assert np.mean(adjusted) == pytest.approx(OUTCOME.mean(), abs=0.15)


def test_sums_of_disjoint_users_add_up() -> None:
    parts = known(slice(0, 700)) + known(slice(700, None))
    assert parts.coefficient == pytest.approx(known(slice(None)).coefficient)


def test_of_slots_it_is_the_regression_of_each_slot() -> None:
    """Answers of three slots; the sums are those of their slots one by one."""
    earlier = RNG.poisson(3.0, 400).astype(float)
    clicks = RNG.binomial(3, 0.05 + 0.05 * earlier.clip(max=10))
    answers = reduce(add, (Activity.of_slots(x, int(y), 3) for x, y in zip(earlier, clicks, strict=True)), Activity())
    each = np.repeat(earlier, 3), np.concatenate([[1.0] * y + [0.0] * (3 - y) for y in clicks.tolist()])
    line = linregress(*each)
    assert answers.units == 1_200
    assert answers.coefficient == pytest.approx(line.slope)
    assert answers.remaining == pytest.approx(1 - line.rvalue**2)
    assert answers.expected(2.0) == pytest.approx(line.intercept + 2 * line.slope)
    assert (answers.expected(1_000.0), answers.expected(-1_000.0)) == (1.0, 0.0)
    few = reduce(add, (Activity.of_slots(x, 1, 3) for x in earlier[:10]), Activity())
    assert few.expected(2.0) is None


def test_a_centre_that_follows_the_user_keeps_the_mean_and_loses_variance() -> None:
    """Of 3,000 users whose rates are known before; the arm is better by .05."""
    rates = RNG.beta(2.0, 8.0, 3_000)
    plain, adjusted, known = Comparison(), Comparison(), Activity()
    for number, rate in enumerate(rates.tolist()):
        control = bool(RNG.random() < 0.5)
        clicked = int(RNG.binomial(10, rate + (0.0 if control else 0.05)))
        plain.add(str(number), control, (0.5, 0.5), clicked, slots=10)
        adjusted.add(str(number), control, (0.5, 0.5), clicked, slots=10, expected=known.expected(rate))
        known += Activity.of_slots(rate, clicked, 10)
    for comparison in (plain, adjusted):
        error = comparison.sums.variance**0.5 / comparison.sums.slots
        assert comparison.sums.effect == pytest.approx(0.05, abs=4 * error)
    assert adjusted.sums.control_rate == plain.sums.control_rate
    # Of a user's ten slots, between users .0145 * 100 and within them 10 * .146: half is left.
    assert adjusted.sums.variance / plain.sums.variance == pytest.approx(0.5, abs=0.05)


def test_without_users_or_differences_nothing_is_changed() -> None:
    assert Activity().adjusted(3.0, 1.0) == 1.0
    alike = Activity.of(2.0, 0.0) + Activity.of(2.0, 1.0)
    assert (alike.coefficient, alike.remaining) == (0.0, 1.0)
    assert alike.adjusted(2.0, 1.0) == 1.0
