"""CUPED: what a user did before the experiment explains a part of what they do in it, and that part is subtracted.

A. Deng, Y. Xu, R. Kohavi and T. Walker, "Improving the sensitivity of online controlled experiments by utilizing
pre-experiment data" (WSDM 2013). The adjusted outcome ``y - c (x - mean of x)`` has the same mean in both arms, because
``x`` was there before the assignment; with ``c = cov(x, y) / var(x)`` its variance is lower by the factor
``1 - correlation^2``.

The tracker does it slot by slot: ``mean of y + c (x - mean of x)`` of the slots before is what it expects of a slot, in
the place of their mean (the centre of ``millrace.experiments.comparison``). Known before the slot, it moves no mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

SLOTS_MIN = 200.0
"""Slots before what is expected follows the user: the error of the coefficient adds one over so many to the variance of
a slot, some ten times that where the slots of a user are alike."""


@dataclass(frozen=True, slots=True)
class Activity:
    """Sums over units (users, or slots) of earlier activity ``x`` and outcome ``y``; those of disjoint sets add up.

    A coefficient is of use for outcomes that come after those in it: fitted on the outcomes that it adjusts, it would
    depend on the assignment.
    """

    units: float = 0.0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    xy: float = 0.0
    yy: float = 0.0

    @classmethod
    def of(cls, earlier: float, outcome: float) -> Activity:
        """One unit."""
        return cls(1.0, earlier, outcome, earlier**2, earlier * outcome, outcome**2)

    @classmethod
    def of_slots(cls, earlier: float, clicks: int, slots: int) -> Activity:
        """The slots of an answer, each clicked or not."""
        return cls(slots, slots * earlier, clicks, slots * earlier**2, clicks * earlier, clicks)

    def __add__(self, other: Activity) -> Activity:
        return Activity(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    @property
    def coefficient(self) -> float:
        """``c`` above; 0 where earlier activity is the same for everyone."""
        spread = self._spread
        return (self.units * self.xy - self.x * self.y) / spread if spread > 0 else 0.0

    @property
    def remaining(self) -> float:
        """Share of the variance that is left, 0 to 1: of users, the factor for ``Plan.inflation``."""
        whole = self.units * self.yy - self.y**2
        if whole <= 0 or self._spread <= 0:
            return 1.0
        together = self.units * self.xy - self.x * self.y
        return max(1 - together**2 / (self._spread * whole), 0.0)

    def adjusted(self, earlier: float, outcome: float) -> float:
        """The outcome without what earlier activity says of it; unchanged while nobody is known."""
        return outcome - self.coefficient * (earlier - self.x / self.units) if self.units else outcome

    def expected(self, earlier: float) -> float | None:
        """Probability that a slot of such a user is clicked; None while too few slots say so."""
        if self.units < SLOTS_MIN:
            return None
        return min(max(self.y / self.units + self.coefficient * (earlier - self.x / self.units), 0.0), 1.0)

    @property
    def _spread(self) -> float:
        return self.units * self.xx - self.x**2


def scaled(engagements: int) -> float:
    """Earlier activity as it is used: a few users do a hundred times as much as others and click little more."""
    return math.log1p(engagements)
