"""A change detector with a known expected time between false alarms, for the mean of outcomes between 0 and 1.

J. Shin, A. Ramdas and A. Rinaldo, "E-detectors: a nonparametric framework for sequential change detection" (New England
Journal of Statistics in Data Science 2, 2024). The likelihood ratio of a change at a certain outcome is an e-process,
as long as the mean is what it should be: its expectation is 1. The sum over all outcomes at which the change could have
come (A. N. Shiryaev, 1963; S. W. Roberts, 1966) has an expectation of the number ``n`` of outcomes::

    R <- (R + count) exp(total log(f) - count log(1 + mean (f - 1)))        E[R] = n

for a change of the odds by the factor ``f``, so that the expected number of outcomes until ``R`` reaches ``N`` is ``N``
or more, exactly and for every stream whose mean is right given its past. No distribution is assumed: an outcome between
0 and 1 has at most the exponential moment of one that is 0 or 1. A mixture over factors is again such a sum.

Blocks are the unit: within one, outcomes may be in any order, and those of several workers are added. A change is said
to come at the beginning of a block, and a varying mean within a block counts as its average, which only makes ``R``
smaller (the logarithm is concave).

Two things that are not exact:

- *The reference is an estimate.* At a factor ``f``, an excursion of ``R`` from its usual size to ``N`` takes about
  ``l / I`` outcomes, where ``I`` is what an outcome after the change tells (Kullback and Leibler's divergence) and
  ``l = log(N I / w)`` is the height of the climb for the weight ``w``. A reference that is wrong by one standard error
  makes such excursions ``exp(k)`` times as probable, where ``k`` is ``l / I`` times what the error adds to the drift
  for each outcome. The mean is moved by ``k / 2`` standard errors towards the change, because
  ``E[exp(k (Z - k / 2))] = 1``: averaged over what the reference may have been, there are no more false alarms than
  promised. (With 5,000 reference outcomes at 5 % and no margin, about four times as many.)
- *Outcomes of a user are alike.* Logarithms are divided by the dispersion, as in quasi-likelihood (R. W. M. Wedderburn,
  Biometrika 61, 1974).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from millrace.drift.block import Baseline, Block
from millrace.drift.detector import Change
from millrace.drift.history import NOTHING, History
from millrace.errors import InvalidField

FACTORS = ((1.22, 0.25), (1.5, 0.45), (2.2, 0.3))
"""Changes of the odds that are looked for, up and down, with their weights. A change between two of them is found by
its neighbours; one by a tenth takes ten times as many outcomes as one by two fifths."""
EXPONENT_MAX = 600.0
"""exp of this is far beyond every limit, and a finite number."""


@dataclass(slots=True)
class Direction:
    """One factor of the mixture.

    Attributes
    ----------
    slope
        Logarithm of the factor.
    weight
        In the mixture.
    mean
        What the expected mean is multiplied with: above 1 for a factor above 1, for the reference's error.
    value
        ``R``.
    """

    slope: float
    weight: float
    mean: float
    value: float = 0.0


@dataclass(slots=True)
class EDetector:
    """Watches one mean, both ways, against a baseline.

    Attributes
    ----------
    baseline
        Of the reference.
    between_false_alarms
        Expected number of outcomes between two false alarms, at least: the dial.
    outcomes
        Seen since the last alarm.
    """

    baseline: Baseline
    between_false_alarms: float
    outcomes: int = 0
    directions: list[Direction] = field(init=False)
    history: History = field(default_factory=History)

    def __post_init__(self) -> None:
        if not 1 < self.between_false_alarms < 1e100:
            raise InvalidField("between_false_alarms", f"{self.between_false_alarms:g}", "above 1 outcome, below 1e100")
        self.directions = [
            Direction(slope, weight / 2, _margin(self.baseline, slope, weight / 2, self.between_false_alarms))
            for factor, weight in FACTORS
            for slope in (math.log(factor), -math.log(factor))
        ]

    def update(self, block: Block, begins_ms: int = 0) -> Change | None:
        """Take the next block; the alarm, if this one gives it.

        Parameters
        ----------
        begins_ms
            When its outcomes begin, Unix milliseconds: so a change has a time.
        """
        if not block.count:
            return None
        self.outcomes += block.count
        self.history.append(block, begins_ms)
        mean, mixture = self.baseline.ratio * block.expected / block.count, 0.0
        for each in self.directions:
            expected = min(mean * each.mean, 1.0)
            log = each.slope * block.total - block.count * math.log1p(expected * math.expm1(each.slope))
            log = min(log / self.baseline.dispersion, EXPONENT_MAX)
            each.value = (each.value + block.count) * math.exp(log)
            mixture += each.weight * each.value
        return self._alarm(mixture) if mixture >= self.between_false_alarms else None

    @property
    def evidence(self) -> float:
        """Of a change since the last alarm: at 1 there is one."""
        return sum(each.weight * each.value for each in self.directions) / self.between_false_alarms

    @property
    def ratio(self) -> float | None:
        """What the baseline's ratio was since the last alarm; None without outcomes."""
        whole = sum(self.history.blocks, NOTHING)
        return whole.ratio if whole.expected > 0 else None

    def state(self) -> dict[str, Any]:
        """What is needed to go on, as JSON has it; a detector of the same baseline and dial takes it."""
        return {
            "outcomes": self.outcomes,
            "values": [each.value for each in self.directions],
            "blocks": [
                [block.count, block.total, block.expected, begins_ms]
                for block, begins_ms in zip(self.history.blocks, self.history.begins, strict=True)
            ],
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        values: Sequence[float] = state["values"]
        if len(values) != len(self.directions):
            raise InvalidField("values", f"{len(values)} of them", f"{len(self.directions)}")
        for each, value in zip(self.directions, values, strict=True):
            each.value = float(value)
        self.outcomes = int(state["outcomes"])
        blocks = [Block(int(count), float(total), float(unit)) for count, total, unit, *_ in state["blocks"]]
        # States of before decision 29 do not say when blocks began.
        begins = [int(begins_ms[0]) if begins_ms else 0 for _, _, _, *begins_ms in state["blocks"]]
        self.history = History(blocks, begins)

    def _alarm(self, mixture: float) -> Change:
        leading = max(self.directions, key=lambda each: each.weight * each.value)
        ratio = self.baseline.ratio
        since, since_ms = self.history.since_change(leading.slope, ratio * math.expm1(leading.slope))
        found = Change(
            self.outcomes,
            since.count,
            before=ratio,
            after=since.ratio,
            evidence=mixture / self.between_false_alarms,
            since_ms=since_ms,
        )
        self.outcomes, self.history = 0, History()
        for each in self.directions:
            each.value = 0.0
        return found


def _margin(baseline: Baseline, slope: float, weight: float, between: float) -> float:
    """``mean`` of a direction: 1 and ``k / 2`` standard errors, towards the change."""
    rate, gain = baseline.rate, math.expm1(slope)
    growth = 1 + rate * gain
    changed = rate * math.exp(slope) / growth
    told = (changed * slope - math.log(growth)) / baseline.dispersion
    climb = math.log(max(between * told / weight, math.e))
    steps = climb / told * rate * abs(gain) / growth / baseline.dispersion * baseline.error
    return max(1 + math.copysign(steps / 2 * baseline.error, slope), 0.0)
