"""Tests that compare shares of cells: chi-square, Jensen-Shannon, the population stability index, missing values.

Thresholds come from what the statistics are while nothing changed, which depends on the two sizes ``n`` and ``m`` and
the number of cells ``k``, and never from a rule of thumb: PSI > .1 is exceeded by 85 % of unchanged windows of 100
values, and by none of 100,000 that a fifth of a standard deviation moved. With ``X`` from chi-square with ``k - 1``
degrees:

============== ============================================== =====================================================
likelihood     2 (n + m) JS weighted by size                  ~ X (S. S. Wilks, 1938)
Jensen-Shannon bits, weighted by a half                       ~ X (1/n + 1/m) / (8 log 2)
PSI            sum (p - q) log(p / q)                         ~ X (1/n + 1/m) (B. Yurdakul and J. Naranjo, 2020)
============== ============================================== =====================================================

each times the mean design effect (``millrace.drift.dispersion``); where it was estimated, they are referred to an F
distribution with as many degrees of freedom as the cells have directions to vary in.

The chi-square test is that of the likelihood ratio: its upper tail is right within a small factor for counts of a few,
where Pearson's is wrong by orders of magnitude at levels such as 1e-6.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import betainc, betaincinv, chdtrc, chdtri, rel_entr

from millrace.drift.counts import Categories, Counts, Floats, Ints
from millrace.drift.dispersion import Dispersion, of_cells
from millrace.drift.evidence import Evidence, nothing
from millrace.drift.reference import AnyReference

GROUPS = 16
"""Cells of a number in these tests: each more costs power against the smooth changes that features make."""
EXPECTED_MIN = 5.0
"""Fewest values of the window that a cell should expect (W. G. Cochran, "Some methods for strengthening the common
chi-square tests", 1954); rarer ones are put together."""


@dataclass(frozen=True, slots=True)
class Shares:
    """The two sides, in common cells.

    Attributes
    ----------
    before, now
        float64[k].
    dispersion
        Of the reference in these cells.
    """

    before: Floats
    now: Floats
    dispersion: Dispersion

    @property
    def n(self) -> float:
        return float(self.before.sum())

    @property
    def m(self) -> float:
        return float(self.now.sum())

    @property
    def p(self) -> Floats:
        return self.before / self.n

    @property
    def q(self) -> Floats:
        return self.now / self.m

    def evidence(self, method: str, statistic: float, unit: float, level: float) -> Evidence:
        """Refer a statistic, which is ``unit`` times X while nothing changed, to its distribution."""
        dispersion, cells = self.dispersion, max(int(((self.before > 0) | (self.now > 0)).sum()) - 1, 1)
        directions = dispersion.directions or cells
        # X is spread over so many directions, and no more.
        unit *= dispersion.effect * cells / directions
        return Evidence(
            method,
            statistic,
            threshold=_quantile(level, directions, dispersion.freedom) * unit,
            p_value=_tail(statistic / unit, directions, dispersion.freedom),
            effect=float(np.abs(self.p - self.q).sum()) / 2,
        )


def chi_square(reference: AnyReference, window: Counts, level: float) -> Evidence:
    """The likelihood-ratio test that all shares are as they were."""
    return _chi_square("chi-square", _shares(reference, window), level)


def jensen_shannon(reference: AnyReference, window: Counts, level: float) -> Evidence:
    """Jensen and Shannon's divergence in bits, 0 to 1 (J. Lin, IEEE Transactions on Information Theory 37, 1991)."""
    shares = _shares(reference, window)
    if shares is None:
        return nothing("jensen-shannon")
    middle = (shares.p + shares.q) / 2
    bits = float((rel_entr(shares.p, middle) + rel_entr(shares.q, middle)).sum()) / 2 / math.log(2)
    return shares.evidence("jensen-shannon", bits, (1 / shares.n + 1 / shares.m) / (8 * math.log(2)), level)


def population_stability(reference: AnyReference, window: Counts, level: float) -> Evidence:
    """The population stability index, in nats; empty cells hold half a value, so that it is finite."""
    shares = _shares(reference, window)
    if shares is None:
        return nothing("psi")
    p, q = (shares.before + 0.5) / (shares.before + 0.5).sum(), (shares.now + 0.5) / (shares.now + 0.5).sum()
    index = float(((p - q) * np.log(p / q)).sum())
    return shares.evidence("psi", index, 1 / shares.n + 1 / shares.m, level)


def missing_rate(reference: AnyReference, window: Counts, level: float) -> Evidence:
    """Whether as many values are missing as before: a broken pipe, more often than another world."""
    before, now = (np.array([counts.present, counts.missing], dtype=float) for counts in (reference.counts, window))
    if not before.any() or not now.any():
        return nothing("missing")
    return _chi_square("missing", Shares(before, now, reference.missing_dispersion), level)


def _chi_square(method: str, shares: Shares | None, level: float) -> Evidence:
    if shares is None:
        return nothing(method)
    both = (shares.before + shares.now) / (shares.n + shares.m)
    divergence = shares.n * rel_entr(shares.p, both).sum() + shares.m * rel_entr(shares.q, both).sum()
    return shares.evidence(method, max(2 * float(divergence), 0.0), 1.0, level)


def _shares(reference: AnyReference, window: Counts) -> Shares | None:
    """Both sides in as many cells as the tests can use; None where a side is empty."""
    before = reference.counts
    if not before.present or not window.present:
        return None
    share = before.cells / before.present
    part = EXPECTED_MIN / window.present
    group = _rare_together(share, part) if isinstance(reference.cells, Categories) else _neighbours(share, part)
    into = group[:, None] == np.arange(group.max() + 1)
    blocks = reference.blocks @ into
    return Shares(blocks.sum(axis=0).astype(float), (window.cells @ into).astype(float), of_cells(blocks))


def _neighbours(share: Floats, part: float) -> Ints:
    """The group of each cell: neighbours together, about equal, at most ``GROUPS``, none below ``part``."""
    groups = max(min(GROUPS, int(1 / part)), 1)
    at = ((np.cumsum(share) - share / 2) * groups).astype(np.int64).clip(0, groups - 1)
    return np.unique(at, return_inverse=True)[1].astype(np.int64)


def _rare_together(share: Floats, part: float) -> Ints:
    """The group of each category: those above ``part`` and the new ones alone, all others in one."""
    alone = share >= part
    alone[-1] = True
    return np.where(alone, np.cumsum(alone) - 1, alone.sum()).astype(np.int64)


def _tail(ratio: float, degrees: float, freedom: float) -> float:
    """P(X > ratio), the effect being known or estimated."""
    if math.isinf(freedom):
        return float(chdtrc(degrees, ratio))
    return float(betainc(freedom / 2, degrees / 2, freedom / (freedom + ratio)))


def _quantile(level: float, degrees: float, freedom: float) -> float:
    """The ratio whose tail is ``level``."""
    if math.isinf(freedom):
        return float(chdtri(degrees, level))
    at = float(betaincinv(freedom / 2, degrees / 2, level))
    return freedom * (1 - at) / at if at > 0 else math.inf
