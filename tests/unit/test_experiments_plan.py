"""Planning against formulas and simulation of the boundary."""

from __future__ import annotations

import numpy as np
import pytest

from millrace.errors import InvalidField
from millrace.experiments.plan import Plan


def test_the_variance_is_that_of_simulated_slots() -> None:
    rng = np.random.default_rng(1)
    plan = Plan(0.05, 0.2, 0.1)
    b = rng.random(1_000_000) < 0.1
    clicked = rng.random(1_000_000) < np.where(b, 0.06, 0.05)
    steps = np.where(b, 10.0, -1 / 0.9) * (clicked - clicked.mean())
    assert plan.variance == pytest.approx(steps.var(), rel=0.02)


def test_power_is_the_designs_figure() -> None:
    """Measured while designing, crossings before the end included: 94 % at 50/50, 38 % at 10/90."""
    assert 0.90 < Plan(0.05, 0.2).power(40_000) < 0.94
    assert 0.30 < Plan(0.05, 0.2, 0.1).power(40_000) < 0.38


@pytest.mark.parametrize("share", [0.5, 0.1])
@pytest.mark.parametrize("power", [0.5, 0.9])
def test_slots_needed_gives_that_power_again(share: float, power: float) -> None:
    plan = Plan(0.05, 0.2, share)
    assert plan.power(plan.slots_needed(power)) == pytest.approx(power, abs=1e-3)


def test_time_grows_with_users_that_are_alike_and_with_less_traffic() -> None:
    plan = Plan(0.05, 0.2)
    assert Plan(0.05, 0.2, inflation=2.0).slots_needed() == pytest.approx(2 * plan.slots_needed(), rel=1e-4)
    assert plan.days_needed(10_000, 0.1) == pytest.approx(10 * plan.days_needed(10_000, 1.0))
    assert Plan(0.05, 0.2, 0.1).slots_needed() > 2.5 * plan.slots_needed()


@pytest.mark.parametrize(
    ("values", "field"),
    [((0.0, 0.2), "rate"), ((0.05, 0.0), "lift"), ((0.5, 1.0), "lift"), ((0.05, 0.2, 1.0), "share")],
)
def test_what_cannot_be_is_refused(values: tuple[float, ...], field: str) -> None:
    with pytest.raises(InvalidField, match=field):
        Plan(*values)
    with pytest.raises(InvalidField, match="traffic"):
        Plan(0.05, 0.2).days_needed(10_000, 1.5)
