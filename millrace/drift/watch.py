"""One model version under watch: what is served, against what the version's reference says. Pure.

Values are counted by hour of serving time, and compared when the newest hours make up a whole day since the version
serves: within a day there is a season, and a part of one is no day. Labels are settled by minute of serving time (see
``millrace.drift.settling``), and each measure has a detector of its own, which sees every minute once.

Two watches that count different parts of a stream add up (``Counts``, ``Block``); a detector takes what is settled of
all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from millrace.drift.block import Block
from millrace.drift.compare import Finding, compare
from millrace.drift.correction import Dial
from millrace.drift.counts import Counts, Edges
from millrace.drift.detector import Change
from millrace.drift.e_detector import EDetector
from millrace.drift.hours import HOURS
from millrace.drift.reference import AnyReference
from millrace.drift.settling import Settling
from millrace.drift.storing import ModelReference
from millrace.settings import HOUR_MS, MINUTE_MS

OUTCOMES_PER_DAY_MIN = 1_000.0
"""Of a reference that says less: a dial in days needs a number of outcomes a day, and a shop grows."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the detector of a measure stands.

    Attributes
    ----------
    outcomes
        Since its last alarm.
    before, after
        The measure in the reference, and in these outcomes (as before while there are none).
    evidence
        Of a change: at 1 there is an alarm.
    """

    measure: str
    outcomes: int
    before: float
    after: float
    evidence: float


Hour = list[Counts]
"""Counts of each value, in the order of the reference."""


@dataclass
class Watch:
    """What has been seen of one version.

    Attributes
    ----------
    settle_ms
        After so long every label of a served slot is known: the attribution window, and some more.
    hours
        Hour of serving time -> counts, of the last day.
    first_hour
        The first hour that is there as a whole; None before anything was seen.
    late
        Labels that came after their minute was settled: not counted.
    newest_ms
        Newest serving time, Unix milliseconds.
    values
        References of the numbers that are counted, in the order of columns.
    """

    reference: ModelReference
    dial: Dial
    settle_ms: int
    hours: dict[int, Hour] = field(default_factory=dict)
    first_hour: int | None = None
    late: int = 0
    newest_ms: int = 0
    values: list[AnyReference] = field(init=False)

    def __post_init__(self) -> None:
        between = max(outcomes_per_day(self.reference), OUTCOMES_PER_DAY_MIN) / self.dial.false_alarms_per_day
        self.values = [each for each in self.reference.values if isinstance(each.cells, Edges)]
        self._cells = [each.cells for each in self.values if isinstance(each.cells, Edges)]
        self._labels = {name: Settling[Block]() for name in self.reference.labels}
        self._detectors = {name: EDetector(each.baseline, between) for name, each in self.reference.labels.items()}

    def saw(self, served_ms: int) -> None:
        """An answer of this time came."""
        if self.first_hour is None:
            self.first_hour = served_ms // HOUR_MS + 1
        self.newest_ms = max(self.newest_ms, served_ms)

    def count(self, hour: int, columns: npt.NDArray[np.float32]) -> None:
        """Count values of an hour, float32[n, k], a column for each of ``values``; older hours than 24 do not count."""
        if hour < self.newest_ms // HOUR_MS - HOURS:
            return
        counted = [each.count(columns[:, at]) for at, each in enumerate(self._cells)]
        before = self.hours.get(hour)
        self.hours[hour] = counted if before is None else [one + two for one, two in zip(before, counted, strict=True)]

    def label(self, measure: str, served_ms: int, block: Block) -> None:
        """Take labels of a minute of serving time; measures without a reference are passed over."""
        settling = self._labels.get(measure)
        if settling is not None and not settling.add(served_ms // MINUTE_MS, block):
            self.late += block.count

    def look(self) -> list[Finding] | None:
        """Compare the last day's values; None until there is a whole day."""
        if self.whole_hours < HOURS or not self.values:
            return None
        window = self.window()
        return None if window is None else compare(self.values, window, self.dial)

    @property
    def whole_hours(self) -> int:
        """Hours that a look could take now, up to 24."""
        if self.first_hour is None:
            return 0
        return min(max(self.newest_ms // HOUR_MS - self.first_hour, 0), HOURS)

    def window(self) -> Mapping[str, Counts] | None:
        """Counts of each value in the last whole 24 hours; None if nothing was counted in them."""
        last = self.newest_ms // HOUR_MS - 1
        there = [self.hours[hour] for hour in range(last - HOURS + 1, last + 1) if hour in self.hours]
        if not there:
            return None
        return {each.name: _total([hour[at] for hour in there]) for at, each in enumerate(self.values)}

    def forget(self) -> list[int]:
        """Drop hours that no look needs any more; their numbers."""
        old = [hour for hour in self.hours if hour < self.newest_ms // HOUR_MS - HOURS]
        for hour in old:
            del self.hours[hour]
        return old

    def settle(self) -> list[tuple[str, Change, int]]:
        """Hand what is settled to the detectors; their alarms, each with its measure and its time (Unix ms)."""
        below = (self.newest_ms - self.settle_ms) // MINUTE_MS
        alarms = []
        for name, settling in self._labels.items():
            usual = self.reference.labels[name].hours
            for minute, block in settling.settle(below):
                at_ms = minute * MINUTE_MS
                change = self._detectors[name].update(usual.block(at_ms // HOUR_MS, block), at_ms)
                if change is not None:
                    alarms.append((name, change, at_ms))
        return alarms

    def outcomes(self, measure: str) -> int:
        """Outcomes of a measure since its last alarm."""
        return self._detectors[measure].outcomes

    def standings(self) -> list[Standing]:
        """Of each measure."""
        found = []
        for name, each in self._detectors.items():
            before, after = each.baseline.ratio, each.ratio
            found.append(Standing(name, each.outcomes, before, before if after is None else after, each.evidence))
        return found

    def state(self) -> dict[str, Any]:
        """Everything but the hours, as JSON has it."""
        return {
            "first_hour": self.first_hour,
            "newest_ms": self.newest_ms,
            "late": self.late,
            "labels": {
                name: {
                    "settled": settling.settled,
                    "minutes": [[at, each.count, each.total, each.expected] for at, each in settling.blocks.items()],
                    "detector": self._detectors[name].state(),
                }
                for name, settling in self._labels.items()
            },
        }

    def resume(self, state: Mapping[str, Any], hours: Mapping[int, Hour]) -> None:
        """Go on from a state of a watch of the same version, and its hours."""
        self.first_hour, self.newest_ms, self.late = state["first_hour"], state["newest_ms"], state["late"]
        self.hours = dict(hours)
        for name, words in state["labels"].items():
            blocks = {int(at): Block(count, total, expected) for at, count, total, expected in words["minutes"]}
            self._labels[name] = Settling(blocks, words["settled"])
            self._detectors[name].resume(words["detector"])


def outcomes_per_day(reference: ModelReference) -> float:
    """Served slots a day while the reference was made; 0 if it has no values."""
    if not reference.values:
        return 0.0
    blocks = reference.values[0].blocks
    return float(blocks.sum() / len(blocks)) if len(blocks) else 0.0


def _total(parts: list[Counts]) -> Counts:
    whole = parts[0]
    for part in parts[1:]:
        whole = whole + part
    return whole
