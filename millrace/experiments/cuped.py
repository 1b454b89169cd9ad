"""CUPED: what a user did before the experiment explains a part of what they do in it, and that part is subtracted.

A. Deng, Y. Xu, R. Kohavi and T. Walker, "Improving the sensitivity of online controlled experiments by utilizing
pre-experiment data" (WSDM 2013). The adjusted outcome ``y - c (x - mean of x)`` has the same mean in both arms, because
``x`` was there before the assignment; with ``c = cov(x, y) / var(x)`` its variance is lower by the factor
``1 - correlation^2``.
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Activity:
    """Sums over users of earlier activity ``x`` and outcome ``y``; those of disjoint sets of users can be added.

    A coefficient is of use for outcomes that come after those in it: fitted on the outcomes that it adjusts, it would
    depend on the assignment.
    """

    users: float = 0.0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    xy: float = 0.0
    yy: float = 0.0

    @classmethod
    def of(cls, earlier: float, outcome: float) -> Activity:
        """One user."""
        return cls(1.0, earlier, outcome, earlier**2, earlier * outcome, outcome**2)

    def __add__(self, other: Activity) -> Activity:
        return Activity(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    @property
    def coefficient(self) -> float:
        """``c`` above; 0 where earlier activity is the same for everyone."""
        spread = self._spread
        return (self.users * self.xy - self.x * self.y) / spread if spread > 0 else 0.0

    @property
    def remaining(self) -> float:
        """Share of the variance that is left, 0 to 1: the factor for ``Plan.inflation``."""
        whole = self.users * self.yy - self.y**2
        if whole <= 0 or self._spread <= 0:
            return 1.0
        together = self.users * self.xy - self.x * self.y
        return max(1 - together**2 / (self._spread * whole), 0.0)

    def adjusted(self, earlier: float, outcome: float) -> float:
        """The outcome without what earlier activity says of it; unchanged while nobody is known."""
        return outcome - self.coefficient * (earlier - self.x / self.users) if self.users else outcome

    @property
    def _spread(self) -> float:
        return self.users * self.xx - self.x**2
