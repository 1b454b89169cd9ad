"""What samples of a soak say: slopes with intervals, and verdicts by rules that are fixed beforehand. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

Verdict = Literal["flat", "grows", "unclear"]

GROWTH_LIMIT = 0.10
"""An hour's growth, of a process's memory, below which it is flat: what ten minutes can tell from nothing."""
DESCRIPTORS_MORE = 2
"""A connection that was just replaced has two descriptors for a moment."""
LAG_TIMES, LAG_MORE = 1.5, 200
"""What lag may be more in the second half of a soak than it was at most in the first. Its maximum is an extreme value:
commits come every half second, and what has come since counts as lag."""
_RHO_MAX = 0.97


@dataclass(frozen=True, slots=True)
class Slope:
    """Growth by the hour, with its 95 % interval."""

    per_hour: float
    low: float
    high: float


def slope(at_s: Sequence[float], values: Sequence[float]) -> Slope:
    """Least squares over time, with an interval that respects that samples resemble those before them.

    The long-run variance of the residuals is Newey and West's after prewhitening by an AR(1) (Andrews and Monahan,
    1992), whose coefficient is corrected for the bias that a fitted trend gives it (-(2 + 4 rho) / n, Kendall).

    Parameters
    ----------
    at_s
        Seconds, evenly spaced; at least 8 of them.
    """
    hours: npt.NDArray[np.float64] = (np.asarray(at_s, float) - np.mean(at_s)) / 3600
    found = np.asarray(values, float)
    spread = float(hours @ hours)
    per_hour = float(hours @ found / spread)
    residuals = found - found.mean() - per_hour * hours
    before, after = residuals[:-1], residuals[1:]
    count, power = len(after), float(before @ before)
    if power <= np.finfo(float).eps * max(1.0, float(found @ found)):
        return Slope(per_hour, per_hour, per_hour)
    rho = min(max((count * float(after @ before) / power + 2) / (count - 4), 0.0), _RHO_MAX)
    news = after - rho * before
    variance = float(news @ news)
    lags = int(4 * (count / 100) ** (2 / 9))
    for lag in range(1, lags + 1):
        variance += 2 * (1 - lag / (lags + 1)) * float(news[lag:] @ news[:-lag])
    long_run = max(variance, 0.0) / count / (1 - rho) ** 2
    freedom = max(2.0, count * (1 - rho) / (1 + rho) - 2)
    half = float(stats.t.ppf(0.975, freedom)) * (long_run / spread) ** 0.5
    return Slope(per_hour, per_hour - half, per_hour + half)


def memory(found: Slope, mean: float) -> Verdict:
    """``flat`` if surely below the limit, ``grows`` if surely above; else a longer soak has to decide."""
    limit = GROWTH_LIMIT * mean
    return "flat" if found.high < limit else "grows" if found.low > limit else "unclear"


def descriptors(counts: Sequence[int]) -> Verdict:
    """Whether there are no more at the end (its last quarter, at most) than in the first half."""
    return "flat" if max(counts[-_quarter(counts) :]) <= max(counts[: _half(counts)]) + DESCRIPTORS_MORE else "grows"


def lag(records: Sequence[int]) -> Verdict:
    """Whether it is bounded: hardly more in the second half, at most, than in the first."""
    half = _half(records)
    return "flat" if max(records[half:]) <= LAG_TIMES * max(records[:half]) + LAG_MORE else "grows"


def _half(values: Sequence[int]) -> int:
    return max(1, len(values) // 2)


def _quarter(values: Sequence[int]) -> int:
    return max(1, len(values) // 4)
