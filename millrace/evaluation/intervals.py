"""Confidence intervals of means over a stream: events near in time are alike, so that whole blocks are drawn.

Künsch (1989): The jackknife and the bootstrap for general stationary observations. Here with blocks that do not
overlap (Carlstein, 1986).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from millrace.ranking.features import Floats

BLOCKS_MAX = 200
"""Enough for stable percentiles, and each block is far longer than a session where there are 10,000 events."""
DRAWS = 2_000


def block_edges(n: int) -> npt.NDArray[np.intp]:
    """Where each block of n values begins: blocks of n / 200 neighbouring values, at least 10."""
    blocks = max(min(BLOCKS_MAX, n // 10), 1)
    return np.linspace(0, n, blocks, endpoint=False).astype(np.intp)


def block_bootstrap(
    values: Floats, weights: Floats | None = None, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Interval of the (weighted) mean of values in the order of time, float64[n].

    With fewer than two blocks, which are 20 values, the interval is (nan, nan).
    """
    if not len(values):
        return np.nan, np.nan
    edges = block_edges(len(values))
    if weights is None:
        weights = np.ones(len(values))
    return of_ratio(np.add.reduceat(values * weights, edges), np.add.reduceat(weights, edges), seed, level)


def of_ratio(sums: Floats, sizes: Floats, seed: int = 0, level: float = 0.95) -> tuple[float, float]:
    """Interval of the sum of ``sums`` over the sum of ``sizes``, each float64[blocks]; the same blocks are drawn.

    With ``sizes`` as weights it is that of a mean; with another pass's sums, that of how many times as much.
    """
    blocks = len(sums)
    if blocks < 2:
        return np.nan, np.nan
    drawn = np.random.default_rng(seed).multinomial(blocks, np.full(blocks, 1 / blocks), size=DRAWS)
    above, below = drawn @ sums, drawn @ sizes
    # A draw of blocks without a single hit says nothing finite of "how many times as much".
    ratios = np.divide(above, below, out=np.full(DRAWS, np.inf), where=below > 0)
    low, high = np.quantile(ratios, ((1 - level) / 2, (1 + level) / 2), method="linear" if below.all() else "nearest")
    return float(low), float(high)
