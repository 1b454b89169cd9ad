"""ADWIN and Page-Hinkley of river behind the interface of ``detector``, for those who know and want them.

Neither takes a reference or promises a time between false alarms: they compare a stream with its own past, and their
settings are levels and thresholds without a unit. Each block counts as one value, its total by unit of expected.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from river.drift import ADWIN, PageHinkley

from millrace.drift.block import Block
from millrace.drift.detector import Change
from millrace.drift.history import History


@dataclass
class RiverDetector:
    """A detector of river that takes values one by one.

    Attributes
    ----------
    detector
        It begins anew by itself with the first value after an alarm.
    """

    detector: ADWIN | PageHinkley
    history: History = field(default_factory=History)

    def update(self, block: Block) -> Change | None:
        """Take the next block; the alarm, if this one gives it."""
        if not block.expected:
            return None
        self.history.append(block)
        self.detector.update(block.ratio)  # type: ignore[no-untyped-call]
        return self._alarm() if self.detector.drift_detected else None

    def _alarm(self) -> Change:
        """Where the rates before and after differ most for the number of outcomes."""
        before, after = self.history.split()
        self.history = History()
        return Change(before.count + after.count, after.count, before.ratio, after.ratio)


def adwin(delta: float = 0.002) -> RiverDetector:
    """A. Bifet and R. Gavaldà, "Learning from time-changing data with adaptive windowing" (SDM 2007)."""
    return RiverDetector(ADWIN(delta=delta))


def page_hinkley(delta: float = 0.005, threshold: float = 50.0) -> RiverDetector:
    """E. S. Page, "Continuous inspection schemes" (Biometrika 41, 1954), in river's form, both ways."""
    return RiverDetector(PageHinkley(delta=delta, threshold=threshold))
