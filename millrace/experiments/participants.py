"""Users of an experiment in one partition: in which arms they count, and which purchases follow from an answer."""

from __future__ import annotations

from dataclasses import dataclass, field

from millrace.v1.tracker_pb2 import ExposedTime, TrackedUser, WaitingPurchase

# Of one user: purchases that wait, ids that are remembered, stretches of time. Far more than people make.
_KEPT_OF_A_USER = 32
# Periods in which a user counts, the newest: answers are known in the order of time, but for a few at the border.
_PERIODS_OF_A_USER = 4


@dataclass(slots=True)
class Participant:
    """What is known of a user beside the sums.

    Attributes
    ----------
    arm
        Under THOMPSON, that of the newest answer known; empty before the first one.
    arms
        In which the user counts.
    periods
        The last ones in which the user counts, under THOMPSON.
    exposed
        When purchases count, and for which arm: first and last (Unix ms), arm and period of the answers, in order;
        those of a period are apart.
    purchases
        Those that wait for an answer that they may follow from.
    counted_ids
        Of the last purchases that counted.
    earlier
        Engagements before the experiment started; None while they are not known, or not asked for.
    """

    arm: str = ""
    arms: list[str] = field(default_factory=list)
    periods: list[int] = field(default_factory=list)
    exposed: list[tuple[int, int, str, int]] = field(default_factory=list)
    purchases: list[WaitingPurchase] = field(default_factory=list)
    counted_ids: list[str] = field(default_factory=list)
    earlier: int | None = None

    def counts_in(self, arm: str) -> bool:
        """Count the user in the arm; whether that is new."""
        if arm in self.arms:
            return False
        self.arms.append(arm)
        return True

    def comes_in(self, period: int) -> bool:
        """Count the user in the period; whether that is new. Periods before the last few are taken to be known."""
        full = len(self.periods) == _PERIODS_OF_A_USER
        if period in self.periods or (full and period < self.periods[0]):
            return False
        self.periods = sorted([*self.periods, period])[-_PERIODS_OF_A_USER:]
        return True

    def expose(self, arm: str, period: int, first: int, last: int) -> None:
        """Purchases count for the arm in this time (Unix ms); stretches of a period that touch become one."""
        apart = []
        for stretch in self.exposed:
            begins, ends, _, number = stretch
            if number != period or ends < first or begins > last:
                apart.append(stretch)
            else:
                first, last = min(first, begins), max(last, ends)
        self.exposed = sorted([*apart, (first, last, arm, period)])[-_KEPT_OF_A_USER:]

    def buy(self, purchase: WaitingPurchase) -> bool:
        """Take a purchase; False if it was taken before."""
        event_id = purchase.event_id
        if event_id in self.counted_ids or any(event_id == one.event_id for one in self.purchases):
            return False
        self.purchases.append(purchase)
        del self.purchases[:-_KEPT_OF_A_USER]
        return True

    def attribute(self) -> list[tuple[str, float]]:
        """Purchases that follow from an answer now: arm and money. They count for the stretch that began last."""
        left, found = [], []
        for one in self.purchases:
            arm = next((arm for first, last, arm, _ in reversed(self.exposed) if first <= one.at_ms <= last), "")
            if arm:
                self.counted_ids.append(one.event_id)
                found.append((arm, one.value))
            else:
                left.append(one)
        self.purchases = left
        del self.counted_ids[:-_KEPT_OF_A_USER]
        return found

    def put(self, user: TrackedUser) -> None:
        """Write it into a part of the state."""
        user.arm, user.counted = self.arm, bool(self.arms)
        if self.arms not in ([], [self.arm]):
            user.counted_arms.extend(self.arms)
        user.counted_periods.extend(self.periods)
        user.exposed.extend(
            ExposedTime(from_ms=first, to_ms=last, arm="" if arm == self.arm else arm, period=period)
            for first, last, arm, period in self.exposed
        )
        user.waiting.extend(self.purchases)
        user.counted_event_ids.extend(self.counted_ids)
        if self.earlier is not None:
            user.earlier_activity = self.earlier

    @classmethod
    def of(cls, user: TrackedUser) -> Participant:
        """Take it back."""
        return cls(
            arm=user.arm,
            arms=list(user.counted_arms) or ([user.arm] if user.counted else []),
            periods=list(user.counted_periods),
            exposed=[(one.from_ms, one.to_ms, one.arm or user.arm, one.period) for one in user.exposed],
            purchases=list(user.waiting),
            counted_ids=list(user.counted_event_ids),
            earlier=user.earlier_activity if user.HasField("earlier_activity") else None,
        )
