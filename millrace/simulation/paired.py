"""Figures of the same shoppers in two shops, and how long one takes to recover.

The shops have the same visitors with the same coins, so that what a shopper does in one goes with what the same
shopper does in the other: differences are taken shopper by shopper. As in ``figures``, the error of a ratio of sums
comes from linearised residuals (delta method).
"""

from __future__ import annotations

import math

import numpy as np

from millrace.simulation.catalogue import Floats
from millrace.simulation.figures import RATIOS, Estimate, ratio

WINDOW_DAYS = 3
"""Days whose mean tells how a shop does: a single one is mostly noise."""
RECOVERED = 0.95
"""Share of the level before that counts as back."""
DRAWS = 1_000
"""Of shoppers, for an interval of days: more move its ends by no whole day."""


def figure(totals: Floats, name: str) -> Estimate:
    """A figure (see ``RATIOS``) of a shop: totals float64[shoppers, len(Count)]."""
    numerator, denominator = RATIOS[name]
    return ratio(totals[:, numerator], totals[:, denominator])


def relative(totals: Floats, base: Floats, name: str) -> Estimate:
    """How much higher a figure is than in another shop with the same shoppers, as a share of it.

    Parameters
    ----------
    totals, base
        float64[shoppers, len(Count)] of either shop, the same shopper in the same row.

    Returns
    -------
    NaN if the other's figure is 0.
    """
    numerator, denominator = RATIOS[name]
    own, others = figure(totals, name).value, figure(base, name).value
    if not others:
        return Estimate(math.nan, math.nan)
    own_residuals = (totals[:, numerator] - own * totals[:, denominator]) / totals[:, denominator].sum()
    other_residuals = (base[:, numerator] - others * base[:, denominator]) / base[:, denominator].sum()
    told = (totals[:, denominator] > 0) | (base[:, denominator] > 0)
    residuals = (own_residuals - own / others * other_residuals)[told] / others
    n = len(residuals)
    error = math.sqrt(n / (n - 1) * float(residuals @ residuals)) if n > 1 else math.nan
    return Estimate(own / others - 1, error)


def days_until_recovered(counts: Floats, name: str, shift_on: int, level_days: int) -> int | None:
    """Days after a shift until the mean of the last three is back at 95 % of the level before it.

    Parameters
    ----------
    counts
        float64[days, shoppers, len(Count)].
    shift_on
        The first day after the shift.
    level_days
        Days before it whose mean is the level.

    Returns
    -------
    1 is the first day after the shift, and no window reaches back before it: the earliest answer is 3. None: not
    within the run.
    """
    everyone = np.ones((1, counts.shape[1]))
    return _days(_until_recovered(everyone, counts, name, shift_on, level_days)[0])


def recovery_draws(counts: Floats, name: str, shift_on: int, level_days: int, random: np.random.Generator) -> Floats:
    """``days_until_recovered`` of 1,000 draws of as many shoppers (bootstrap); infinite where that is not in the run.

    Generators of one seed draw the same shoppers, so that two shops can be compared draw by draw.
    """
    shoppers = counts.shape[1]
    drawn = random.multinomial(shoppers, np.full(shoppers, 1 / shoppers), size=DRAWS).astype(np.float64)
    return _until_recovered(drawn, counts, name, shift_on, level_days)


def recovery_interval(draws: Floats) -> tuple[int | None, int | None]:
    """Ends of the 95 % interval of ``days_until_recovered``; None: not within the run."""
    low, high = np.quantile(draws, (0.025, 0.975), method="inverted_cdf")
    return _days(low), _days(high)


def _until_recovered(weights: Floats, counts: Floats, name: str, shift_on: int, level_days: int) -> Floats:
    """As ``days_until_recovered`` with so much of each shopper: float64[draws, shoppers] -> float64[draws]; or inf."""
    numerator, denominator = RATIOS[name]
    tops, bottoms = weights @ counts[:, :, numerator].T, weights @ counts[:, :, denominator].T

    def mean(first: int, last: int) -> Floats:
        with np.errstate(invalid="ignore"):
            means: Floats = tops[:, first:last].sum(axis=1) / bottoms[:, first:last].sum(axis=1)
        return means

    level = mean(shift_on - level_days, shift_on)
    took: Floats = np.full(len(weights), np.inf)
    for last in range(len(counts), shift_on + WINDOW_DAYS - 1, -1):
        took[mean(last - WINDOW_DAYS, last) >= RECOVERED * level] = last - shift_on
    return took


def _days(took: float) -> int | None:
    return int(took) if math.isfinite(took) else None
