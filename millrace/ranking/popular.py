"""Lists that do not depend on the user: what is popular now, popular these days, and new in the catalogue.

Popularity decays equally for all items, so that its order does not depend on the time (``ItemTable.short_order``).
A list therefore changes only through items that changed: refreshing it looks at the list and at those, not at all
items.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from millrace.ranking.features import Floats, ItemColumn, Rows
from millrace.ranking.item_table import ItemTable

# Trending fills an answer up whatever is left out of it: 200 items asked for, 1,000 excluded, and some hundred that
# the user knows or dislikes.
TRENDING_KEPT = 1_500
# Enough that a few draws of each request spread exploration.
FRESH_KEPT = 500
# An item that was clicked this often is known: its features say more than an exploration would.
FRESH_CLICKS_MAX = 20


class PopularItems:
    """The lists of one table. ``refresh`` follows what changed; the arrays are replaced, never changed."""

    def __init__(self, table: ItemTable) -> None:
        self._table = table
        self._short = _TopList(TRENDING_KEPT, lambda rows: self._by_popularity(rows, table.short_order))
        self._long = _TopList(TRENDING_KEPT, lambda rows: self._by_popularity(rows, table.long_order))
        self._fresh = _TopList(FRESH_KEPT, self._newest)
        # Which rows were touched, while lists are refreshed.
        self._marks = np.zeros(table.rows_max, dtype=np.bool_)

    @property
    def short(self) -> Rows:
        """int32[<= TRENDING_KEPT], servable rows by short popularity, the most popular first."""
        return self._short.rows

    @property
    def long(self) -> Rows:
        """int32[<= TRENDING_KEPT], servable rows by long popularity, the most popular first."""
        return self._long.rows

    @property
    def fresh(self) -> Rows:
        """int32[<= FRESH_KEPT], servable rows of hardly clicked catalogue items, the newest first."""
        return self._fresh.rows

    def refresh(self) -> None:
        """Bring the lists up to date with the rows that the table says were touched."""
        table = self._table
        if not table.touched:
            return
        touched = np.fromiter(table.touched, dtype=np.int32, count=len(table.touched))
        table.touched.clear()
        self._marks[touched] = True
        for top in (self._short, self._long, self._fresh):
            top.refresh(touched, self._marks, table.rows_used)
        self._marks[touched] = False

    def _by_popularity(self, rows: Rows, order: Floats) -> tuple[Rows, Floats]:
        rows = rows[self._table.servable[rows] & (order[rows] > -np.inf)]
        return rows, order[rows]

    def _newest(self, rows: Rows) -> tuple[Rows, Floats]:
        table = self._table
        rows = rows[table.servable[rows] & table.catalogued[rows] & (table.clicks[rows] < FRESH_CLICKS_MAX)]
        born_ms = table.items[rows, ItemColumn.BORN_MS]
        # Without a date of publication an item is as new as the first that we heard of it.
        return rows, np.where(np.isfinite(born_ms), born_ms, table.updated_ms[rows])


class _TopList:
    """The rows with the largest keys, kept up to date from the rows that changed.

    All eligible rows whose key is at or above a floor are in the list. The floor rises as the list overflows; when
    too little is left above it, one look at all rows finds it anew.

    Parameters
    ----------
    most
        Longest list.
    rank
        Of some rows, the eligible ones and their keys.
    """

    def __init__(self, most: int, rank: Callable[[Rows], tuple[Rows, Floats]]) -> None:
        self._most = most
        self._rank = rank
        self._floor = -np.inf
        self.rows: Rows = np.empty(0, dtype=np.int32)
        self.keys: Floats = np.empty(0)

    def refresh(self, touched: Rows, marks: npt.NDArray[np.bool_], rows_used: int) -> None:
        """Take in the touched rows, each once, which are also those that are marked."""
        unchanged = ~marks[self.rows]
        rows, keys = self._rank(touched)
        above = keys >= self._floor
        self._merge(self.rows[unchanged], self.keys[unchanged], rows[above], keys[above])
        if self._floor > -np.inf and len(self.rows) < self._most // 2:
            rows, keys = self._rank(np.arange(rows_used, dtype=np.int32))
            self._floor = -np.inf
            self._merge(rows[:0], keys[:0], rows, keys)
        if len(self.rows) > self._most:
            self.rows, self.keys = self.rows[: self._most], self.keys[: self._most]
            self._floor = float(self.keys[-1])

    def _merge(self, rows: Rows, keys: Floats, new_rows: Rows, new_keys: Floats) -> None:
        """Put new rows among those that are in order; of equal keys the smaller row comes first."""
        keys, rows = np.concatenate((keys, new_keys)), np.concatenate((rows, new_rows))
        # Timsort: next to nothing for a long run and a few that follow it.
        order = np.argsort(-keys, kind="stable")
        rows, keys = rows[order], keys[order]
        if (keys[1:] == keys[:-1]).any():
            order = np.lexsort((rows, -keys))
            rows, keys = rows[order], keys[order]
        self.rows, self.keys = rows, keys
