"""What arms are compared by, in one partition: sums of each outcome, and what users and items contribute to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from millrace.experiments.comparison import Comparison, UserSums
from millrace.experiments.coverage import Shown, outcome
from millrace.experiments.cuped import Activity, scaled
from millrace.experiments.definition import (
    CLICKS,
    COVERAGE,
    FALLBACKS,
    FLOOR,
    SLOW,
    challengers,
    control,
    outcomes,
)
from millrace.experiments.floor import Floor
from millrace.experiments.periods import VALUE_SQUARE, Allocation
from millrace.experiments.record import activity_of, activity_sums, shown_sums, statistics_of, sums_of
from millrace.v1.experiment_pb2 import ArmFigures, ExperimentDefinition, Reward
from millrace.v1.tracker_pb2 import TrackedItem, TrackedSums


@dataclass(slots=True)
class Answered:
    """An answer all of whose slots are decided.

    Attributes
    ----------
    slots, clicks
        That count as seen, and those of them with a click.
    bad, slow
        Whether it failed or fell back, and whether it took longer than is borne.
    item_ids
        Of all slots; empty where coverage is not looked at.
    period
        In whose shares the arm was drawn.
    earlier
        Engagements of the user before the experiment started; None if they are not known or not asked for.
    """

    slots: int
    clicks: int
    bad: bool
    slow: bool
    item_ids: Sequence[str] = ()
    period: int = 0
    earlier: int | None = None


class Measures:
    """Sums of everything that is looked at.

    Attributes
    ----------
    known
        By arm (not the control) and outcome; a ``Floor`` for the outcome of that name.
    shown
        By arm, where coverage is looked at.
    squares
        By arm, the sum of squared money of purchases, where Thompson sampling goes by money.
    activity
        Earlier activity and clicks by slot, of all arms; None where it is not asked for.
    """

    def __init__(self, definition: ExperimentDefinition, allocation: Allocation) -> None:
        self._outcomes = outcomes(definition)
        self._control = control(definition).name
        self._challengers = [arm.name for arm in challengers(definition)]
        self._allocation = allocation
        self.known: dict[tuple[str, str], Comparison | Floor] = {
            (name, each): Floor(definition.guardrails.click_floor) if each == FLOOR else Comparison()
            for name in self._challengers
            for each in self._outcomes
        }
        arms = [arm.name for arm in definition.arms]
        self.shown = {name: Shown() for name in arms} if COVERAGE in self._outcomes else {}
        self.squares = dict.fromkeys(arms, 0.0) if definition.reward == Reward.REWARD_VALUE else {}
        self.activity = Activity() if definition.earlier_activity else None
        self._changed_items: set[str] = set()

    @property
    def items(self) -> int:
        """Items in memory, of all arms."""
        return sum(len(shown.items) for shown in self.shown.values())

    def take(self, user_id: str, arm: str, answered: Answered) -> None:
        """Take an answer of the arm."""
        is_control = arm == self._control
        expected = None
        if self.activity is not None and answered.earlier is not None:
            expected = self.activity.expected(scaled(answered.earlier))
        for name in self._challengers if is_control else (arm,):
            pair = self._allocation.pair(name, answered.period)
            for each in self._outcomes:
                known = self.known[name, each]
                if isinstance(known, Comparison):
                    came, of = self._came(name, each, answered)
                    if of:
                        centre = expected if each == CLICKS else None
                        known.add(user_id, is_control, pair, came, answered.period, of, centre)
                elif answered.slots and not is_control:
                    known.add(user_id, answered.clicks, answered.slots)
        if self.activity is not None and answered.earlier is not None:
            self.activity += Activity.of_slots(scaled(answered.earlier), answered.clicks, answered.slots)
        if self.shown:
            self.shown[arm].take(answered.item_ids)
            self._changed_items.update(answered.item_ids)

    def bought(self, arm: str, value: float) -> None:
        """Take a purchase that counts for the arm."""
        if self.squares:
            self.squares[arm] += value**2

    def forget(self, user_id: str) -> None:
        """Erase a user; what the user contributed to the sums names nobody and stays."""
        for known in self.known.values():
            known.users.pop(user_id, None)

    def statistics(self, arm: str) -> dict[str, float]:
        """All sums of the arm, by name; those of several partitions add up."""
        found: dict[str, float] = {}
        for each in self._outcomes if arm != self._control else ():
            found |= statistics_of(each, self.known[arm, each].sums)
        if arm in self.shown:
            found |= shown_sums(self.shown[arm])
        if self.activity is not None and arm == self._control:
            found |= activity_sums(self.activity)
        if self.squares:
            found[VALUE_SQUARE] = self.squares[arm]
        return found

    def of_user(self, user_id: str) -> list[TrackedSums]:
        """What the user contributes."""
        return [
            TrackedSums(
                arm=arm,
                outcome=name,
                slots=one.slots,
                difference=one.difference,
                surprise=one.outcome,
                period=one.period,
            )
            for (arm, name), known in self.known.items()
            if (one := known.users.get(user_id)) is not None
        ]

    def changed_items(self) -> Iterator[TrackedItem]:
        """Items that were shown since the last call, with how often each arm has shown them."""
        for item_id in sorted(self._changed_items):
            slots = {arm: shown.items[item_id] for arm, shown in self.shown.items() if item_id in shown.items}
            if slots:
                yield TrackedItem(item_id=item_id, slots=slots)
        self._changed_items.clear()

    def item_ids(self) -> set[str]:
        """All items that stand, and those that changed."""
        return self._changed_items.union(*(shown.items for shown in self.shown.values()))

    def restore_figures(self, figures: ArmFigures) -> None:
        """Take back an arm's sums."""
        for each in self._outcomes if figures.name != self._control else ():
            self.known[figures.name, each].sums = sums_of(figures, each)
        statistics: Mapping[str, float] = figures.statistics
        if self.activity is not None and figures.name == self._control:
            self.activity = activity_of(figures)
        if self.squares:
            self.squares[figures.name] = statistics.get(VALUE_SQUARE, 0.0)
        if figures.name in self.shown:
            shown = self.shown[figures.name]
            shown.slots, shown.pairs = (int(statistics.get(f"shown.{name}", 0.0)) for name in ("slots", "pairs"))

    def restore_user(self, user_id: str, sums: Iterable[TrackedSums]) -> None:
        """Take back what the user contributes."""
        for one in sums:
            seen = UserSums(one.period, one.slots, one.difference, one.surprise)
            self.known[one.arm, one.outcome].users[user_id] = seen

    def restore_item(self, item: TrackedItem) -> None:
        """Take back how often arms have shown the item."""
        for arm, slots in item.slots.items():
            self.shown[arm].items[item.item_id] = slots

    def _came(self, arm: str, name: str, answered: Answered) -> tuple[float, int]:
        """What came of the answer in this outcome, and of how many."""
        if name == CLICKS:
            return answered.clicks, answered.slots
        if name == COVERAGE:
            items = answered.item_ids
            return outcome(self.shown[arm], self.shown[self._control], items), len(items)
        return float({FALLBACKS: answered.bad, SLOW: answered.slow}[name]), 1
