"""Asymptotic confidence sequences: intervals that hold at all times at once, so that anyone may look at any time.

I. Waudby-Smith, D. Arbour, R. Sinha, E. H. Kennedy and A. Ramdas, "Time-uniform central limit theory and asymptotic
confidence sequences" (Annals of Statistics 52, 2024). A sum ``S`` with the estimated variance ``V`` behaves, for many
units, as a Brownian motion at time ``V``; the normal mixture of H. Robbins (1970) bounds that for all ``V`` at once::

    P(some V: |S| > sqrt((V + h) log((V + h) / (h alpha^2)))) <= alpha

Their theorem 2.2 is this with ``h = sigma^2 / rho^2``. The clock is the variance and not the number of outcomes: that
is their form for variances that move (section 2.4), which they do where weights or rates do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from millrace.errors import InvalidField

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Boundary:
    """How far a sum may be from its mean.

    Attributes
    ----------
    alpha
        Probability that the sum is ever further away.
    best_at
        The variance at which the interval is about as narrow as it can be. Any number that was chosen before the
        first look is valid; one that is wrong by a factor of four costs less than a
        tenth of the width (``millrace.experiments.plan.variance`` computes a good one).
    """

    alpha: float
    best_at: float

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise InvalidField("alpha", f"{self.alpha:g}", "above 0, below 1")
        if not (self.best_at > 0 and math.isfinite(self.best_at)):
            raise InvalidField("best_at", f"{self.best_at:g}", "a finite number above 0")

    @property
    def mixture(self) -> float:
        """``h`` above, by the paper's rule for ``rho`` (its appendix B.2)."""
        return self.best_at / _ratio(self.alpha)

    def squared(self, variance: Floats) -> Floats:
        """Square of the bound on ``|S|``, two-sided; takes and returns arrays of any shape."""
        total = variance + self.mixture
        return total * np.log(total / (self.mixture * self.alpha**2))

    def two_sided(self, variance: float) -> float:
        """The bound on ``|S|``."""
        total = variance + self.mixture
        return math.sqrt(total * math.log(total / (self.mixture * self.alpha**2)))

    def one_sided(self, variance: float) -> float:
        """The bound on ``S`` from one side, at the same alpha (the paper's appendix B.1)."""
        total = variance + self.mixture
        return math.sqrt(2 * total * math.log1p(math.sqrt(total / self.mixture) / (2 * self.alpha)))


def _ratio(alpha: float) -> float:
    wanted = -2 * math.log(alpha)
    # The rule's logarithm needs an argument above 1; below it, nobody asks for evidence.
    return wanted + math.log(max(wanted, 1.0)) + 1
