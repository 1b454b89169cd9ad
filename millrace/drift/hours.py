"""How outcomes usually depend on the hour of the day, so that a night is no change.

The relative rate is a curve of two harmonics (a day and half a day), fitted to the hours of the reference by weighted
least squares and drawn towards a flat one as far as it may be chance (W. James and C. Stein, 1961, with the positive
part). Twenty-four free rates would be more errors than a reference of 100,000 outcomes can bear: with them a detector
alarmed five times as often as it should.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from millrace.drift.block import Block
from millrace.drift.counts import Floats
from millrace.errors import InvalidField

HOURS = 24
HARMONICS = 2
PARAMETERS = 1 + 2 * HARMONICS
"""What ``Baseline.of`` has to know: the ratio, and what is fitted here."""
SEEN_MIN = 18
"""Hours of the day that have to have outcomes: what a curve says of a third of a day that it never saw is nothing."""
FACTOR_MIN = 0.1
"""A curve may dip below 0 where the night is deep; where nothing at all is expected, nothing can be compared."""


@dataclass(frozen=True, slots=True)
class Hours:
    """What is usual.

    Attributes
    ----------
    factors
        Of the 24 hours, each 0 or more (fitted ones ``FACTOR_MIN`` or more), in proportion to their usual rates.
    """

    factors: tuple[float, ...] = (1.0,) * HOURS

    def __post_init__(self) -> None:
        if len(self.factors) != HOURS or not min(self.factors) >= 0:
            raise InvalidField("factors", f"{len(self.factors)} of them", "24 of 0 or more")

    @classmethod
    def of(cls, blocks: Mapping[int, Block]) -> Hours:
        """From the hours of the training window: number of the hour since any midnight -> its outcomes.

        All hours are alike where fewer than ``SEEN_MIN`` hours of the day have outcomes, or nothing was clicked.
        """
        given = [(hour % HOURS, block) for hour, block in sorted(blocks.items()) if block.expected > 0]
        hour = np.array([hour for hour, _ in given], dtype=float)
        expected, total = (
            np.array([getattr(block, name) for _, block in given], dtype=float) for name in ("expected", "total")
        )
        if len(np.unique(hour)) < SEEN_MIN or not total.any():
            return cls()
        waves = _waves(hour) - np.average(_waves(hour), axis=0, weights=expected)
        ratio = total.sum() / expected.sum()
        weighted = waves * np.sqrt(expected)[:, None]
        surprise = (total / expected / ratio - 1) * np.sqrt(expected)
        fitted = np.linalg.lstsq(weighted, surprise, rcond=None)[0]
        explained = float(((weighted @ fitted) ** 2).sum())
        chance = float(((surprise - weighted @ fitted) ** 2).sum()) / (len(given) - PARAMETERS)
        real = max(1 - (2 * HARMONICS - 2) * chance / explained, 0.0) if explained > 0 else 0.0
        curve = 1 + real * _waves(np.arange(HOURS, dtype=float)) @ fitted
        return cls(tuple(np.maximum(curve, FACTOR_MIN).tolist()))

    def block(self, hour: int, block: Block) -> Block:
        """A block of this hour, with what is usual in it as expected."""
        return Block(block.count, block.total, block.expected * self.factors[hour % HOURS])


def _waves(hour: Floats) -> Floats:
    """float64[n, 2 * HARMONICS]: a sine and a cosine for each harmonic."""
    angle = 2 * np.pi * hour[:, None] * np.arange(1, HARMONICS + 1) / HOURS
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
