"""The pictures at the end of the demo."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deploy.demo.comparison import SHIFT_AFTER, Comparison
from millrace.evaluation.plots import COLOURS, figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CLICK_THROUGH, NIGHTLY = "click-through.svg", "live-against-nightly.svg"
_GREY = "#777777"


@contextmanager
def _panel(path: Path) -> Iterator[Axes]:
    """One panel as wide as two."""
    with figure(path, 2) as (panel, beside):
        beside.remove()
        if (grid := panel.get_gridspec()) is not None:
            panel.set_subplotspec(grid[:])
        yield panel


def draw_story(samples: Sequence[tuple[float, float]], marks: Sequence[tuple[float, str]], path: Path) -> None:
    """Click-through of the demo's shop over its minutes, with what happened.

    Parameters
    ----------
    samples
        Minute, and click-through of the half minute before.
    marks
        Minute, and what happened then.
    """
    with _panel(path) as panel:
        panel.plot([at for at, _ in samples], [100 * share for _, share in samples], color=COLOURS[0], linewidth=1.4)
        for place, (at, word) in enumerate(marks):
            panel.axvline(at, color=_GREY, linestyle="--", linewidth=0.8)
            panel.annotate(
                word, (at, 0.03 + 0.07 * (place % 4)), xycoords=("data", "axes fraction"), fontsize=7, color=_GREY
            )
        panel.set_xlabel("minutes")
        panel.set_ylabel("click-through, % (half a minute)")
        panel.set_ylim(bottom=0)
        panel.set_title("The demo's shop, on the whole pipeline")


def draw_comparison(found: Comparison, path: Path) -> None:
    """Live against nightly, by day of the simulated month."""
    names = {"live": "live learning", "nightly": "nightly retraining"}
    with _panel(path) as panel:
        for (way, name), colour in zip(names.items(), COLOURS, strict=False):
            days = 100 * np.array(found.days[way])
            panel.plot(np.arange(1, len(days) + 1), days, color=colour, label=name, linewidth=1.4)
        panel.axvline(SHIFT_AFTER + 0.5, color=_GREY, linestyle="--", linewidth=0.8)
        panel.set_xlabel("day; tastes shift at the dashed line")
        panel.set_ylabel("click-through, %")
        panel.set_ylim(bottom=0)
        panel.set_title("Simulated days without servers, the same click model", fontsize=8)
        panel.legend(fontsize=7)
