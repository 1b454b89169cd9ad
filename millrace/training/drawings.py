"""Plots of a training run: calibration, lift by segment, how far features moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from millrace.evaluation.plots import COLOURS, figure
from millrace.training.measure import Measured
from millrace.training.reference import Values

FEATURES_MAX = 12
"""Of those that moved most."""


def draw_calibration(path: Path, measured: Measured, contenders: Sequence[str]) -> None:
    """Predicted against observed click-through of each contender, on the newest part."""
    with figure(path, 1) as (panel,):
        most = 0.0
        for name, colour in zip(contenders, COLOURS, strict=False):
            found = measured.calibration[name]
            there = found.count > 0
            predicted, clicked = (sums[there] / found.count[there] for sums in (found.predicted, found.clicked))
            error = np.sqrt(clicked * (1 - clicked) / found.count[there])
            panel.errorbar(
                predicted, clicked, yerr=1.96 * error, fmt="o-", color=colour, markersize=3, linewidth=1, label=name
            )
            most = max(most, predicted.max(initial=0.0), clicked.max(initial=0.0))
        panel.plot([0, most], [0, most], color="#888888", linewidth=0.8, linestyle="--")
        panel.set_xlabel("predicted probability of a click")
        panel.set_ylabel("share clicked, ± 1.96 standard errors")
        panel.legend()


def draw_lift(path: Path, measured: Measured, new: str, others: Mapping[str, str], level: float, seed: int) -> None:
    """How much lower the log loss of ``new`` is, in each group with slots; ``others``: contender -> its name."""
    groups = measured.groups
    with figure(path, 1) as (panel,):
        for number, ((other, label), colour) in enumerate(zip(others.items(), COLOURS[1:], strict=False)):
            gains = [measured.gain(new, other, group, level, seed) for group in groups]
            before = np.array([measured.loss(other, group) for group in groups])
            middle, low, high = (
                np.array([getattr(gain, what) for gain in gains]) / before * 100 for what in ("value", "low", "high")
            )
            places = np.arange(len(groups)) + 0.15 * (number - (len(others) - 1) / 2)
            panel.plot(places, middle, "o", color=colour, markersize=4, label=f"over {label}")
            sure = np.isfinite(low)
            panel.vlines(places[sure], low[sure], high[sure], color=colour, linewidth=1.2)
        panel.axhline(0, color="#888888", linewidth=0.8)
        panel.set_xticks(range(len(groups)), groups, rotation=30, ha="right")
        panel.set_xlim(-0.5, len(groups) - 0.5)
        panel.set_ylabel(f"log loss saved (%), {level:.0%} bounds")
        panel.legend()


def draw_moved(path: Path, values: Sequence[Values]) -> None:
    """Share of each feature's newest values that are elsewhere than the earlier ones."""
    moved = sorted(((each.moved(), each.name) for each in values), reverse=True)[:FEATURES_MAX]
    with figure(path, 1) as (panel,):
        panel.barh([name for _, name in moved], [share for share, _ in moved], color=COLOURS[0])
        panel.invert_yaxis()
        panel.set_xlabel("share of its values that moved, at least")
        panel.margins(y=0.01)
