"""The search for the highest rate that a service holds."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

# Rates are tried this many at a time until one does not hold; a power of two.
STRIDE = 4


def highest_held(rates: Sequence[float], attempt: Callable[[float], T | None], known: float = 0.0) -> T | None:
    """What the attempt at the highest rate that held gave; None if no rate did.

    Parameters
    ----------
    rates
        That may be tried, ascending.
    attempt
        None if the rate is too high. Every lower rate is taken to hold, every higher one not to.
    known
        A rate that holds, known beforehand; the search starts above it.
    """
    holds, fails, stride = bisect_right(rates, known) - 1, len(rates), STRIDE
    best: T | None = None
    while stride:
        tried = holds + stride
        if tried >= fails:
            stride //= 2
        elif (result := attempt(rates[tried])) is None:
            fails = tried
        else:
            best, holds = result, tried
    return best
