"""What a test says of one feature."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from millrace.drift.counts import Counts
from millrace.drift.reference import AnyReference


@dataclass(frozen=True, slots=True)
class Evidence:
    """Result of a test of a window against the reference.

    Attributes
    ----------
    method
        Name of the test.
    statistic, threshold
        In the unit of the test, and what the statistic exceeds with the probability ``level`` while nothing changed.
    p_value
        Probability of such a statistic, or a larger one, while nothing changed.
    effect
        Share of the values that are elsewhere than they were, 0 to 1. The statistics of all tests have different
        units, and their p-values tell more of the number of values than of the change; this is the same in all.
    """

    method: str
    statistic: float
    threshold: float
    p_value: float
    effect: float


Method: TypeAlias = Callable[[AnyReference, Counts, float], Evidence]
"""Tests a window against a reference at a level."""


def nothing(method: str) -> Evidence:
    """What is known where either side has no values."""
    return Evidence(method, statistic=0.0, threshold=float("inf"), p_value=1.0, effect=0.0)
