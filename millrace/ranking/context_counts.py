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

from math import exp2
from typing import TypeAlias
from zlib import crc32

import numpy as np
import numpy.typing as npt

from millrace.ranking.circumstances import FIELDS, Circumstances
from millrace.ranking.features import Floats

Keys: TypeAlias = npt.NDArray[np.uint32]

CELLS = 1 << 17
"""Cells for each hash, 2 MiB for both: they should fit into a core's cache. globo has 50,000 pairs in some half-lives.
"""
LIFT_PRIOR = 1.0
"""Clicks as expected that are added to those seen: few clicks say little."""

# The landmark moves up when weights have grown by 2^256, as for co-visitation.
_RESCALE_AT = 256
_EVERYBODY, _ALL_ITEMS = 0, 0
# Odd numbers without pattern, from the constants of xxHash (Collet). 32 bits: numpy multiplies eight of them at once.
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
        for key in (_EVERYBODY, *(key for _, key in known)):
            for item in (item_key, _ALL_ITEMS):
                mixed = (key ^ (item * _SPREAD & _WORD)) & _WORD
                for cells, factor in zip(self._cells, _FACTORS, strict=True):
                    cells[(mixed * factor & _WORD) >> (32 - _BITS)] += weight

    def lifts(self, known: Circumstances, item_keys: Keys, now_ms: int) -> Floats:
        """Logarithm of the lift by field, float64[len(FIELDS), n], of n items; 0 for a field that is not known.

        Of several attributes the sum.
        """
        lifts = np.zeros((len(FIELDS), len(item_keys)))
        if not known or self._landmark_ms is None:
            return lifts
        keys = np.array([_EVERYBODY, *(key for _, key in known)], dtype=np.uint32)[:, None]
        mixed = keys ^ (np.append(item_keys, np.uint32(_ALL_ITEMS)) * np.uint32(_SPREAD))
        first, second = (
            cells.take(mixed * np.uint32(factor) >> np.uint32(32 - _BITS))
            for cells, factor in zip(self._cells, _FACTORS, strict=True)
        )
        counts = np.minimum(first, second, out=first)
        # What was taken back may leave a rounding error behind.
        np.maximum(counts, 0, out=counts)
        counts *= exp2(min(self._landmark_ms - now_ms, 0) / self._half_life_ms)
        clicks, all_clicks = counts[:, :-1], counts[:, -1:]
        if not all_clicks[0, 0]:
            return lifts
        expected = clicks[0] / all_clicks[0] * all_clicks[1:]
        found = np.log((clicks[1:] + LIFT_PRIOR) / (expected + LIFT_PRIOR))
        for (place, _), lift in zip(known, found, strict=True):
            lifts[place] += lift
        return lifts
