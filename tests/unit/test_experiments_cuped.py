"""CUPED against numpy's covariance and scipy's regression."""

from __future__ import annotations

from functools import reduce
from operator import add

import numpy as np
import pytest
from scipy.stats import linregress

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


def test_without_users_or_differences_nothing_is_changed() -> None:
    assert Activity().adjusted(3.0, 1.0) == 1.0
    alike = Activity.of(2.0, 0.0) + Activity.of(2.0, 1.0)
    assert (alike.coefficient, alike.remaining) == (0.0, 1.0)
    assert alike.adjusted(2.0, 1.0) == 1.0
