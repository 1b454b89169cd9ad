"""Sums in which an event's weight halves every half-life (forward decay).

The time that counts is the event's own, so that the order of arrival does not matter (to rounding), and a replay
of 2017 decays as 2017 did. The sum stands at its newest event: nothing grows with time, so that no double
overflows. The Lua scripts hold the same four lines; a test compares them.

Cormode, Shkapenyuk, Srivastava, Xu (2009): Forward decay: a practical time decay model for streaming systems.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp2


@dataclass(frozen=True, slots=True)
class DecayedSum:
    """A decayed sum.

    Attributes
    ----------
    value
        The sum as of ``as_of_ms``.
    as_of_ms
        Event time of the newest event in it, Unix milliseconds.

    Examples
    --------
    >>> total = DecayedSum(1.0, 0).plus(1.0, at_ms=600_000, half_life_ms=600_000)
    >>> total
    DecayedSum(value=1.5, as_of_ms=600000)
    >>> total.at(1_200_000, half_life_ms=600_000)
    0.75
    """

    value: float
    as_of_ms: int

    def plus(self, weight: float, at_ms: int, half_life_ms: float) -> DecayedSum:
        """The sum with another event in it; an event from before ``as_of_ms`` comes in already decayed."""
        if at_ms >= self.as_of_ms:
            return DecayedSum(self.value * exp2((self.as_of_ms - at_ms) / half_life_ms) + weight, at_ms)
        return DecayedSum(self.value + weight * exp2((at_ms - self.as_of_ms) / half_life_ms), self.as_of_ms)

    def at(self, now_ms: int, half_life_ms: float) -> float:
        """The sum as of ``now_ms``; before ``as_of_ms`` the sum as it stands (a clock behind the events)."""
        return self.value * exp2(min(self.as_of_ms - now_ms, 0) / half_life_ms)
