"""Whether an arm's own click-through is surely below a bound, whatever its control does.

A comparison does not see what is bad for both arms. This sequence is of one sample: the sum of ``y - bound`` over an
arm's slots has a mean of 0 or more as long as the rate is not below the bound, so that a one-sided boundary
(``millrace.experiments.sequence``) is crossed with probability alpha at most. The variance is by user, as in
``millrace.experiments.comparison``, and never below that of independent slots at the bound: while an arm has no clicks
at all, its estimated variance is 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from millrace.errors import InvalidField
from millrace.experiments.comparison import Sums, UserSums


@dataclass(slots=True)
class Floor:
    """One arm against a bound of its rate.

    Attributes
    ----------
    bound
        Clicks of a slot, in (0, 1).
    sums
        For a ``Guardrail`` with ``worse`` -1 and margin 0: its effect is the rate less the bound.
    users
        What each user contributes; ``difference`` is the sum of ``y - bound``.
    """

    bound: float
    sums: Sums = field(default_factory=Sums)
    users: dict[str, UserSums] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < self.bound < 1:
            raise InvalidField("click_floor", f"{self.bound:g}", "above 0, below 1")

    def add(self, user: str, clicked: float, slots: int = 1) -> None:
        """Take the slots of an answer, and how many of them were clicked."""
        sums, seen = self.sums, self.users.get(user)
        if seen is None:
            seen = self.users[user] = UserSums()
        step = clicked - slots * self.bound
        self.sums = Sums(
            slots=sums.slots + slots,
            clicks=sums.clicks + clicked,
            difference=sums.difference + step,
            square=sums.square + step * (2 * seen.difference + step),
            product=sums.product + step * (seen.slots + slots) + seen.difference * slots,
            size=sums.size + slots * (2 * seen.slots + slots),
            assigned=sums.assigned + slots * self.bound * (1 - self.bound),
        )
        seen.slots += slots
        seen.difference += step
