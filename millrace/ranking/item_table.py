"""Items as numpy arrays: what candidates and features are computed from, for all items at once.

An item's id is interned to a row when the item, or a neighbour list or session that names it, is first met. A row is
given to another item only when its item is gone and no list or session points to it any more, so that none ever
points to a stranger.

One thread changes and reads a table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from millrace.errors import MillraceError
from millrace.ranking.context_counts import item_key
from millrace.ranking.features import Floats, HalfLives, ItemColumn, Rows, item_row
from millrace.ranking.labels import ItemLabels, labels_of
from millrace.v1.item_pb2 import ItemState, Neighbours

NO_ROW = 0
"""Fills the places of a neighbour list that are not used: row 0 is nobody's and never servable."""

# One follow-up's worth of doubt: an item that was followed once says little about what follows it.
SHARE_SMOOTHING = 1.0

# When the table is full, this share of it makes room at once: finding the oldest takes milliseconds at a million.
EVICTED_SHARE = 0.01


class ItemTable:
    """The newest state of each item.

    Parameters
    ----------
    items_max
        Most items held; beyond, those that were not updated for longest are dropped.
    neighbours_kept
        Most neighbours of an item.
    half_lives
        Of the popularities.

    Attributes
    ----------
    rows
        Item id -> row, also of items that are only known as neighbours.
    items
        float64[rows_max, len(ItemColumn)], what features need.
    servable
        bool[rows_max], whether the item may be recommended: its state is known and it is available.
    catalogued
        bool[rows_max], whether it has a catalogue entry.
    clicks
        int64[rows_max], how often it was clicked.
    labels
        What the items are labelled with.
    keys
        uint32[rows_max], by what items are counted under circumstances (``item_key``).
    updated_ms
        int64[rows_max], when the broker got the newest state, Unix ms.
    neighbours
        int32[rows_max, neighbours_kept], rows of the neighbours; ``NO_ROW`` where there is none.
    shares
        float32[rows_max, neighbours_kept], P(neighbour follows the item); 0 where there is none.
    short_order, long_order
        float64[rows_max], log2 of the decayed popularity at time 0: it orders items by popularity at any time, and
        popularity at t is 2^(order - t / half-life). Minus infinity where there is none.
    touched
        Rows that changed since somebody last emptied the set.
    evicted
        Items dropped because the table was full.
    neighbours_left_out
        Neighbours not taken because as many unknown ones were held as may be.
    """

    def __init__(self, items_max: int, neighbours_kept: int, half_lives: HalfLives) -> None:
        self.items_max = items_max
        self.half_lives = half_lives
        # As many rows again for items that are only known as somebody's neighbour. The system commits memory when
        # a page is first written, so that a large table costs nothing until it is filled, and never has to move.
        self.rows_max = 1 + 2 * items_max
        self.rows: dict[str, int] = {}
        self.items = np.zeros((self.rows_max, len(ItemColumn)))
        self.servable = np.zeros(self.rows_max, dtype=np.bool_)
        self.catalogued = np.zeros(self.rows_max, dtype=np.bool_)
        self.clicks = np.zeros(self.rows_max, dtype=np.int64)
        self.labels = ItemLabels(self.rows_max, half_lives.long_ms)
        self.keys = np.zeros(self.rows_max, dtype=np.uint32)
        self.updated_ms = np.zeros(self.rows_max, dtype=np.int64)
        self.neighbours = np.zeros((self.rows_max, neighbours_kept), dtype=np.int32)
        self.shares = np.zeros((self.rows_max, neighbours_kept), dtype=np.float32)
        self.short_order = np.zeros(self.rows_max, dtype=np.float64)
        self.long_order = np.zeros(self.rows_max, dtype=np.float64)
        self.touched: set[int] = set()
        self._live = np.zeros(self.rows_max, dtype=np.bool_)
        self._versions = np.zeros(self.rows_max, dtype=np.uint64)
        # How many neighbour lists and sessions point to each row.
        self._references = np.zeros(self.rows_max, dtype=np.int32)
        self._ids: list[str] = [""]
        self._free: list[int] = []
        self._live_count = 0
        self.evicted = 0
        self.neighbours_left_out = 0

    def __len__(self) -> int:
        """Number of items whose state is known."""
        return self._live_count

    @property
    def rows_used(self) -> int:
        """Rows from 0 up to here have been given out at some time."""
        return len(self._ids)

    def id_of(self, row: int) -> str:
        """The item in a row."""
        return self._ids[row]

    def apply(self, state: ItemState, appended_ms: int) -> bool:
        """Take a state; False (and nothing changes) if the table has a newer one.

        ``appended_ms`` is when the broker got it, Unix ms.
        """
        row = self.rows.get(state.item_id)
        if row is not None and self._live[row]:
            if state.version < self._versions[row]:
                return False
        elif self._live_count >= self.items_max:
            self.evict()
            row = self.rows.get(state.item_id)
        if row is None:
            row = self._row_for_item(state.item_id)
        if not self._live[row]:
            self._live[row] = True
            self._live_count += 1
        self._versions[row] = state.version
        self.updated_ms[row] = appended_ms
        catalogue = state.catalogue
        self.catalogued[row] = state.HasField("catalogue")
        self.servable[row] = not catalogue.HasField("available") or catalogue.available
        self.label(row, labels_of(catalogue))
        self.put(row, item_row(state), state.counts.clicks)
        self._set_neighbours(row, state.neighbours)
        return True

    def put(self, row: int, values: Sequence[float], clicks: int) -> None:
        """Write what features need of the item in a row (``ItemColumn``), and where it stands by popularity."""
        short, long, short_as_of_ms, long_as_of_ms = values[:4]
        self.labels.count(row, -self._popularity(row), self.items[row, ItemColumn.LONG_AS_OF_MS])
        self.labels.count(row, long, long_as_of_ms)
        self.items[row] = values
        self.clicks[row] = clicks
        self.short_order[row] = _order(short, short_as_of_ms, self.half_lives.short_ms)
        self.long_order[row] = _order(long, long_as_of_ms, self.half_lives.long_ms)
        self.touched.add(row)

    def label(self, row: int, labels: list[int]) -> None:
        """The item in a row has these labels (``millrace.ranking.labels``), and no others."""
        self.labels.label(row, labels, self._popularity(row), self.items[row, ItemColumn.LONG_AS_OF_MS])

    def _popularity(self, row: int) -> float:
        return float(self.items[row, ItemColumn.POPULARITY_LONG])

    def row_for(self, item_id: str) -> int:
        """The row of an item, made servable if it is new: for who keeps the items' state in this process.

        Such a table is written with ``put``, ``neighbours`` and ``shares``; nothing is dropped from it. Raises
        MillraceError when it is full.
        """
        row = self.rows.get(item_id)
        if row is None:
            if self._live_count >= self.items_max:
                raise MillraceError(f"more than {self.items_max} items: a table of this size cannot hold them all")
            row = self._row_for_item(item_id)
            self.servable[row] = self._live[row] = True
            self._live_count += 1
        return row

    def refer(self, item_id: str) -> int:
        """The row of an item that somebody points to from now on, until ``let_go``; NO_ROW if it got none."""
        row = self.rows.get(item_id)
        if row is None:
            row = self._row_for_neighbour(item_id)
            if row == NO_ROW:
                return NO_ROW
        self._references[row] += 1
        return row

    def let_go(self, row: int) -> None:
        """End what ``refer`` began."""
        self._references[row] -= 1
        if not self._references[row] and not self._live[row]:
            self._release(row)

    def drop(self, item_id: str) -> None:
        """Forget an item (a tombstone); harmless if it is not known."""
        row = self.rows.get(item_id)
        if row is not None and self._live[row]:
            self._drop_row(row)

    def evict(self) -> None:
        """Drop the hundredth of the items that were not updated for longest, at least one."""
        live = np.flatnonzero(self._live[: self.rows_used])
        if not len(live):
            return
        number = max(1, int(len(live) * EVICTED_SHARE))
        oldest = live[np.argpartition(self.updated_ms[live], number - 1)[:number]]
        for row in oldest.tolist():
            self._drop_row(row)
        self.evicted += number

    def expire(self, before_ms: int, most: int) -> int:
        """Drop up to ``most`` items without catalogue entry whose state came before a time; returns how many."""
        used = slice(self.rows_used)
        silent = self._live[used] & ~self.catalogued[used] & (self.updated_ms[used] < before_ms)
        rows = np.flatnonzero(silent)[:most].tolist()
        for row in rows:
            self._drop_row(row)
        return len(rows)

    def _drop_row(self, row: int) -> None:
        self._live[row] = self.servable[row] = self.catalogued[row] = False
        self._live_count -= 1
        self._point_to(row, np.empty(0, dtype=np.int32))
        self.label(row, [])
        self.items[row] = 0.0
        self.touched.add(row)
        if not self._references[row]:
            self._release(row)

    def _set_neighbours(self, row: int, neighbours: Neighbours) -> None:
        shares = shares_of(np.array(neighbours.weights, dtype=np.float64))[: self.neighbours.shape[1]]
        known = self.rows
        item_ids = neighbours.item_ids[: len(shares)]
        rows = [known.get(item_id, NO_ROW) for item_id in item_ids]
        if NO_ROW in rows:
            rows = [
                self._row_for_neighbour(item_id) if row == NO_ROW else row
                for row, item_id in zip(rows, item_ids, strict=True)
            ]
        found = np.array(rows, dtype=np.int32)
        if NO_ROW in rows:
            shares, found = shares[found != NO_ROW], found[found != NO_ROW]
        n = len(found)
        self._point_to(row, found)
        self.shares[row, :n] = shares
        self.shares[row, n:] = 0

    def _point_to(self, row: int, neighbours: Rows) -> None:
        """Replace the neighbour list of a row and count the references."""
        n = len(neighbours)
        own = self.neighbours[row]
        before = own[own != NO_ROW]
        if len(before) == n and (before == neighbours).all():
            return
        self._references[neighbours] += 1
        self._references[before] -= 1
        own[:n] = neighbours
        own[n:] = NO_ROW
        unused = before[(self._references[before] == 0) & ~self._live[before]]
        for gone in unused.tolist():
            if gone != row:
                self._release(gone)

    def _row_for_item(self, item_id: str) -> int:
        while (row := self._new_row(item_id)) == NO_ROW:
            # Every row is some item or somebody's neighbour: items go until lists let go of rows.
            self.evict()
        return row

    def _row_for_neighbour(self, item_id: str) -> int:
        """A row for an item that is only a neighbour yet; NO_ROW if there are as many of these as may be."""
        if len(self.rows) - self._live_count >= self.items_max:
            self.neighbours_left_out += 1
            return NO_ROW
        row = self.rows.get(item_id)
        return self._new_row(item_id) if row is None else row

    def _new_row(self, item_id: str) -> int:
        if self._free:
            row = self._free.pop()
            self._ids[row] = item_id
        elif len(self._ids) < self.rows_max:
            row = len(self._ids)
            self._ids.append(item_id)
        else:
            return NO_ROW
        self.rows[item_id] = row
        self.keys[row] = item_key(item_id)
        self.short_order[row] = self.long_order[row] = -np.inf
        return row

    def _release(self, row: int) -> None:
        del self.rows[self._ids[row]]
        self._ids[row] = ""
        self._free.append(row)


def shares_of(weights: Floats) -> Floats:
    """P(neighbour follows the item) of co-visitation weights, float64[..., n]; smoothed by ``SHARE_SMOOTHING``."""
    shares: Floats = weights / (weights.sum(axis=-1, keepdims=True) + SHARE_SMOOTHING)
    return shares


def _order(value: float, as_of_ms: float, half_life_ms: int) -> float:
    # A million half-lives (19 years of 10 min) leave 30 of a double's 52 bits behind the point: ample for order.
    return math.log2(value) + as_of_ms / half_life_ms if value > 0 else -math.inf
