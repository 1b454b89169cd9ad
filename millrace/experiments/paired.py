"""Two predictions of the same slots: whose loss is lower, told by a confidence sequence that anyone may look at. Pure.

Nobody is assigned to anything, so there is no weight: each slot gives the difference of the two losses, and slots of a
user are alike, as in ``millrace.experiments.comparison``, whose sums these are.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from millrace.experiments.comparison import Sums
from millrace.experiments.sequence import Boundary

USERS_MIN, CLICKS_MIN = 200, 100
"""Before so much is seen nothing is said: the sequence is asymptotic, and a difference of log losses has a long tail
where clicks are few. Users as in experiments."""
BOUNDARY = Boundary(alpha=0.05, best_at=40.0)
"""Narrowest after 20,000 slots with a variance of .002 nats^2 each: what probabilities of 5 % give that differ by a
fifth. A factor of four off costs less than a tenth of the width."""
USERS_MAX = 500_000
"""Users in memory, 200 bytes each; further ones do not count."""


@dataclass(slots=True)
class Paired:
    """What is known, updated in constant time.

    Attributes
    ----------
    sums
        Of what the second prediction saves, nats.
    """

    sums: Sums = field(default_factory=Sums)
    # User -> slots, and what is saved in them.
    _users: dict[str, tuple[int, float]] = field(default_factory=dict)

    @property
    def users(self) -> int:
        """Users who count."""
        return len(self._users)

    @property
    def is_enough(self) -> bool:
        """Whether the interval may be trusted."""
        return self.users >= USERS_MIN and self.sums.clicks >= CLICKS_MIN

    @property
    def interval(self) -> tuple[float, float]:
        """Of what is saved in a slot, nats: in 95 of 100 comparisons the truth never leaves it."""
        return self.sums.interval(BOUNDARY)

    def add(self, user: str, saved: float, slots: int, clicks: int) -> None:
        """Take some slots of a user: the loss of the first prediction less that of the second, summed."""
        before, earlier = self._users.get(user, (0, 0.0))
        if not before and self.users >= USERS_MAX:
            return
        self.sums += Sums(
            slots=slots,
            clicks=clicks,
            difference=saved,
            square=saved * (2 * earlier + saved),
            product=saved * (before + slots) + earlier * slots,
            size=slots * (2 * before + slots),
        )
        self._users[user] = before + slots, earlier + saved
