"""Items in memory: what ``lua/items.lua`` keeps of them in Redis, written straight into the table that ranks.

Neighbours are a row of a matrix for each item: places in the order in which they came, weights as of a landmark. They
are written into the table when somebody is about to read them, because a popular item's neighbours change with every
click and are read far less often.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from math import exp2

import numpy as np

from millrace.features.decay import DecayedSum
from millrace.features.writer import NEIGHBOURS_SLACK
from millrace.ranking.features import Rows, approval, click_through
from millrace.ranking.item_table import NO_ROW, ItemTable, shares_of
from millrace.settings import FeatureSettings
from millrace.v1.interaction_pb2 import InteractionType

_VIEW = InteractionType.INTERACTION_TYPE_VIEW
_CLICK = InteractionType.INTERACTION_TYPE_CLICK
_LIKE = InteractionType.INTERACTION_TYPE_LIKE
_DISLIKE = InteractionType.INTERACTION_TYPE_DISLIKE

_TYPES = len(InteractionType.values())
_NOTHING = DecayedSum(0.0, 0)

# The landmark moves up when weights have grown by 2^256, as in the script.
RESCALE_AT = 256
# Rows made at once when the matrix is full: a doubling, from here on.
_ROWS_FIRST = 1_024


class MemoryItem:
    """One item's own figures, and the places of its neighbours in the matrix."""

    __slots__ = ("as_of_ms", "counts", "first_ms", "landmark_ms", "last_ms", "long", "places", "row", "short")

    def __init__(self, row: int) -> None:
        self.row = row
        self.counts = [0] * _TYPES
        self.short = self.long = _NOTHING
        self.first_ms = self.last_ms = 0
        # Row of a neighbour -> its place; the newest event in the weights, and the time as of which they stand.
        self.places: dict[int, int] = {}
        self.as_of_ms = 0
        self.landmark_ms: int | None = None


