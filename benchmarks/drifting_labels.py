"""Streams of clicks whose rate is known, watched by change detectors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.watched import Floats
from millrace.drift.block import Baseline, Block
from millrace.drift.detector import Change, ChangeDetector
from millrace.drift.hours import HOURS, PARAMETERS, Hours

RATE = 0.05
SIZE = 20
"""Outcomes of a block: those of a second in a small shop."""
DAY = 20_000
"""Outcomes of a day with a season."""
REFERENCE, WARM, LONGEST = 100_000, 5_000, 40_000
"""Outcomes of the reference, before a change, and after it at most."""

Maker = Callable[[Baseline], ChangeDetector]


class Always:
    """Alarms at every block."""

    def update(self, block: Block) -> Change | None:
        return Change(block.count, block.count, RATE, RATE)


class Never:
    """Never alarms."""

    def update(self, _: Block, /) -> Change | None:
        return None


@dataclass(frozen=True, slots=True)
class Stream:
    """How clicks come about.

    Attributes
    ----------
    spread
        Of the rates of users, whose outcomes come one after the other, a block each: 0, everyone has the same. With
        .1, the correlation within a user is .09.
    swing
        Of the day, relative.
    looked_for
        Whether the hours of the reference say what is usual; else every hour is expected to be like the others.
    size
        Outcomes of a block.
    """

    spread: float = 0.0
    swing: float = 0.0
    looked_for: bool = False
    size: int = SIZE

    def blocks(self, rate: float, outcomes: int, rng: np.random.Generator) -> list[Block]:
        """Blocks with that many outcomes, beginning at midnight."""
        count = outcomes // self.size
        season = 1 + self.swing * np.sin(2 * math.pi * np.arange(count) * self.size / DAY)
        rates: Floats = np.full(count, rate)
        if self.spread:
            total = 1 / self.spread
            rates = rng.beta(rate * total, (1 - rate) * total, count)
        clicks = rng.binomial(self.size, np.minimum(rates * season, 1.0)).astype(float)
        return [Block(self.size, clicked, self.size) for clicked in clicks.tolist()]

    def learn(self, outcomes: int, rng: np.random.Generator) -> tuple[Hours, Baseline]:
        """What a reference of that many outcomes says."""
        blocks = self.blocks(RATE, outcomes, rng)
        if not self.looked_for:
            return Hours(), Baseline.of(blocks)
        hours: dict[int, Block] = {}
        for at, block in enumerate(blocks):
            hours[self.hour(at)] = hours.get(self.hour(at), Block(0, 0.0, 0.0)) + block
        usual = Hours.of(hours)
        return usual, Baseline.of([usual.block(hour, block) for hour, block in hours.items()], PARAMETERS)

    def hour(self, block: int) -> int:
        """The hour since the first midnight of a block."""
        return block * self.size * HOURS // DAY


def false_alarms(
    make: Maker, stream: Stream, reference: int, streams: int, outcomes: int, rng: np.random.Generator
) -> int:
    """Alarms in streams at the rate of their reference, each with a reference of its own."""
    alarms = 0
    for _ in range(streams):
        usual, baseline = stream.learn(reference, rng)
        detector = make(baseline)
        for at, block in enumerate(stream.blocks(RATE, outcomes, rng)):
            alarms += detector.update(usual.block(stream.hour(at), block)) is not None
    return alarms


def delays(
    make: Maker, stream: Stream, after: float, runs: int, rng: np.random.Generator, warm: int = WARM
) -> list[float]:
    """Outcomes between the change and the alarm, in each run; ``LONGEST`` where none came.

    Each run has a reference of its own, of ``REFERENCE`` outcomes, and ``warm`` outcomes like it before the change.
    """
    found = []
    for _ in range(runs):
        detector = make(Baseline.of(stream.blocks(RATE, REFERENCE, rng)))
        for block in stream.blocks(RATE, warm, rng):
            detector.update(block)
        delay = float(LONGEST)
        for at, block in enumerate(stream.blocks(after, LONGEST, rng), 1):
            if detector.update(block):
                delay = at * stream.size
                break
        found.append(delay)
    return found
