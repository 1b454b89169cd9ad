"""Confidence intervals of means over a stream: events near in time are alike, so that whole blocks are drawn.

Künsch (1989): The jackknife and the bootstrap for general stationary observations. Here with blocks that do not
overlap (Carlstein, 1986).
"""

from __future__ import annotations

import numpy as np

from millrace.ranking.features import Floats

BLOCKS_MAX = 200
"""Enough for stable percentiles, and each block is far longer than a session where there are 10,000 events."""
DRAWS = 2_000


def block_bootstrap(
    values: Floats, weights: Floats | None = None, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Interval of the (weighted) mean of values in the order of time, float64[n].

    Blocks of n / 200 neighbouring values, at least 10, are drawn with replacement. With fewer than two blocks the
    interval is (nan, nan).
    """
    blocks = min(BLOCKS_MAX, len(values) // 10)
    if blocks < 2:
        return np.nan, np.nan
    edges = np.linspace(0, len(values), blocks, endpoint=False).astype(np.intp)
    if weights is None:
        weights = np.ones(len(values))
    sums, sizes = np.add.reduceat(values * weights, edges), np.add.reduceat(weights, edges)
    drawn = np.random.default_rng(seed).multinomial(blocks, np.full(blocks, 1 / blocks), size=DRAWS)
    means = (drawn @ sums) / (drawn @ sizes)
    low, high = np.quantile(means, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)
