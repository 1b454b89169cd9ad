"""Recent sessions of everybody, as arrays, so that sessions like the one at hand are found within a request.

A session is a run of places in one array of item rows. The places of an item are linked, the newest first: its
postings. A new event is one more place and one more link: what it says is known to the next request. Everything is
bounded: runs, and the items of a run.

Session-kNN: Jannach and Ludewig (2017), When recurrent neural networks meet the neighborhood for session-based
recommendation; with an inverted index: Kersbergen et al. (2022), Serenade. Theirs is built offline, this one as events
come.
"""

from __future__ import annotations

from zlib import crc32

import numpy as np

from millrace.compiled import compiled
from millrace.ranking.features import Rows
from millrace.ranking.item_table import NO_ROW, ItemTable

RUN = 40
"""Places of a run. A longer session goes on in a new run, which repeats the last ``REACH`` items."""
REACH = 10
"""How many places away from an item another one still counts as its neighbour."""
NOWHERE = -1
"""Where links end."""


class SessionIndex:
    """Sessions and postings.

    Parameters
    ----------
    table
        Gives each item its row, and keeps the rows that stand in sessions.
    runs_max
        Most runs; beyond, the one that began first makes room.
    gap_ms
        A session without id ends after such a gap.

    Attributes
    ----------
    gap_ms
        As given.
    rows
        int32[runs_max * RUN], the item rows of all runs; ``NO_ROW`` where no item stands. Place p is of the run in slot
        p // RUN.
    lengths
        int32[runs_max], places of each run that are taken.
    begun
        int64[runs_max], the number of each run: the later it began, the higher.
    owners
        int64[runs_max], whose each run is (``owner``).
    newest
        int32[table.rows_max], the place where an item came to stand last; ``NOWHERE`` if it stands in no run.
    earlier
        int32[runs_max * RUN], where it stood before that; of a run only its newest place counts.
    places
        int32[table.rows_max], how often an item stands in sessions.
    alike
        float64[runs_max], zeros: room for who compares runs.
    """

    def __init__(self, table: ItemTable, runs_max: int, gap_ms: int) -> None:
        self._table = table
        self._runs_max = runs_max
        self.gap_ms = gap_ms
        self.rows = np.full(runs_max * RUN, NO_ROW, dtype=np.int32)
        self.lengths = np.zeros(runs_max, dtype=np.int32)
        self.begun = np.zeros(runs_max, dtype=np.int64)
        self.owners = np.zeros(runs_max, dtype=np.int64)
        self.newest = np.full(table.rows_max, NOWHERE, dtype=np.int32)
        self.earlier = np.full(runs_max * RUN, NOWHERE, dtype=np.int32)
        self._later = np.full(runs_max * RUN, NOWHERE, dtype=np.int32)
        self.places = np.zeros(table.rows_max, dtype=np.int32)
        self.alike = np.zeros(runs_max)
        # A run's number only grows; it lies in the slot number % runs_max.
        self._runs_begun = 0
        self._open: dict[str, int] = {}
        self._keys = [""] * runs_max
        self._last_ms = [0] * runs_max

    def __len__(self) -> int:
        """Number of runs."""
        return min(self._runs_begun, self._runs_max)

    def add(self, user_id: str, session: int, item_id: str, at_ms: int) -> None:
        """The user turned to an item, in a session (0: none was named), at an event time, Unix ms."""
        row = self._table.refer(item_id)
        if row == NO_ROW:
            return
        key = f"{session} {user_id}"
        run = self._open.get(key)
        if run is None or (not session and abs(at_ms - self._last_ms[run % self._runs_max]) >= self.gap_ms):
            run = self._begin(key, user_id)
        elif self.lengths[run % self._runs_max] == RUN:
            run = self._go_on(key, user_id, run)
        slot = run % self._runs_max
        self._last_ms[slot] = at_ms
        _put(slot, row, self.rows, self.lengths, self.places, self.newest, self.earlier, self._later)

    def forget(self, user_id: str) -> None:
        """Take a user's items out of all sessions."""
        for slot in np.flatnonzero(self.owners[: len(self)] == owner(user_id)).tolist():
            self._empty(slot)

    def _begin(self, key: str, user_id: str) -> int:
        run = self._runs_begun
        slot = run % self._runs_max
        if run >= self._runs_max:
            self._empty(slot)
            before = self._keys[slot]
            if self._open.get(before) == run - self._runs_max:
                del self._open[before]
        self._runs_begun += 1
        self._open[key] = run
        self._keys[slot] = key
        self.lengths[slot] = 0
        self.begun[slot] = run
        self.owners[slot] = owner(user_id)
        return run

    def _go_on(self, key: str, user_id: str, run: int) -> int:
        end = (run % self._runs_max + 1) * RUN
        repeated = self.rows[end - REACH : end].tolist()
        run = self._begin(key, user_id)
        slot = run % self._runs_max
        for row in repeated:
            if row != NO_ROW:
                self._table.refer(self._table.id_of(row))
                _put(slot, row, self.rows, self.lengths, self.places, self.newest, self.earlier, self._later)
        return run

    def _empty(self, slot: int) -> None:
        gone = self.rows[slot * RUN : slot * RUN + self.lengths[slot]].tolist()
        _take_out(slot, self.rows, self.lengths, self.places, self.newest, self.earlier, self._later)
        for row in gone:
            if row != NO_ROW:
                self._table.let_go(row)


def owner(user_id: str) -> int:
    """The number that a user's runs are marked with."""
    return crc32(user_id.encode())


@compiled
def _put(
    slot: int, row: int, rows: Rows, lengths: Rows, places: Rows, newest: Rows, earlier: Rows, later: Rows
) -> None:
    """An item comes to stand at the end of a run."""
    place = slot * RUN + lengths[slot]
    for before in range(place - 1, slot * RUN - 1, -1):
        if rows[before] == row:
            # Once more in the same run: its newest place counts.
            _unlink(before, row, newest, earlier, later)
            break
    rows[place] = row
    lengths[slot] += 1
    places[row] += 1
    earlier[place], later[place] = newest[row], NOWHERE
    if newest[row] != NOWHERE:
        later[newest[row]] = place
    newest[row] = place


@compiled
def _take_out(slot: int, rows: Rows, lengths: Rows, places: Rows, newest: Rows, earlier: Rows, later: Rows) -> None:
    """The items of a run stand there no more."""
    for place in range(slot * RUN, slot * RUN + lengths[slot]):
        row = rows[place]
        if row != NO_ROW:
            places[row] -= 1
            _unlink(place, row, newest, earlier, later)
            rows[place] = NO_ROW


@compiled
def _unlink(place: int, row: int, newest: Rows, earlier: Rows, later: Rows) -> None:
    """Take a place out of the links of its item; harmless if it is in none."""
    if newest[row] == place:
        newest[row] = earlier[place]
    elif later[place] != NOWHERE:
        earlier[later[place]] = earlier[place]
    if earlier[place] != NOWHERE:
        later[earlier[place]] = later[place]
    earlier[place] = later[place] = NOWHERE
