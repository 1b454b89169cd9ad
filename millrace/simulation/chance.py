"""Random numbers that depend on what they are for, and on nothing that happened before.

A generator by counters (J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011; numpy's Philox)
gives each place in the simulation a stream of its own. Two runs with one seed therefore have the same people who
toss the same coins, and differ only by what is shown to them (common random numbers).
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

_WORD = 2**64 - 1


class Purpose(IntEnum):
    """What a stream is for; each has streams of its own."""

    ITEMS = 1
    PEOPLE = 2
    SHIFTS = 3
    ARRIVALS = 4
    SESSIONS = 5
    SHELVES = 6
    CATEGORIES = 7
    NEEDS = 8
    STOCK = 9


def chance(seed: int, purpose: Purpose, first: int = 0, second: int = 0, third: int = 0) -> np.random.Generator:
    """The stream of a place, for example of the third page of a shopper's second session; takes 7 µs."""
    # The lowest word of the counter is the stream's own.
    return np.random.Generator(np.random.Philox(key=[seed & _WORD, int(purpose)], counter=[0, third, second, first]))