class MemoryItems:
    """All items. ``write`` and ``write_neighbours`` bring the table up to date."""

    def __init__(self, settings: FeatureSettings, table: ItemTable, labels: Mapping[str, list[int]]) -> None:
        self._table, self._labels = table, labels
        self._short_ms, self._long_ms = settings.half_life_short_ms, settings.half_life_long_ms
        self._half_life_ms = settings.neighbour_half_life_ms
        self._kept = settings.neighbours_kept
        self._most = int(settings.neighbours_kept * NEIGHBOURS_SLACK)
        self._items: dict[str, MemoryItem] = {}
        self._by_row: dict[int, MemoryItem] = {}
        # One place more than is kept: a list is trimmed after it has grown too long.
        self._weights = np.zeros((_ROWS_FIRST, self._most + 1))
        self._followers = np.full((_ROWS_FIRST, self._most + 1), NO_ROW, dtype=np.int32)
        self._changed: set[MemoryItem] = set()
        self._followed: set[int] = set()

    def count(self, item_id: str, kind: int, at_ms: int) -> None:
        """Somebody did something to an item."""
        item = self._item(item_id)
        item.first_ms = min(item.first_ms or at_ms, at_ms)
        item.last_ms = max(item.last_ms, at_ms)
        item.counts[kind] += 1
        if kind not in (_VIEW, _DISLIKE):
            item.short = item.short.plus(1.0, at_ms, self._short_ms)
            item.long = item.long.plus(1.0, at_ms, self._long_ms)
        self._changed.add(item)

    def follow(self, earlier_id: str, item_id: str, weight: float, at_ms: int) -> None:
        """An item followed an earlier one in a session."""
        item, follower = self._item(earlier_id), self._item(item_id).row
        if item.landmark_ms is None:
            item.landmark_ms = at_ms
        item.as_of_ms = max(item.as_of_ms, at_ms)
        if at_ms - item.landmark_ms > RESCALE_AT * self._half_life_ms:
            self._weights[item.row] *= exp2((item.landmark_ms - at_ms) / self._half_life_ms)
            item.landmark_ms = at_ms
        place = item.places.setdefault(follower, len(item.places))
        self._weights[item.row, place] += weight * exp2((at_ms - item.landmark_ms) / self._half_life_ms)
        self._followers[item.row, place] = follower
        if place == self._most:
            self._trim(item)
        self._followed.add(item.row)

    def publish(self, item_id: str, published_ms: int, labels: Sequence[int]) -> None:
        """The catalogue has an item, new since ``published_ms``; to be called before anything happens to it."""
        item = self._item(item_id)
        self._table.label(item.row, list(labels))
        item.first_ms = published_ms
        self._table.catalogued[item.row] = True
        self._changed.add(item)

    def write(self) -> None:
        """Write the figures that changed into the table."""
        put = self._table.put
        for item in self._changed:
            counts, short, long = item.counts, item.short, item.long
            values = (
                short.value,
                long.value,
                short.as_of_ms,
                long.as_of_ms,
                item.first_ms or math.inf,
                item.last_ms,
                click_through(counts[_CLICK], counts[_VIEW]),
                approval(counts[_LIKE], counts[_DISLIKE]),
            )
            put(item.row, values, counts[_CLICK])
        self._changed.clear()

    def write_neighbours(self, of: Iterable[int]) -> None:
        """Write the neighbours of these rows into the table, where they changed; heaviest first."""
        due = [row for row in set(of) if row in self._followed]
        if not due:
            return
        self._followed.difference_update(due)
        rows = np.array(due, dtype=np.int32)
        items = [self._by_row[row] for row in due]
        ages = [((item.landmark_ms or 0) - item.as_of_ms) / self._half_life_ms for item in items]
        weights = self._weights[rows] * np.exp2(ages)[:, None]
        order = np.argsort(-weights, axis=1, kind="stable")
        weights = np.take_along_axis(weights, order, axis=1)
        followers = np.take_along_axis(self._followers[rows], order, axis=1)
        ties = (weights[:, 1:] == weights[:, :-1]) & (followers[:, 1:] != NO_ROW)
        for tied in np.flatnonzero(ties.any(axis=1)).tolist():
            followers[tied] = self._ordered(followers[tied], weights[tied].tolist())
        table = self._table
        kept = slice(min(self._kept, table.neighbours.shape[1]))
        table.neighbours[rows] = followers[:, kept]
        table.shares[rows] = shares_of(weights[:, kept])

    def _ordered(self, followers: Rows, weights: list[float]) -> list[int]:
        """Neighbours in the order of their weights, where of equal weights the item's id decides."""
        id_of = self._table.id_of
        used = [row for row in followers.tolist() if row != NO_ROW]
        in_order = sorted((-weight, id_of(row), row) for weight, row in zip(weights, used, strict=False))
        return [row for _, _, row in in_order] + [NO_ROW] * (len(followers) - len(used))

    def _trim(self, item: MemoryItem) -> None:
        """Keep the heaviest, and give them new places in the same order."""
        weights, followers = self._weights[item.row], self._followers[item.row]
        bound = np.sort(weights)[len(weights) - self._kept]
        kept = np.flatnonzero(weights >= bound)[: self._kept]
        n = len(kept)
        weights[:n], followers[:n] = weights[kept], followers[kept]
        weights[n:], followers[n:] = 0.0, NO_ROW
        item.places = {row: place for place, row in enumerate(followers[:n].tolist())}

    def _item(self, item_id: str) -> MemoryItem:
        item = self._items.get(item_id)
        if item is None:
            row = self._table.row_for(item_id)
            item = self._items[item_id] = self._by_row[row] = MemoryItem(row)
            if item_id in self._labels:
                self._table.label(row, self._labels[item_id])
            if row >= len(self._weights):
                self._weights = np.concatenate((self._weights, np.zeros_like(self._weights)))
                self._followers = np.concatenate((self._followers, np.zeros_like(self._followers)))
        return item
