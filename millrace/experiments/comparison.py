"""What is known of an arm against the control: a handful of sums, from which every figure and decision follows.

Each slot contributes the inverse-propensity weighted difference (D. G. Horvitz and D. J. Thompson, 1952)::

    d = (1[arm] / p_arm - 1[control] / p_control) (y - m)

whose mean, given everything before the assignment, is the difference of the two rates, whatever the rates and
propensities do over time. The centre ``m`` is the rate of both arms before this slot: being known before, it moves no
mean, and it takes the number of a user's slots out of the variance as in J. Robins et al.'s augmented estimator
(JASA 1994) and R. Budylin et al.'s linearisation of ratios (WSDM 2018). A better guess does
more of it (``millrace.experiments.cuped``).

Slots of a user are alike, so users are the units: the variance is that of sums by user (K.-Y. Liang and S. L. Zeger,
"Longitudinal data analysis using generalized linear models", 1986; A. Deng et al., KDD 2018). Where an arm's share is
small this estimate lags: a share of .1 has one click in ten weigh a hundred times as much, and until it comes, the sum
drifts without the variance. So the variance is never taken to be below the one that the assignment alone gives, the
outcomes being what they are and the arms alike (as in D. W. Ham et al., "Design-based confidence sequences", 2022),
which every outcome of either arm tells. The two agree in the long run where the arms are alike.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from millrace.errors import InvalidField
from millrace.experiments.assignment import TOLERANCE
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
    assigned
        Variance over the assignment: sum over users and periods of ``x^2 / (p_arm p_control)``, where ``x`` is the
        user's sum of ``y - m`` in the period.
    control_weight, control_clicks
        Sums of ``1 / p`` over the control's slots, and over those of them that were clicked.
    """

    slots: float = 0.0
    clicks: float = 0.0
    difference: float = 0.0
    square: float = 0.0
    product: float = 0.0
    size: float = 0.0
    assigned: float = 0.0
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
        """Estimated variance of ``difference`` around its mean: by user, or over the assignment if that is more."""
        effect = self.effect
        return max(self.square - 2 * effect * self.product + effect**2 * self.size, self.assigned)

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
    users
        What each user contributes: with ``sums``, all that is needed to go on.
    """

    sums: Sums = field(default_factory=Sums)
    users: dict[str, UserSums] = field(default_factory=dict)

    def add(
        self,
        user: str,
        control: bool,
        shares: tuple[float, float],
        clicked: float,
        period: int = 0,
        slots: int = 1,
        expected: float | None = None,
    ) -> None:
        """Take a slot of one of the two arms, or the slots of one answer together.

        Parameters
        ----------
        control
            Whether the user saw the control.
        shares
            Probabilities with which this user got the arm, and the control, in this period, given that it is one of
            the two: where there are more arms, they are divided by their sum.
        clicked
            The outcome, 0 or 1 for a click; of several slots, the sum.
        period
            As in ``assign``: within one, a user has one arm.
        slots
            How many; all of them are centred alike.
        expected
            The centre, if something better is known than the rate before the first; it must have been known before.
        """
        if not (min(shares) > 0 and sum(shares) <= 1 + TOLERANCE):
            raise InvalidField("shares", str(shares), "above 0 each, at most 1 together")
        sums, seen = self.sums, self.users.get(user)
        if seen is None:
            seen = self.users[user] = UserSums(period)
        earlier = seen.outcome if seen.period == period else 0.0
        if expected is None:
            expected = sums.clicks / sums.slots if sums.slots else 0.0
        surprise = clicked - slots * expected
        weight = 1 / shares[control]
        step = -weight * surprise if control else weight * surprise
        self.sums = Sums(
            slots=sums.slots + slots,
            clicks=sums.clicks + clicked,
            difference=sums.difference + step,
            square=sums.square + step * (2 * seen.difference + step),
            product=sums.product + step * (seen.slots + slots) + seen.difference * slots,
            size=sums.size + slots * (2 * seen.slots + slots),
            assigned=sums.assigned + surprise * (2 * earlier + surprise) / (shares[0] * shares[1]),
            control_weight=sums.control_weight + (weight * slots if control else 0.0),
            control_clicks=sums.control_clicks + (weight * clicked if control else 0.0),
        )
        seen.slots += slots
        seen.difference += step
        # An answer of a period before may be known late; it ends nothing.
        if period >= seen.period:
            seen.period, seen.outcome = period, earlier + surprise


@dataclass(slots=True)
class UserSums:
    """What a user contributes to a comparison.

    Attributes
    ----------
    difference
        Sum of ``d``.
    outcome
        Sum of ``y - m`` in the newest period.
    """

    period: int = 0
    slots: int = 0
    difference: float = 0.0
    outcome: float = 0.0
