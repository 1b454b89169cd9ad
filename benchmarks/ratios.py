"""Sample-ratio tests on thousands of simulated splits, looked at after every user."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from benchmarks.watched import NAIVE_EVERY, RUNS_AT_ONCE, SLOTS
from millrace.experiments.srm import ALPHA, log_evidence

Ints = npt.NDArray[np.int64]
# Quantile of the normal distribution for a two-sided test at .01.
Z_01 = 2.5758


def tolerated(users: int = SLOTS) -> Ints:
    """The fewest users of one of two equal arms, of n = 1, 2, ... users, that are no mismatch.

    The evidence is convex in the count and least in its middle: what is below this, or as far above the middle, is a
    mismatch, so that a run needs a comparison for each user and no logarithm.
    """
    n = np.arange(1, users + 1)
    # Between them lies the first count that is borne; -1 never is one.
    refused, borne = np.full(users, -1), n // 2
    while (borne - refused > 1).any():
        middle = (refused + borne) // 2
        too_few = log_evidence(np.stack([middle, n - middle], axis=1).clip(0), [0.5, 0.5]) >= -np.log(ALPHA)
        open_ = borne - refused > 1
        refused = np.where(open_ & too_few, middle, refused)
        borne = np.where(open_ & ~too_few, middle, borne)
    return borne


def alarms(share: float, runs: int, seed: int) -> Ints:
    """Users until the sequential test against an equal split fires, in each run; 0: never within 40,000."""
    n, least = np.arange(1, SLOTS + 1), tolerated()
    return _first(share, runs, seed, n, least)


def naive_alarms(share: float, runs: int, seed: int) -> Ints:
    """The same for the chi-square test, looked at 100 times."""
    n = np.arange(1, SLOTS + 1)
    least = np.where(n % NAIVE_EVERY == 0, np.ceil(n / 2 - Z_01 * np.sqrt(n) / 2), 0).astype(np.int64)
    return _first(share, runs, seed, n, least)


def _first(share: float, runs: int, seed: int, n: Ints, least: Ints) -> Ints:
    rng = np.random.default_rng(seed)
    first = np.zeros(runs, dtype=np.int64)
    for start in range(0, runs, RUNS_AT_ONCE):
        here = first[start : start + RUNS_AT_ONCE]
        count = np.cumsum(rng.random((len(here), SLOTS), dtype=np.float32) < share, axis=1)
        outside = np.minimum(count, n - count) < least
        here[:] = np.where(outside.any(axis=1), outside.argmax(axis=1) + 1, 0)
    return first
