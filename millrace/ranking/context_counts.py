"""How popular items are under some circumstances, beside how popular they are altogether.

A click counts for each of its circumstances ("region 21", "from a search") and for everybody, with a weight that
halves every half-life. What is wanted of an item is its lift: how many times as often it is turned to under a
circumstance as it would be if that did not matter.

The pairs of circumstance and item are too many to be kept one by one. They are counted in a table of fixed size, each
in two cells that hashes choose; the smaller cell is the better guess, and never too low (count-min sketch: Cormode and
Muthukrishnan 2005, An improved data stream summary). Names are hashed, not places, so that every process counts the
same.
"""

from __future__ import annotations

import math
from math import exp2
from typing import TypeAlias
from zlib import crc32

import numpy as np
import numpy.typing as npt

from millrace.compiled import compiled
from millrace.ranking.circumstances import Circumstances
from millrace.ranking.features import Floats, Ints, Rows

Keys: TypeAlias = npt.NDArray[np.uint32]

CELLS = 1 << 17
"""Cells for each hash, 2 MiB for both: they should fit into a core's cache. globo has 50,000 pairs in some half-lives.
"""
LIFT_PRIOR = 1.0
"""Clicks as expected that are added to those seen: few clicks say little."""

# The landmark moves up when weights have grown by 2^256, as for co-visitation.
_RESCALE_AT = 256
_EVERYBODY, _ALL_ITEMS = 0, 0
# Odd numbers without pattern, from the constants of xxHash (Collet). Of products their last 32 bits count.
_SPREAD, _FACTORS = 0x9E3779B1, (0x85EBCA77, 0xC2B2AE3D)
_WORD = (1 << 32) - 1
_BITS = CELLS.bit_length() - 1


def item_key(item_id: str) -> int:
    """What an item is counted by: 32 bits of its id, the same in every process."""
    return crc32(item_id.encode())


class ContextCounts:
    """The table of one process. One thread changes and reads it."""

    def __init__(self, half_life_ms: int) -> None:
        self._half_life_ms = half_life_ms
        # Doubles: beside a sum of 2^24, which a busy shop has of everybody's clicks, 32 bits lose a single click.
        self._cells = np.zeros((2, CELLS))
        self._landmark_ms: int | None = None

    def add(self, known: Circumstances, item_key: int, at_ms: int, times: float = 1.0) -> None:
        """Somebody turned to an item at an event time, Unix ms, so many times (-1 takes an event back)."""
        if self._landmark_ms is None:
            self._landmark_ms = at_ms
        elif at_ms - self._landmark_ms > _RESCALE_AT * self._half_life_ms:
            self._cells *= exp2((self._landmark_ms - at_ms) / self._half_life_ms)
            self._landmark_ms = at_ms
        weight = times * exp2((at_ms - self._landmark_ms) / self._half_life_ms)
        _add(self._cells, _keys(known), item_key, weight)

    def add_lifts(self, known: Circumstances, rows: Rows, item_keys: Keys, now_ms: int, lifts: Floats) -> None:
        """Add the logarithms of the lifts of n items to ``lifts``, float64[n, len(FIELDS)].

        Of several attributes the sum; nothing for a field that is not known.

        Parameters
        ----------
        rows
            int32[n], where each item's key (``item_key``) stands in ``item_keys``.
        """
        if known and self._landmark_ms is not None:
            decay = exp2(min(self._landmark_ms - now_ms, 0) / self._half_life_ms)
            places = np.array([place for place, _ in known])
            _add_lifts(self._cells, places, _keys(known), rows, item_keys, decay, lifts)


def _keys(known: Circumstances) -> Ints:
    return np.array([key for _, key in known], dtype=np.int64)


@compiled
def _add(cells: Floats, keys: Ints, item_key: int, weight: float) -> None:
    """Count one event for everybody and for each circumstance, of its item and of all."""
    for item in (item_key, _ALL_ITEMS):
        for row in range(2):
            cells[row, _cell(_EVERYBODY, item, row)] += weight
            for key in keys:
                cells[row, _cell(key, item, row)] += weight


@compiled
def _add_lifts(
    cells: Floats, places: Ints, keys: Ints, rows: Rows, item_keys: Keys, decay: float, lifts: Floats
) -> None:
    """``places``: the field of each of the keys."""
    all_clicks = _count(cells, _EVERYBODY, _ALL_ITEMS) * decay
    if not all_clicks:
        return
    clicks = np.empty(len(rows))
    for number in range(len(rows)):
        clicks[number] = _count(cells, _EVERYBODY, int(item_keys[rows[number]])) * decay
    for known in range(len(keys)):
        share = _count(cells, keys[known], _ALL_ITEMS) * decay / all_clicks
        for number in range(len(rows)):
            seen = _count(cells, keys[known], int(item_keys[rows[number]])) * decay
            lifts[number, places[known]] += math.log((seen + LIFT_PRIOR) / (clicks[number] * share + LIFT_PRIOR))


@compiled
def _count(cells: Floats, key: int, item: int) -> float:
    # What was taken back may leave a rounding error behind.
    return float(max(min(cells[0, _cell(key, item, 0)], cells[1, _cell(key, item, 1)]), 0.0))


@compiled
def _cell(key: int, item: int, row: int) -> int:
    mixed = (key ^ item * _SPREAD) & _WORD
    return (mixed * _FACTORS[row] & _WORD) >> (32 - _BITS)
