"""Two passes over the same events beside each other: what one is better by, with an interval.

A pass is kept as the sums of its blocks. That is all that the block bootstrap needs, for itself and for a paired
difference, and what a plot over the stream shows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from millrace.errors import MillraceError
from millrace.evaluation.intervals import block_edges, of_ratio
from millrace.ranking.features import Floats

EXACT = 17
"""Digits with which a double is read again as it was."""


@dataclass(frozen=True)
class Blocks:
    """A pass's counted answers, in blocks of neighbours.

    Attributes
    ----------
    events
        Names the events that were asked for: two passes with the same are paired.
    starts
        Place in the stream of each block's first event.
    weights
        float64[blocks], summed weights of the answers.
    sums
        Metric -> float64[blocks], weighted sums of its values.
    """

    events: str
    starts: list[int]
    weights: Floats
    sums: Mapping[str, Floats]

    def words(self, metrics: Collection[str] = (), digits: int = EXACT) -> dict[str, Any]:
        """It as JSON takes it, with some of the metrics or all, and so many significant digits."""

        def numbers(values: Floats) -> list[float]:
            return [float(f"{value:.{digits}g}") for value in values.tolist()]

        sums = {name: numbers(values) for name, values in self.sums.items() if not metrics or name in metrics}
        return {"events": self.events, "starts": self.starts, "weights": numbers(self.weights), "sums": sums}

    @classmethod
    def from_words(cls, words: Mapping[str, Any]) -> Blocks:
        """What ``words`` gave."""
        sums = {name: np.array(values, dtype=np.float64) for name, values in words["sums"].items()}
        return cls(words["events"], words["starts"], np.array(words["weights"], dtype=np.float64), sums)


@dataclass(frozen=True, slots=True)
class Difference:
    """How much better a pass is, absolutely and relative to the other, with 95 % intervals (value, low, high)."""

    absolute: tuple[float, float, float]
    relative: tuple[float, float, float]


def in_blocks(places: Floats, weights: Floats, values: Mapping[str, Floats]) -> Blocks:
    """The blocks of answers in the order of time: places in the stream, weights and metrics, each float64[n]."""
    edges = block_edges(len(places))
    return Blocks(
        events=blake2b(places.astype("<i8").tobytes(), digest_size=8).hexdigest(),
        starts=places[edges].astype(int).tolist(),
        weights=np.add.reduceat(weights, edges),
        sums={name: np.add.reduceat(value * weights, edges) for name, value in values.items()},
    )


def difference(better: Blocks, worse: Blocks, metric: str, seed: int = 0) -> Difference:
    """What ``better`` has above ``worse``. Raises MillraceError if they did not ask before the same events."""
    if better.events != worse.events:
        raise MillraceError("a paired difference needs two passes that asked before the same events")
    ours, theirs, weights = better.sums[metric], worse.sums[metric], better.weights
    low, high = of_ratio(ours, theirs, seed)
    ratio = float(ours.sum() / theirs.sum()) if theirs.any() else np.nan
    return Difference(
        absolute=(float((ours - theirs).sum() / weights.sum()), *of_ratio(ours - theirs, weights, seed)),
        relative=(ratio - 1, low - 1, high - 1),
    )
