"""How much more shares vary from block to block than they would if every value were drawn by itself.

Values of a user, of an hour, of a day are alike. A test that takes them as independent sees drift all the time: its
sample is smaller than it looks, by the *design effect* (L. Kish, "Survey sampling", 1965). J. N. K. Rao and A. J.
Scott, "The analysis of categorical data from complex sample surveys" (JASA 76, 1981), divide chi-square statistics by
the mean design effect of the cells; their second-order correction ("On chi-squared tests for multiway contingency
tables with cell proportions estimated from survey data", Annals of Statistics 12, 1984) also counts in how many
independent directions the cells vary. Both are needed: where a level wanders, all cells vary together, and with the
first alone a test at .01 alarms in 7 % of unchanged windows (28 days, 16 cells). For the distribution function, the
place where it varies most counts, because that is where a Kolmogorov-Smirnov distance is found.

Blocks have to be as long as what makes values alike: whole days where there is a daily season. The effect is an
estimate with ``blocks - 1`` degrees of freedom, and tests that use it are as much wider as a t test is than a normal
one (D. R. Thomas and J. N. K. Rao, JASA 82, 1987).
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
    directions
        In how many independent directions the shares vary, as a number of degrees of freedom (F. E. Satterthwaite,
        Biometrics Bulletin 2, 1946); None where independence was assumed: one fewer than cells.
    """

    effect: float = 1.0
    freedom: float = math.inf
    directions: float | None = None


def of_cells(blocks: Ints) -> Dispersion:
    """Design effect of shares as in Rao and Scott's second-order correction; ``blocks`` is int64[blocks, k]."""
    blocks = blocks[blocks.sum(axis=1) > 0]
    blocks = blocks[:, blocks.any(axis=0)]
    if len(blocks) < 2 or blocks.shape[1] < 2:
        return Dispersion()
    share, away = _around(blocks, blocks.sum(axis=1))
    away /= np.sqrt(share)
    # The eigenvalues of the generalised design effects: their sum, and the sum of their squares.
    covariance = away.T @ away
    total, squares = float(np.trace(covariance)), float((covariance**2).sum())
    if total <= 0:
        return Dispersion(freedom=len(blocks) - 1)
    return Dispersion(max(total / (blocks.shape[1] - 1), 1.0), len(blocks) - 1, total**2 / squares)


def of_distribution(blocks: Ints) -> Dispersion:
    """Design effect of the distribution function where it varies most; ``blocks`` is int64[blocks, k], cells in order.

    Relative to 1/4, the most that independent values have, at their median.
    """
    blocks = blocks[blocks.sum(axis=1) > 0]
    if len(blocks) < 2:
        return Dispersion()
    _, away = _around(np.cumsum(blocks, axis=1), blocks.sum(axis=1))
    return Dispersion(max(float((away**2).sum(axis=0).max()) * 4, 1.0), len(blocks) - 1)


def _around(parts: Ints, sizes: Ints) -> tuple[Floats, Floats]:
    """Shares of ``parts`` (int64[blocks, k]) among ``sizes``, and how far each block is from them.

    The sum of the squares is the variance of a share for each value, that of a ratio of sums (W. G. Cochran, "Sampling
    techniques", 1977, section 6.3): blocks differ in size.
    """
    total, count = int(sizes.sum()), len(parts)
    share = parts.sum(axis=0) / total
    away = (parts - sizes[:, None] * share) * math.sqrt(count / (count - 1) / total)
    return share, away
