"""How much of the catalogue an arm shows, as an outcome that can be looked at all the time.

E. H. Simpson, "Measurement of diversity" (Nature 163, 1949): the probability that two slots of an arm show the same
item is small where much is shown. Its reciprocal is the number of items that would give it if all were shown alike (M.
O. Hill, "Diversity and evenness", Ecology 54, 1973). Counted at the end it is no mean of slots; here it is one. A slot
has as outcome the probability that one drawn from those before it, from either arm as likely, shows the same item::

    y = (before_arm(item) / before_arm + before_control(item) / before_control) / 2

The outcome is known but for the item before the slot's own assignment, and is the same function in both arms: where
they show alike, the weighted difference of ``millrace.experiments.comparison`` has mean 0 at every slot, and otherwise
half the difference of the two indices, whatever the arms' shares of the traffic are. More is worse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from millrace.errors import InvalidField

ITEMS_MAX = 20_000
"""Most items that are counted of an arm (in each partition); slots with others count as if each showed something new.
It is part of what is measured and stands in no setting: an audit has to count as the tracker did. 2 MB of memory."""


@dataclass(slots=True)
class Shown:
    """What one arm has shown so far.

    Attributes
    ----------
    items
        Slots by item.
    pairs
        Pairs of slots with the same item.
    """

    slots: int = 0
    items: dict[str, int] = field(default_factory=dict)
    pairs: int = 0

    @property
    def possible(self) -> float:
        """Pairs of slots."""
        return self.slots * (self.slots - 1) / 2

    @property
    def index(self) -> float:
        """Simpson's index, his unbiased estimate; 0 below two slots."""
        return self.pairs / self.possible if self.possible else 0.0

    def share(self, item_id: str) -> float:
        """Share of the slots that show the item; 0 before the first."""
        return self.items.get(item_id, 0) / self.slots if self.slots else 0.0

    def take(self, item_ids: Sequence[str], items_max: int = ITEMS_MAX) -> None:
        """Count the slots of an answer."""
        for item in item_ids:
            before = self.items.get(item, 0)
            if before or len(self.items) < items_max:
                self.items[item] = before + 1
            self.pairs += before
            self.slots += 1


def outcome(arm: Shown, control: Shown, item_ids: Sequence[str]) -> float:
    """The sum of the outcomes of an answer's slots, against what was shown before it."""
    return sum(arm.share(item) + control.share(item) for item in item_ids) / 2


def margin(control_index: float, borne: float) -> float:
    """How much larger an arm's outcome may be if its number of items may be smaller by ``borne``, relative.

    For ``Guardrail.margin``; the error of the control's own index is not in it.
    """
    if not 0 <= borne < 1:
        raise InvalidField("coverage", f"{borne:g}", "0 or more, below 1")
    return control_index * borne / (1 - borne) / 2
