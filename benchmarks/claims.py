"""What a simulation says of a rule: one figure, its limit, and whether that is on the right side of a bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from scipy.stats import beta, binom, chi2
from scipy.stats import t as student


@dataclass(frozen=True, slots=True)
class Row:
    """One figure.

    Attributes
    ----------
    ok
        None where there is no bound.
    limit
        95 % confidence limit of a share, rate or median, on the side of its bound; None for what is none of these.
    low, high
        Ends of a 95 % interval, where both sides matter.
    """

    name: str
    rule: str
    value: float
    bound: float | None
    ok: bool | None
    runs: int
    seed: int
    limit: float | None = None
    low: float | None = None
    high: float | None = None


def seed_of(name: str) -> int:
    """The seed of a row."""
    return int.from_bytes(blake2b(name.encode(), digest_size=4).digest(), "big")


def share_row(name: str, rule: str, hits: int, runs: int, bound: float | None = None, least: bool = False) -> Row:
    """A share of the runs, at most ``bound`` (or at least, with ``least``); the limit is Clopper and Pearson's."""
    limit = float(beta.ppf(0.05, hits, runs - hits + 1) if hits else 0.0) if least else 1.0
    if not least and hits < runs:
        limit = float(beta.ppf(0.95, hits + 1, runs - hits))
    ok = None if bound is None else limit >= bound if least else limit <= bound
    return Row(name, rule, hits / runs, bound, ok, runs, seed_of(name), limit)


def rate_row(name: str, rule: str, alarms: int, expected: float, runs: int, bound: float | None = None) -> Row:
    """How many times as many alarms as ``expected``, at most ``bound``; the limit is Poisson's (F. Garwood, 1936)."""
    limit = float(chi2.ppf(0.95, 2 * (alarms + 1))) / 2 / expected
    ok = None if bound is None else limit <= bound
    return Row(name, rule, alarms / expected, bound, ok, runs, seed_of(name), limit)


def median_row(name: str, rule: str, values: Sequence[float], bound: float | None = None) -> Row:
    """The median, at most ``bound``; the limit is the order statistic above which half of all lie with 95 %."""
    ordered = np.sort(np.asarray(values, dtype=float))
    limit = float(ordered[min(int(binom.ppf(0.95, len(ordered), 0.5)), len(ordered) - 1)])
    ok = None if bound is None else limit <= bound
    return Row(name, rule, float(np.median(ordered)), bound, ok, len(ordered), seed_of(name), limit)


def middle_row(name: str, rule: str, values: Sequence[float]) -> Row:
    """The median, between the order statistics that hold it with 95 % at least; of fewer than six, their range."""
    ordered = np.sort(np.asarray(values, dtype=float))
    out = max(int(binom.ppf(0.025, len(ordered), 0.5)) - 1, 0)
    low, high = float(ordered[out]), float(ordered[-1 - out])
    return Row(name, rule, float(np.median(ordered)), None, None, len(ordered), seed_of(name), None, low, high)


def mean_row(name: str, rule: str, values: Sequence[float]) -> Row:
    """The mean, with Student's interval."""
    count, mean = len(values), float(np.mean(values))
    wide = float(student.ppf(0.975, count - 1) * np.std(values, ddof=1) / count**0.5) if count > 1 else np.nan
    return Row(name, rule, mean, None, None, count, seed_of(name), None, mean - wide, mean + wide)
