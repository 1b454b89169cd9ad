"""The plot of ``docs/freshness-in-simulation.md``: click-through by day, a panel for each world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from millrace.evaluation.plots import COLOURS, figure
from millrace.simulation.catalogue import Floats
from millrace.simulation.paired import WINDOW_DAYS


def draw(months: Sequence[Mapping[str, Any]], names: Mapping[str, str], path: Path) -> None:
    """Draw the months beside each other; ``names`` says what to call each arm."""
    with figure(path, len(months)) as axes:
        for one, panel in zip(months, axes, strict=True):
            _by_day(panel, one, names)
        axes[0].set_ylabel("click-through, %")
        axes[-1].legend(fontsize=7, ncols=2)


def _by_day(panel: Axes, month: Mapping[str, Any], names: Mapping[str, str]) -> None:
    shift = month["shift_after"]
    arms = month["figures"]["click_through"]
    for (arm, name), colour in zip(names.items(), COLOURS, strict=False):
        means = 100 * window_means(arms[arm]["by_day"], shift)
        panel.plot(np.arange(1, len(means) + 1), means, color=colour, label=name, linewidth=1.2)
    panel.axvline(shift + 0.5, color="#777777", linestyle="--", linewidth=1)
    panel.annotate("tastes shift", (shift + 0.7, 0.02), xycoords=("data", "axes fraction"), fontsize=7, color="#777777")
    panel.set_title(f"{month['world']}, seed {month['seed']}")
    panel.set_xlabel(f"day (mean of up to {WINDOW_DAYS})")
    # Room for the names of six arms.
    panel.set_ylim(bottom=0, top=panel.get_ylim()[1] * 1.2)


def window_means(by_day: Sequence[float], shift: int) -> Floats:
    """Of each day and up to two before it, none of them from the other side of the shift: float64[days]."""
    values = np.array(by_day, dtype=np.float64)
    begins = [max(shift if day >= shift else 0, day + 1 - WINDOW_DAYS) for day in range(len(values))]
    means: Floats = np.array([values[begin : day + 1].mean() for day, begin in enumerate(begins)])
    return means
