"""What it costs to find out which of several arms is the best: Thompson sampling against equal shares."""

from __future__ import annotations

import numpy as np

from benchmarks.watched import BLOCK, SLOTS, Floats
from millrace.experiments.thompson import bernoulli_best, shares

RATES = np.linspace(0.03, 0.065, 8)
# A fifth of the traffic goes on exploring for ever, whatever is known.
FLOOR = 0.025


def regrets(runs: int, seed: int) -> tuple[Floats, Floats]:
    """Expected clicks lost by the end of each period, mean over runs: Thompson, uniform."""
    rng = np.random.default_rng(seed)
    arms = len(RATES)
    slots, clicks = np.zeros((runs, arms)), np.zeros((runs, arms))
    share: Floats = np.full((runs, arms), 1 / arms)
    lost, gap = [], RATES.max() - RATES
    for _ in range(SLOTS // BLOCK):
        shown = rng.multinomial(BLOCK, share)
        slots += shown
        clicks += rng.binomial(shown, RATES)
        lost.append(float((slots @ gap).mean()))
        share = shares(bernoulli_best(clicks, slots), FLOOR)
        # Rounding must not make the shares more than 1.
        share /= share.sum(axis=1, keepdims=True)
    uniform = BLOCK * gap.mean() * np.arange(1, SLOTS // BLOCK + 1)
    return np.array(lost), np.asarray(uniform)
