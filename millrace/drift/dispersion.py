"""How much more shares vary from block to block than they would if every value were drawn by itself.

Values of a user, of an hour, of a day are alike. A test that takes them as independent sees drift all the time: its
sample is smaller than it looks, by the *design effect* (L. Kish, "Survey sampling", 1965). J. N. K. Rao and A. J.
Scott, "The analysis of categorical data from complex sample surveys" (JASA 76, 1981), divide chi-square statistics by
the mean design effect of the cells; for the distribution function, the place where it varies most counts, because that
is where a Kolmogorov-Smirnov distance is found. Blocks have to be as long as what makes values alike: whole days where
there is a daily season.

The effect is an estimate with ``blocks - 1`` degrees of freedom, and tests that use it are as much wider as a t test is
than a normal one (D. R. Thomas and J. N. K. Rao, JASA 82, 1987).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from millrace.drift.counts import Floats, Ints


@dataclass(frozen=True, slots=True)
class Dispersion:
    """A design effect.

    Attributes
    ----------
    effect
        At least 1: that of independent values.
    freedom
        Degrees of freedom of the estimate; infinity where independence was assumed for want of two blocks.
    """

    effect: float = 1.0
    freedom: float = math.inf


def of_cells(blocks: Ints) -> Dispersion:
    """Mean design effect of shares, as in Rao and Scott's first-order correction; ``blocks`` is int64[blocks, k]."""
    blocks = blocks[blocks.sum(axis=1) > 0]
    share, square = _varying(blocks, blocks.sum(axis=1))
    seen = share > 0
    if len(blocks) < 2 or seen.sum() < 2:
        return Dispersion()
    effect = (square[seen] / share[seen]).sum() / (seen.sum() - 1)
    return Dispersion(max(float(effect), 1.0), len(blocks) - 1)


def of_distribution(blocks: Ints) -> Dispersion:
    """Design effect of the distribution function where it varies most; ``blocks`` is int64[blocks, k], cells in order.

    Relative to 1/4, the most that independent values have, at their median.
    """
    blocks = blocks[blocks.sum(axis=1) > 0]
    if len(blocks) < 2:
        return Dispersion()
    _, square = _varying(np.cumsum(blocks, axis=1), blocks.sum(axis=1))
    return Dispersion(max(float(square.max()) * 4, 1.0), len(blocks) - 1)


def _varying(parts: Ints, sizes: Ints) -> tuple[Floats, Floats]:
    """Shares of ``parts`` (int64[blocks, k]) among ``sizes``, and their variances over blocks for each value.

    The variance of a ratio of sums (W. G. Cochran, "Sampling techniques", 1977, section 6.3): blocks differ in size.
    """
    total = max(int(sizes.sum()), 1)
    share = parts.sum(axis=0) / total
    away = parts - sizes[:, None] * share
    return share, (away**2).sum(axis=0) / total * len(parts) / max(len(parts) - 1, 1)
