"""How long an experiment will take, and how sure it will then be of finding what it looks for.

Computed for the confidence sequence, as it is used: R. Johari et al., "Peeking at A/B tests" (KDD 2017) explain what
looking all the time costs; here about half as many slots again as a test that is looked at once. CUPED, the reduction
of the variance by earlier activity, is in ``millrace.experiments.cuped``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from millrace.errors import InvalidField
from millrace.experiments.sequence import Boundary

# The standard library's, for single numbers: scipy takes half a second to import, in every command on experiments.
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Plan:
    """What is expected of an arm and its control.

    Attributes
    ----------
    rate
        Of the control, for each slot.
    lift
        The smallest relative difference that should be found, for example .2; not 0.
    share
        Of the arm among the slots of the two; .5 needs the least time.
    alpha
        As in the experiment.
    inflation
        How many times larger the variance by user is than that of independent slots: 1 plus (slots of a user - 1)
        times their correlation, and less with CUPED.
    """

    rate: float
    lift: float
    share: float = 0.5
    alpha: float = 0.05
    inflation: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise InvalidField("rate", f"{self.rate:g}", "above 0, below 1")
        if not (self.lift and 0 < self.rate * (1 + self.lift) < 1):
            raise InvalidField("lift", f"{self.lift:g}", "not 0, with the arm's rate above 0 and below 1")
        if not 0 < self.share < 1:
            raise InvalidField("share", f"{self.share:g}", "above 0, below 1")
        if not 0 < self.inflation < math.inf:
            raise InvalidField("inflation", f"{self.inflation:g}", "above 0, finite")

    @property
    def variance(self) -> float:
        """Expected variance of the weighted difference, for each slot."""
        arm, control = self.rate * (1 + self.lift), self.rate
        centre = self.share * arm + (1 - self.share) * control
        squares = _around(arm, centre) / self.share + _around(control, centre) / (1 - self.share)
        return self.inflation * (squares - (arm - control) ** 2)

    def boundary(self, slots: float) -> Boundary:
        """The boundary that is narrowest when this many slots were seen."""
        return Boundary(self.alpha, self.variance * slots)

    def power(self, slots: float) -> float:
        """Probability that the difference is found within this many slots.

        That of being beyond the boundary at the end: a little too low, for some runs cross it before and return.
        """
        variance = self.variance * slots
        drift = abs(self.rate * self.lift) * slots
        return _NORMAL.cdf((drift - self.boundary(slots).two_sided(variance)) / math.sqrt(variance))

    def slots_needed(self, power: float = 0.9) -> int:
        """Slots of both arms together that give this power (see ``power``)."""
        return math.ceil(slots_to_find(self.rate * self.lift, self.variance, self.alpha, power))

    def days_needed(self, slots_per_day: float, traffic: float, power: float = 0.9) -> float:
        """Days until then, if ``traffic`` of all slots a day go to the two arms."""
        if not (slots_per_day > 0 and 0 < traffic <= 1):
            raise InvalidField(
                "traffic", f"{traffic:g} of {slots_per_day:g} slots a day", "0 < traffic <= 1, slots above 0"
            )
        return self.slots_needed(power) / (slots_per_day * traffic)


def slots_to_find(difference: float, variance: float, alpha: float, power: float = 0.9) -> float:
    """Slots that find a difference of the means with this power, where each slot has such a variance."""
    if not 0 < power < 1:
        raise InvalidField("power", f"{power:g}", "above 0, below 1")
    # At its best point the boundary is the same number of standard deviations away, whatever the variance is.
    deviations = Boundary(alpha, 1.0).two_sided(1.0) + _NORMAL.inv_cdf(power)
    return variance * (max(deviations, 0.0) / difference) ** 2


def _around(rate: float, centre: float) -> float:
    return rate * (1 - rate) + (rate - centre) ** 2
