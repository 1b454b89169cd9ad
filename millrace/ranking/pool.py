"""Where the candidates of a request gather: generators propose items, and add to what is known of them."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from millrace.compiled import compiled, inlined
from millrace.ranking.features import Floats, Ints, Rows, Signal

NO_PLACE = -1
"""Of an item that is no candidate."""
# Candidates that there is room for at first; most requests have a few hundred.
_ROOM = 4_096

PoolArrays: TypeAlias = tuple[Rows, Ints, Rows, Ints, Floats]


class CandidatePool:
    """The candidates of one request at a time. One thread fills and reads it.

    Parameters
    ----------
    rows_max
        Of the table of items.
    """

    def __init__(self, rows_max: int) -> None:
        # Of each item its place, and how many places are taken.
        self._places = np.full(rows_max, NO_PLACE, dtype=np.int32)
        self._count = np.zeros(1, dtype=np.int64)
        self._make_room(_ROOM)

    def __len__(self) -> int:
        """How many items were proposed."""
        return int(self._count[0])

    @property
    def arrays(self) -> PoolArrays:
        """What compiled functions fill: the last arguments of ``join``."""
        return self._places, self._count, self._rows, self._sources, self._signals

    @property
    def rows(self) -> Rows:
        """int32[n], the items."""
        return self._rows[: len(self)]

    @property
    def sources(self) -> Ints:
        """int64[n], bits of the generators that proposed them (``millrace.ranking.sources``)."""
        return self._sources[: len(self)]

    @property
    def signals(self) -> Floats:
        """float64[n, LIFTS], the first columns of ``millrace.ranking.features.Signal``."""
        return self._signals[: len(self)]

    def begin(self, most: int) -> None:
        """Empty the pool, and make room for so many proposals."""
        _clear(self._places, self._count, self._rows)
        most = min(most, len(self._places))
        if most > len(self._rows):
            self._make_room(min(2 * most, len(self._places)))

    def _make_room(self, most: int) -> None:
        self._rows = np.empty(most, dtype=np.int32)
        self._sources = np.empty(most, dtype=np.int64)
        self._signals = np.empty((most, Signal.LIFTS))


@compiled
def _clear(places: Rows, count: Ints, rows: Rows) -> None:
    for place in range(count[0]):
        places[rows[place]] = NO_PLACE
    count[0] = 0


@inlined
def join(row: int, places: Rows, count: Ints, rows: Rows, sources: Ints, signals: Floats) -> int:
    """Make an item that has no place (``places[row]``) a candidate; its place."""
    place = int(count[0])
    count[0] += 1
    places[row], rows[place], sources[place] = place, row, 0
    signals[place] = 0.0
    return place
