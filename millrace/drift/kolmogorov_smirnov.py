"""Kolmogorov and Smirnov's distance of two distribution functions, from counts alone.

The distance is taken at the edges of the cells: at most that of all values, and less by no more than the largest cell
holds. Its p-value is the bound of F. Wei and R. M. Dudley, "Two-sample Dvoretzky-Kiefer-Wolfowitz inequalities"
(Statistics & Probability Letters 82, 2012), ``2 exp(-2 x^2)`` with ``x^2 = d^2 n m / (n + m)``, which is also the first
term of Kolmogorov's limit (they find it a trifle too small for equal sizes below 458, and nowhere else from 4 on). The
sizes are divided by the design effect; as that is estimated with ``f`` degrees of freedom, the bound is averaged over
``chi-square(f) / f``, its error::

    p = 2 (1 + 4 x^2 / f)^(-f / 2)
"""

from __future__ import annotations

import math

import numpy as np

from millrace.drift.counts import Counts
from millrace.drift.dispersion import Dispersion
from millrace.drift.evidence import Evidence, nothing
from millrace.drift.reference import AnyReference

NAME = "kolmogorov-smirnov"


def kolmogorov_smirnov(reference: AnyReference, window: Counts, level: float) -> Evidence:
    """Test a number; the effect is the distance: at least that share of the values moved."""
    before, now = reference.counts, window
    if not before.present or not now.present:
        return nothing(NAME)
    distance = float(np.abs(np.cumsum(before.cells) / before.present - np.cumsum(now.cells) / now.present).max())
    dispersion = reference.dispersion
    size = before.present * now.present / (before.present + now.present) / dispersion.effect
    return Evidence(
        NAME,
        statistic=distance,
        threshold=math.sqrt(_square(level, dispersion) / size),
        p_value=_p_value(distance**2 * size, dispersion),
        effect=distance,
    )


def _p_value(square: float, dispersion: Dispersion) -> float:
    freedom = dispersion.freedom
    log = -2 * square if math.isinf(freedom) else -freedom / 2 * math.log1p(4 * square / freedom)
    return min(2 * math.exp(log), 1.0)


def _square(level: float, dispersion: Dispersion) -> float:
    """``x^2`` at which the p-value is ``level``."""
    freedom, log = dispersion.freedom, math.log(2 / level)
    return log / 2 if math.isinf(freedom) else freedom / 4 * math.expm1(2 / freedom * log)
