"""Usual hours: a known curve is found, a flat one stays flat, and what can say nothing of hours does not."""

from __future__ import annotations

import numpy as np
import pytest

from millrace.drift.block import Baseline, Block
from millrace.drift.hours import FACTOR_MIN, HOURS, PARAMETERS, Hours
from millrace.errors import InvalidField


def days(count: int, swing: float, size: int, seed: int) -> dict[int, Block]:
    """Hours of some days with a rate of .05 that swings, largest at six."""
    rng = np.random.default_rng(seed)
    rates = 0.05 * (1 + swing * np.sin(2 * np.pi * np.arange(count * HOURS) / HOURS))
    return {hour: Block(size, float(rng.binomial(size, rate)), float(size)) for hour, rate in enumerate(rates)}


def test_a_known_curve_is_found() -> None:
    found = Hours.of(days(14, 0.4, 4_000, seed=1))
    truth = 1 + 0.4 * np.sin(2 * np.pi * np.arange(HOURS) / HOURS)
    assert np.array(found.factors) == pytest.approx(truth, abs=0.04)
    assert found.block(30, Block(10, 1.0, 10.0)) == Block(10, 1.0, 10 * found.factors[6])


def test_what_may_be_chance_is_drawn_towards_a_flat_day() -> None:
    """Of 200 references without a season, the errors are smaller than those of the fitted curves (James and Stein)."""
    errors = []
    for seed in range(200):
        factors = np.array(Hours.of(days(5, 0.0, 833, seed)).factors)
        errors.append(float(((factors - 1) ** 2).mean()))
    # Four numbers fitted, each with the variance (1 - rate) / (rate n): the mean over hours of their sum.
    fitted = 4 * 0.95 / (0.05 * 5 * HOURS * 833)
    assert np.mean(errors) < 0.75 * fitted
    assert np.mean([error == 0 for error in errors]) > 0.1


def test_errors_of_fitted_numbers_are_in_the_baseline() -> None:
    blocks = list(days(5, 0.4, 833, seed=2).values())
    assert Baseline.of(blocks, PARAMETERS).error == pytest.approx(Baseline.of(blocks).error * PARAMETERS**0.5)


@pytest.mark.parametrize(
    "blocks",
    [
        {},
        {0: Block(10, 1.0, 10.0)},
        {hour: Block(10, float(hour % 2), 10.0) for hour in range(5)},
        {hour: Block(10, 0.0, 10.0) for hour in range(48)},
        {hour: Block(0, 0.0, 0.0) for hour in range(48)},
        {24 * day + hour: Block(10, 1.0, 10.0) for day in range(9) for hour in range(4)},
        {hour: Block(100, float(hour), 100.0) for hour in range(17)},
    ],
    ids=["nothing", "one hour", "five hours", "no clicks", "no outcomes", "four hours of nine days", "17 hours"],
)
def test_too_little_says_nothing_of_hours(blocks: dict[int, Block]) -> None:
    assert Hours.of(blocks) == Hours()


def test_something_is_expected_of_every_hour() -> None:
    """A night without a click: the curve dips below 0 there, and a segment that comes only at night has a baseline."""
    blocks = {hour: Block(1_000, 100.0 * (6 <= hour % HOURS < 12), 1_000.0) for hour in range(5 * HOURS)}
    found = Hours.of(blocks)
    assert min(found.factors) == FACTOR_MIN
    assert Baseline.of([found.block(hour, Block(10, 0.0, 10.0)) for hour in (0, 1)], PARAMETERS).ratio > 0


def test_factors_that_cannot_be_are_refused() -> None:
    with pytest.raises(InvalidField):
        Hours((1.0,) * 23)
    with pytest.raises(InvalidField):
        Hours((-1.0,) * 24)
