"""Labels of a short time, in any order: three sums, which add up whoever counted them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from millrace.errors import InvalidField


@dataclass(frozen=True, slots=True)
class Block:
    """Outcomes, and what was expected of them.

    ================ ========================= ==============================================================
    watched          ``total``                 ``expected``
    ================ ========================= ==============================================================
    click-through    clicks                    slots; or the sum of usual rates, for example of their hours
    calibration      clicks                    sum of scores
    log loss         sum of losses / limit,    slots
                     each cut at the limit
    ================ ========================= ==============================================================

    Attributes
    ----------
    count
        How many outcomes.
    total
        Their sum, each 0 to 1.
    expected
        In any unit: a ``Baseline`` knows what a unit gave.
    """

    count: int
    total: float
    expected: float

    def __post_init__(self) -> None:
        if not (self.count >= 0 and 0 <= self.total <= self.count and 0 <= self.expected < math.inf):
            raise InvalidField(
                "block",
                f"{self.count} outcomes with the sum {self.total:g}, {self.expected:g} expected",
                "0 <= total <= count and a finite expected of 0 or more",
            )

    def __add__(self, other: Block) -> Block:
        return Block(self.count + other.count, self.total + other.total, self.expected + other.expected)

    @property
    def ratio(self) -> float:
        """Total by unit of expected; NaN where nothing was expected."""
        return self.total / self.expected if self.expected else math.nan


@dataclass(frozen=True, slots=True)
class Baseline:
    """What outcomes were like when the model was made.

    Attributes
    ----------
    ratio
        Total by unit of expected: a click-through if slots are expected, about 1 if scores are.
    rate
        Mean outcome, in (0, 1).
    error
        Relative standard error of ``ratio``. A detector that took the reference for the truth would alarm about four
        times as often as it should with 5,000 reference outcomes at 5 %.
    dispersion
        How many times more totals of blocks vary than those of independent outcomes: users' outcomes are
        alike (``millrace.drift.dispersion``); at least 1.
    """

    ratio: float
    rate: float
    error: float
    dispersion: float = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.ratio < math.inf and 0 < self.rate < 1 and 0 < self.error < math.inf):
            raise InvalidField(
                "baseline",
                f"ratio {self.ratio:g}, rate {self.rate:g}, error {self.error:g}",
                "ratio and error above 0, rate above 0 and below 1",
            )
        if not 1 <= self.dispersion < math.inf:
            raise InvalidField("dispersion", f"{self.dispersion:g}", "1 and more")

    @classmethod
    def of(cls, blocks: Sequence[Block], parameters: int = 1) -> Baseline:
        """From the blocks of the training window, each as long as what makes outcomes alike, or longer.

        Parameters
        ----------
        parameters
            How many numbers of what is expected were fitted to these very blocks (``millrace.drift.hours``), the ratio
            included: what is expected of an hour has on average so many times the variance of the ratio (the mean
            leverage of a regression).

        One outcome and one half of it are added (the prior of H. Jeffreys, 1946), so that a reference without a
        single click is one of few.
        """
        whole = sum(blocks, Block(0, 0.0, 0.0))
        if not whole.expected > 0:
            raise InvalidField("blocks", "nothing expected", "reference outcomes")
        rate = (whole.total + 0.5) / (whole.count + 1)
        ratio = rate * whole.count / whole.expected
        dispersion = _dispersion(blocks, ratio)
        error = math.sqrt(parameters * dispersion * (1 - rate) / (rate * (whole.count + 1)))
        return cls(ratio, rate, error, dispersion)


def _dispersion(blocks: Sequence[Block], ratio: float) -> float:
    """Pearson's statistic by degrees of freedom (R. W. M. Wedderburn, Biometrika 61, 1974)."""
    given = [block for block in blocks if block.count]
    if len(given) < 2:
        return 1.0
    square = sum((block.total - ratio * block.expected) ** 2 for block in given)
    means = [min(ratio * block.expected / block.count, 1.0) for block in given]
    independent = sum(block.count * mean * (1 - mean) for block, mean in zip(given, means, strict=True))
    return max(square / independent * len(given) / (len(given) - 1), 1.0) if independent > 0 else 1.0
