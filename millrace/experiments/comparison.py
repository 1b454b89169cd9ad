"""What is known of an arm against the control: a handful of sums, from which every figure and decision follows.

Each slot contributes the inverse-propensity weighted difference (D. G. Horvitz and D. J. Thompson, 1952)::

    d = (1[arm] / p_arm - 1[control] / p_control) (y - m)

whose mean, given everything before the assignment, is the difference of the two rates, whatever the rates and
propensities do over time. The centre ``m`` is the rate of both arms before this slot: being known before, it moves no
mean, and it takes the number of a user's slots out of the variance, as in J. Robins et al.'s augmented estimator
(JASA 1994) and R. Budylin et al.'s linearisation of ratios (WSDM 2018).

Slots of a user are alike, so users are the units: the variance is that of sums by user (K.-Y. Liang and S. L. Zeger,
"Longitudinal data analysis using generalized linear models", 1986; A. Deng et al., KDD 2018).
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from millrace.errors import InvalidField
from millrace.experiments.sequence import Boundary


@dataclass(frozen=True, slots=True)
class Sums:
    """Sufficient statistics; those of disjoint sets of users can be added.

    Attributes
    ----------
    slots, clicks
        Of the two arms together.
    difference
        Sum of ``d``.
    square, product, size
        Sums over users of ``d_u^2``, ``d_u n_u`` and ``n_u^2``, where ``d_u`` and ``n_u`` are the user's sum and slots.
    control_weight, control_clicks
        Sums of ``1 / p`` over the control's slots, and over those of them that were clicked.
    """

    slots: float = 0.0
    clicks: float = 0.0
    difference: float = 0.0
    square: float = 0.0
    product: float = 0.0
    size: float = 0.0
    control_weight: float = 0.0
    control_clicks: float = 0.0

    def __add__(self, other: Sums) -> Sums:
        return Sums(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    @property
    def effect(self) -> float:
        """Estimated difference of the rates (arm less control) for each slot; 0 with no slots."""
        return self.difference / self.slots if self.slots else 0.0

    @property
    def control_rate(self) -> float:
        """Estimated rate of the control; 0 while it has no slots."""
        return self.control_clicks / self.control_weight if self.control_weight else 0.0

    @property
    def variance(self) -> float:
        """Estimated variance of ``difference`` around its mean, by user."""
        effect = self.effect
        return max(self.square - 2 * effect * self.product + effect**2 * self.size, 0.0)

    def interval(self, boundary: Boundary) -> tuple[float, float]:
        """Confidence sequence of ``effect`` as it stands now."""
        if not self.slots:
            return float("-inf"), float("inf")
        half = boundary.two_sided(self.variance) / self.slots
        return self.effect - half, self.effect + half


@dataclass(slots=True)
class Comparison:
    """One arm against the control, updated in constant time by each slot.

    Attributes
    ----------
    sums
        What is known.
    """

    sums: Sums = field(default_factory=Sums)
    _users: dict[str, tuple[float, float]] = field(default_factory=dict)

    def add(self, user: str, control: bool, propensity: float, clicked: float) -> None:
        """Take a slot of one of the two arms.

        Parameters
        ----------
        control
            Whether the user saw the control.
        propensity
            Probability with which the user got this arm, in (0, 1].
        clicked
            The outcome, 0 or 1 for a click.
        """
        if not 0 < propensity <= 1:
            raise InvalidField("propensity", f"{propensity:g}", "above 0, at most 1")
        sums = self.sums
        centre = sums.clicks / sums.slots if sums.slots else 0.0
        weight = 1 / propensity
        step = (-weight if control else weight) * (clicked - centre)
        before, size = self._users.get(user, (0.0, 0.0))
        after = before + step
        self._users[user] = (after, size + 1)
        self.sums = Sums(
            slots=sums.slots + 1,
            clicks=sums.clicks + clicked,
            difference=sums.difference + step,
            square=sums.square + after**2 - before**2,
            product=sums.product + after * (size + 1) - before * size,
            size=sums.size + 2 * size + 1,
            control_weight=sums.control_weight + (weight if control else 0.0),
            control_clicks=sums.control_clicks + (weight * clicked if control else 0.0),
        )
