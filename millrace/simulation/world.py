"""Everything that sessions share: the items, the people, what they remember, and the time."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from millrace.simulation.catalogue import CATEGORIES, Catalogue, Change, Ints
from millrace.simulation.chance import Purpose, chance
from millrace.simulation.clicks import Need
from millrace.simulation.people import People
from millrace.simulation.shelves import Shelves

REMEMBERED = 30
"""Items that a shopper remembers to have opened; bounds the memory."""
COMPLEMENTS = 2
"""Categories that go with one: few, so that the next step can be learned from the last."""


@dataclass
class World:
    """A shop with its people.

    Attributes
    ----------
    now_s
        Seconds since its beginning; moved by whoever runs it.
    complements
        int64[categories, COMPLEMENTS]: what is looked for after something of a category.
    remembered
        For each shopper who opened something: item -> whether it was bought; the newest last.
    wanted
        For each shopper who came: what the last session was about when it ended.
    """

    seed: int
    catalogue: Catalogue
    people: People
    now_s: float = 0.0
    shelves: Shelves = field(init=False)
    complements: Ints = field(init=False)
    remembered: dict[int, dict[str, bool]] = field(default_factory=dict)
    wanted: dict[int, Need] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.shelves = Shelves(self.catalogue)
        rng = chance(self.seed, Purpose.CATEGORIES)
        count = len(CATEGORIES)
        self.complements = np.array(
            [[other for other in rng.permutation(count) if other != own][:COMPLEMENTS] for own in range(count)]
        )

    def advance(self, now_s: float) -> list[Change]:
        """Let the time pass; returns what changed in the catalogue."""
        self.now_s = max(self.now_s, now_s)
        return self._replaced(self.catalogue.advance(self.now_s))

    def sell_out(self, share: float) -> list[Change]:
        """That share of all items is gone at once; returns what changed in the catalogue."""
        return self._replaced(self.catalogue.sell_out(share, self.now_s))

    def _replaced(self, changes: list[Change]) -> list[Change]:
        for change in changes:
            self.shelves.replaced(change.row)
        return changes

    def remember(self, shopper: int, item_id: str, bought: bool = False) -> None:
        """The shopper opened or bought an item."""
        memory = self.remembered.setdefault(shopper, {})
        bought = memory.pop(item_id, False) or bought
        memory[item_id] = bought
        if len(memory) > REMEMBERED:
            del memory[next(iter(memory))]


def make_world(seed: int, items: int, shoppers: int, epoch_ms: int = 0) -> World:
    """A world of this size; the same for the same arguments."""
    return World(seed, Catalogue(items, seed, epoch_ms), People(shoppers, seed))
