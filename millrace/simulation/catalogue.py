"""The items of a made-up shop: what they are in truth, and how they come and go."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from millrace.events import build
from millrace.simulation.chance import Purpose, chance
from millrace.v1.item_pb2 import Item

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]

# Typical price of each category; prices spread around it by a factor of two or so.
CATEGORIES: Mapping[str, float] = {
    "shoes": 70.0,
    "jackets": 110.0,
    "shirts": 30.0,
    "trousers": 55.0,
    "bags": 60.0,
    "watches": 140.0,
    "hats": 22.0,
    "scarves": 25.0,
    "sportswear": 40.0,
    "jewellery": 90.0,
}
STYLES = ("classic", "bright", "warm", "bold")
"""The dimensions of style; the catalogue names the two that are strongest in an item."""
QUALITY_SCALE = 0.8
"""Quality is exponential with this mean, so that exp(quality) follows Zipf's law with this exponent. Requests for web
pages follow 0.64-0.83 (L. Breslau et al., "Web caching and Zipf-like distributions", INFOCOM 1999)."""
LIFETIME_S = 6 * 3600.0
"""How long an item is on sale, on average: of 1,000 items one changes every 22 s, so that a run of minutes sees it."""
_NAMES = tuple(CATEGORIES)
_PRICES = tuple(CATEGORIES.values())


@dataclass(frozen=True, slots=True)
class Change:
    """An item went and another came in its row; both as they are to be published."""

    row: int
    gone: Item
    came: Item


class Catalogue:
    """Items on sale, as rows of arrays; the same for the same seed and the same moments.

    Parameters
    ----------
    size
        How many are on sale at any time.
    epoch_ms
        Unix milliseconds of second 0.
    lifetime_s
        Mean of an item's time on sale (exponential, so that the ages of the first ones are as later).

    Attributes
    ----------
    item_ids
        Id of each row's item.
    category
        int64[size], place in ``CATEGORIES``.
    style
        float64[size, len(STYLES)], each row of length 1.
    quality
        float64[size], 0 or more.
    price
        float64[size].
    born_s
        float64[size], when it was published; before 0 for the first ones.
    """

    def __init__(self, size: int, seed: int, epoch_ms: int = 0, lifetime_s: float = LIFETIME_S) -> None:
        self._seed = seed
        self._epoch_ms = epoch_ms
        self._lifetime_s = lifetime_s
        self.item_ids = [""] * size
        self.category: Ints = np.zeros(size, np.int64)
        self.style: Floats = np.zeros((size, len(STYLES)))
        self.quality: Floats = np.zeros(size)
        self.price: Floats = np.zeros(size)
        self.born_s: Floats = np.zeros(size)
        self._rows: dict[str, int] = {}
        self._leaving: list[tuple[float, int]] = []
        self._made = 0
        for row in range(size):
            self._put(row, born_s=None)

    def __len__(self) -> int:
        return len(self.item_ids)

    def row(self, item_id: str) -> int | None:
        """The row of an item; None if it is not on sale."""
        return self._rows.get(item_id)

    def rows(self, item_ids: Sequence[str]) -> Ints:
        """Their rows; -1 for those that are not on sale."""
        find = self._rows.get
        return np.array([find(item_id, -1) for item_id in item_ids], np.int64)

    def rows_of(self, category: int) -> Ints:
        """The rows of a category."""
        return np.flatnonzero(self.category == category)

    def entry(self, row: int, available: bool = True) -> Item:
        """The catalogue entry of a row's item, to be published. What people think of it is not in there."""
        category = _NAMES[self.category[row]]
        first, second = (STYLES[place] for place in np.argsort(-self.style[row])[:2])
        item_id = self.item_ids[row]
        return build.item(
            item_id,
            title=f"{first.capitalize()} {second} {category} {item_id.rpartition('-')[2]}",
            category=category,
            tags=(first, second),
            price=float(self.price[row]),
            available=available,
            published_at=self._epoch_ms + round(float(self.born_s[row]) * 1000),
        )

    def entries(self) -> list[Item]:
        """Everything that is on sale."""
        return [self.entry(row) for row in range(len(self))]

    def advance(self, now_s: float) -> list[Change]:
        """What changed until now; call with moments that do not go back."""
        changes = []
        while self._leaving and self._leaving[0][0] <= now_s:
            at_s, row = heapq.heappop(self._leaving)
            gone = self.entry(row, available=False)
            del self._rows[self.item_ids[row]]
            self._put(row, at_s)
            changes.append(Change(row, gone, self.entry(row)))
        return changes

    def sell_out(self, share: float, now_s: float) -> list[Change]:
        """That share of all items is gone at once, and others come."""
        rng = chance(self._seed, Purpose.STOCK, self._made)
        rows = sorted(int(row) for row in rng.choice(len(self), round(share * len(self)), replace=False))
        gone = {row: self.entry(row, available=False) for row in rows}
        self._leaving = [one for one in self._leaving if one[1] not in gone]
        heapq.heapify(self._leaving)
        for row in rows:
            del self._rows[self.item_ids[row]]
            self._put(row, now_s)
        return [Change(row, gone[row], self.entry(row)) for row in rows]

    def _put(self, row: int, born_s: float | None) -> None:
        """Make the next item; ``born_s`` None: it is on sale already, since a random time."""
        number = self._made
        self._made += 1
        rng = chance(self._seed, Purpose.ITEMS, number)
        category = int(rng.integers(len(_NAMES)))
        style = rng.standard_normal(len(STYLES))
        self.category[row] = category
        self.style[row] = style / np.linalg.norm(style)
        self.quality[row] = rng.exponential(QUALITY_SCALE)
        self.price[row] = round(_PRICES[category] * rng.lognormal(0, 0.4), 2)
        left_s, age_s = rng.exponential(self._lifetime_s, 2)
        self.born_s[row] = -age_s if born_s is None else born_s
        self.item_ids[row] = f"s{self._seed}-{_NAMES[category]}-{number:06d}"
        self._rows[self.item_ids[row]] = row
        heapq.heappush(self._leaving, (float(left_s) + (born_s or 0.0), row))
