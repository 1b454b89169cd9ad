"""Recent sessions of everybody, as arrays, so that sessions like the one at hand are found within a request.

A session is a run of places in one array of item rows; an item's postings are its places there, oldest first. A new
event is one more place and one more posting: what it says is known to the next request. Everything is bounded: runs,
the items of a run, the postings of an item.

Session-kNN: Jannach and Ludewig (2017), When recurrent neural networks meet the neighborhood for session-based
recommendation; with an inverted index: Kersbergen et al. (2022), Serenade. Theirs is built offline, this one as events
come.
"""

from __future__ import annotations

from array import array
from zlib import crc32

import numpy as np
import numpy.typing as npt

from millrace.ranking.features import Ints
from millrace.ranking.item_table import NO_ROW, ItemTable

RUN = 40
"""Most items of a run. A longer session goes on in a new run, which repeats the last ``REACH`` items."""
REACH = 10
"""How many places away from an item another one still counts as its neighbour."""
# Behind each run as many places are empty: looking ahead or back never meets another session.
_WIDTH = RUN + REACH


class SessionIndex:
    """Sessions and postings.

    Parameters
    ----------
    table
        Gives each item its row, and keeps the rows that stand in sessions.
    runs_max
        Most runs; beyond, the one that began first makes room.
    postings_max
        Most postings of an item that are looked at, the newest.
    gap_ms
        A session without id ends after such a gap.

    Attributes
    ----------
    gap_ms
        As given.
    rows
        int32[...], the item rows of all runs; ``NO_ROW`` where no item stands.
    owners
        uint32[runs_max], whose each run is (``owner``).
    places
        int32[table.rows_max], how often an item stands in sessions.
    """

    def __init__(self, table: ItemTable, runs_max: int, postings_max: int, gap_ms: int) -> None:
        self._table = table
        self._runs_max = runs_max
        self._postings_max = postings_max
        self.gap_ms = gap_ms
        self.rows = np.full(REACH + runs_max * _WIDTH, NO_ROW, dtype=np.int32)
        self.owners = np.zeros(runs_max, dtype=np.uint32)
        self.places = np.zeros(table.rows_max, dtype=np.int32)
        self._postings: dict[int, array[int]] = {}
        # A run's number only grows; it lies in the slot number % runs_max.
        self._begun = 0
        self._open: dict[str, int] = {}
        self._keys = [""] * runs_max
        self._lengths = np.zeros(runs_max, dtype=np.int32)
        self._last_ms = [0] * runs_max
        self._numbers = np.zeros(runs_max, dtype=np.intp)

    def __len__(self) -> int:
        """Number of runs."""
        return min(self._begun, self._runs_max)

    def add(self, user_id: str, session: int, item_id: str, at_ms: int) -> None:
        """The user turned to an item, in a session (0: none was named), at an event time, Unix ms."""
        row = self._table.refer(item_id)
        if row == NO_ROW:
            return
        key = f"{session} {user_id}"
        run = self._open.get(key)
        if run is None or (not session and abs(at_ms - self._last_ms[run % self._runs_max]) >= self.gap_ms):
            run = self._begin(key, user_id)
        elif self._lengths[run % self._runs_max] == RUN:
            run = self._go_on(key, user_id, run)
        self._last_ms[run % self._runs_max] = at_ms
        self._put(run, row)

    def forget(self, user_id: str) -> None:
        """Take a user's items out of all sessions."""
        for slot in np.flatnonzero(self.owners[: len(self)] == owner(user_id)).tolist():
            self._empty(slot)

    def postings(self, row: int, most: int) -> Ints:
        """The ``most`` postings of an item that came last, int64[<= most], in that order (see ``slots``)."""
        own = self._postings.get(row)
        if not own:
            return _NO_POSTINGS
        found = np.array(own[-most:], dtype=np.int64)
        oldest = (self._begun - self._runs_max) * _WIDTH
        return found[found >= oldest] if found.min() < oldest else found

    def slots(self, postings: Ints) -> tuple[Ints, Ints, Ints]:
        """Of postings: the number of the run, its slot, and the place in ``rows``; int64[n] each."""
        runs = postings // _WIDTH
        slots = runs % self._runs_max
        return runs, slots, slots * _WIDTH + REACH + postings % _WIDTH

    def items(self, slots: Ints) -> tuple[Ints, Ints]:
        """Of each slot: where its first item stands in ``rows``, and how many there are; int64[n] each."""
        return slots * _WIDTH + REACH, self._lengths[slots].astype(np.int64)

    def distinct(self, slots: Ints) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Where each distinct slot stands last among the given ones, and for each given one its place among these."""
        numbers, count = self._numbers, np.arange(len(slots))
        numbers[slots] = count
        last = np.flatnonzero(numbers[slots] == count)
        numbers[slots[last]] = np.arange(len(last))
        return last, numbers[slots]

    def _begin(self, key: str, user_id: str) -> int:
        run = self._begun
        slot = run % self._runs_max
        if run >= self._runs_max:
            self._empty(slot)
            before = self._keys[slot]
            if self._open.get(before) == run - self._runs_max:
                del self._open[before]
        self._begun += 1
        self._open[key] = run
        self._keys[slot] = key
        self._lengths[slot] = 0
        self.owners[slot] = owner(user_id)
        return run

    def _go_on(self, key: str, user_id: str, run: int) -> int:
        end = _start(run % self._runs_max) + RUN
        repeated = self.rows[end - REACH : end].tolist()
        run = self._begin(key, user_id)
        for row in repeated:
            if row != NO_ROW:
                self._table.refer(self._table.id_of(row))
                self._put(run, row)
        return run

    def _put(self, run: int, row: int) -> None:
        slot = run % self._runs_max
        place = int(self._lengths[slot])
        self._lengths[slot] = place + 1
        self.rows[_start(slot) + place] = row
        self.places[row] += 1
        posting = run * _WIDTH + place
        own = self._postings.get(row)
        if own is None:
            own = self._postings[row] = array("q")
        elif row in self.rows[_start(slot) : _start(slot) + place].tolist():
            # Once more in the same run: its newest place counts.
            _drop_run(own, run)
        own.append(posting)
        if len(own) > 2 * self._postings_max:
            del own[: -self._postings_max]

    def _empty(self, slot: int) -> None:
        places = self.rows[_start(slot) : _start(slot) + RUN]
        for row in places[places != NO_ROW].tolist():
            self.places[row] -= 1
            if not self.places[row]:
                del self._postings[row]
            self._table.let_go(row)
        places[:] = NO_ROW


_NO_POSTINGS = np.empty(0, dtype=np.int64)


def owner(user_id: str) -> int:
    """The number that a user's runs are marked with."""
    return crc32(user_id.encode())


def _drop_run(postings: array[int], run: int) -> None:
    """Drop the newest posting in a run, where there is one."""
    for at in range(len(postings) - 1, -1, -1):
        if postings[at] // _WIDTH == run:
            del postings[at]
            return


def _start(slot: int) -> int:
    return REACH + slot * _WIDTH
