"""What of a month is kept: each arm's click-through and conversion, what live is above it, and how it recovers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from millrace.simulation.catalogue import Floats
from millrace.simulation.figures import Estimate
from millrace.simulation.paired import (
    WINDOW_DAYS,
    days_until_recovered,
    figure,
    recovery_draws,
    recovery_interval,
    relative,
)
from millrace.simulation.worlds import WorldKind

FIGURES = ("click_through", "conversion")
BASE, NIGHTLY = "live", "nightly"


def figures_of(counts: Mapping[str, Floats], kind: WorldKind, seed: int) -> dict[str, dict[str, Any]]:
    """Figure -> arm -> what is known of it.

    Parameters
    ----------
    counts
        Of each arm: float64[days, shoppers, len(Count)], the warm-up included.

    Returns
    -------
    ``all``, ``before``, ``first`` (days after the shift) and ``after``: value and the ends of its interval, as
    fractions of 1. ``live_above``: the same spans, how much higher live is, as a share. ``first_change`` and
    ``after_change``: against the arm's own days before. ``recovered``: days and the ends of their interval, null where
    that is not within the run. ``live_back``: shares of the draws of shoppers in which live is back earlier, and later.
    ``by_day``: values.
    """
    warm, shift = kind.warm_up_days, kind.plan.shift_on
    if shift is None:
        raise ValueError("a month whose tastes do not shift has no days after it")
    spans = {
        "all": slice(warm, None),
        "before": slice(warm, shift),
        "first": slice(shift, shift + WINDOW_DAYS),
        "after": slice(shift, None),
    }
    totals = {arm: {span: of_days[days].sum(axis=0) for span, days in spans.items()} for arm, of_days in counts.items()}
    found: dict[str, dict[str, Any]] = {}
    for what in FIGURES:
        found[what] = {}
        # The same draws of shoppers for every arm.
        draws = {
            arm: recovery_draws(of_days, what, shift, shift - warm, np.random.default_rng(seed))
            for arm, of_days in counts.items()
        }
        for arm, own in totals.items():
            one: dict[str, Any] = {span: _rate(figure(total, what)) for span, total in own.items()}
            for span in ("first", "after"):
                one[f"{span}_change"] = _rate(relative(own[span], own["before"], what))
            if arm != BASE:
                one["live_above"] = {
                    span: _rate(relative(totals[BASE][span], total, what)) for span, total in own.items()
                }
                one["live_back"] = [
                    float((draws[BASE] < draws[arm]).mean()),
                    float((draws[BASE] > draws[arm]).mean()),
                ]
            took = days_until_recovered(counts[arm], what, shift, shift - warm)
            one["recovered"] = [took, *recovery_interval(draws[arm])]
            one["by_day"] = [round(figure(day, what).value, 6) for day in counts[arm][warm:]]
            found[what][arm] = one
    return found


def lowest(by_day: Sequence[float]) -> float:
    """The lowest mean of ``WINDOW_DAYS`` days against the mean of all, as a share of it."""
    values = np.array(by_day)
    windows = np.convolve(values, np.full(WINDOW_DAYS, 1 / WINDOW_DAYS), mode="valid")
    return float(windows.min() / values.mean() - 1)


def _rate(estimate: Estimate) -> list[float]:
    return [round(value, 6) for value in (estimate.value, estimate.low, estimate.high)]
