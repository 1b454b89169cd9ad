"""What a change detector is: it takes blocks of outcomes in the order of time and says when they changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from millrace.drift.block import Block


@dataclass(frozen=True, slots=True)
class Change:
    """An alarm.

    Attributes
    ----------
    outcomes
        How many were seen since the last alarm, or since the start.
    since
        How many of them came after the change, as estimated.
    before, after
        Total by unit of expected: as it should be, and in ``since``.
    evidence
        The statistic that reached its limit, over the limit: 1 and more. None where a method has none.
    since_ms
        When these outcomes began, Unix milliseconds; 0 where nobody said when blocks begin.
    """

    outcomes: int
    since: int
    before: float
    after: float
    evidence: float | None = None
    since_ms: int = 0

    @property
    def effect(self) -> float:
        """Relative change: .4 is two fifths more."""
        return self.after / self.before - 1


class ChangeDetector(Protocol):
    """Takes blocks one after the other; after an alarm it begins anew, so that a change that holds is said again."""

    def update(self, block: Block) -> Change | None:
        """Take the next block; the alarm, if this one gives it."""
        ...
