"""The true figures of each arm, with confidence intervals.

What one shopper does is correlated, so the shopper is the unit of the variance: a figure is a ratio of sums over
shoppers (clicks per slot, purchases per session), and its standard error comes from the linearised residuals
``y - r x`` of each shopper (delta method: A. Deng et al., "Applying the delta method in metric analytics", KDD 2018;
the ratio estimator of W. G. Cochran, "Sampling techniques", 1977, ch. 6).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from millrace.simulation.catalogue import Floats, Ints

Z = 1.959964
"""Quantile of the normal distribution for 95 %."""


class Count(IntEnum):
    """What is counted for each shopper; the columns of ``Figures.totals``."""

    SESSIONS = 0
    PAGES = 1
    """Pages shown with at least one slot."""
    SLOTS = 2
    """Slots shown."""
    EXAMINED = 3
    CLICKS = 4
    """Clicks on slots; those that came by searching are not among them."""
    PURCHASES = 5
    """Of a session, however the item was found."""
    REVENUE = 6


RATIOS = {
    "click_through": (Count.CLICKS, Count.SLOTS),
    "click_through_examined": (Count.CLICKS, Count.EXAMINED),
    "conversion": (Count.PURCHASES, Count.SESSIONS),
    "revenue_per_session": (Count.REVENUE, Count.SESSIONS),
}
"""Name of each figure: what is divided by what."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its standard error (NaN where fewer than two shoppers tell)."""

    value: float
    error: float

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval."""
        return self.value - Z * self.error

    @property
    def high(self) -> float:
        """Upper end of the 95 % interval."""
        return self.value + Z * self.error

    def minus(self, other: Estimate) -> Estimate:
        """The difference of figures of different shoppers."""
        return Estimate(self.value - other.value, math.hypot(self.error, other.error))

    def relative_to(self, other: Estimate) -> Estimate:
        """How much higher than the figure of different shoppers, as a share of it (delta method); NaN if that is 0."""
        if not other.value:
            return Estimate(math.nan, math.nan)
        times = self.value / other.value
        return Estimate(times - 1, math.hypot(self.error, times * other.error) / abs(other.value))


def ratio(numerators: Floats, denominators: Floats) -> Estimate:
    """Sum over sum, with the error by shopper: float64[shoppers] each; shoppers without denominator are left out."""
    told = denominators > 0
    y, x = numerators[told], denominators[told]
    if not x.size:
        return Estimate(math.nan, math.nan)
    value = float(y.sum() / x.sum())
    if x.size < 2:
        return Estimate(value, math.nan)
    residuals = y - value * x
    variance = x.size / (x.size - 1) * float(residuals @ residuals) / float(x.sum()) ** 2
    return Estimate(value, math.sqrt(variance))


class Figures:
    """Counts by shopper.

    Parameters
    ----------
    arm_of
        int64[shoppers], place of each shopper's arm.

    Attributes
    ----------
    totals
        float64[shoppers, len(Count)], since the beginning.
    asked, failed
        Requests to a recommender, and those without an answer: a list with a count for each arm.
    """

    def __init__(self, arm_of: Ints, arms: int) -> None:
        self.arm_of = arm_of
        self.totals: Floats = np.zeros((len(arm_of), len(Count)))
        self.asked = [0] * arms
        self.failed = [0] * arms
        # What is left out of the figures.
        self._before: Floats = np.zeros_like(self.totals)
        self._rows = [np.flatnonzero(arm_of == arm) for arm in range(arms)]

    def add(self, shopper: int, what: Count, amount: float = 1.0) -> None:
        """Count something."""
        self.totals[shopper, what] += amount

    def sums(self, arm: int) -> Sequence[float]:
        """Everything counted for an arm since the beginning, in the order of ``Count``."""
        sums: list[float] = self.totals[self._rows[arm]].sum(axis=0).tolist()
        return sums

    def warmed_up(self) -> None:
        """Leave out of the figures what was counted up to now; ``totals`` and ``sums`` go on."""
        self._before = self.totals.copy()

    def told(self, arm: int) -> Sequence[float]:
        """As ``sums``, since the warm-up: what the figures are made of."""
        told: list[float] = self._told(arm).sum(axis=0).tolist()
        return told

    def shoppers(self, arm: int) -> int:
        """How many shoppers of an arm have seen a page or begun a session since the warm-up."""
        return int(np.count_nonzero(self._told(arm)[:, [Count.SESSIONS, Count.PAGES]].any(axis=1)))

    def estimate(self, arm: int, name: str) -> Estimate:
        """A figure (see ``RATIOS``) of an arm, since the warm-up."""
        numerator, denominator = RATIOS[name]
        told = self._told(arm)
        return ratio(told[:, numerator], told[:, denominator])

    def _told(self, arm: int) -> Floats:
        rows = self._rows[arm]
        told: Floats = self.totals[rows] - self._before[rows]
        return told
