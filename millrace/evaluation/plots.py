"""Figures of passes as plots: over the stream, by lag, by segment of users.

Drawn without a display, on white, in colours that people with colour blindness can tell apart (Okabe and Ito, 2008).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from millrace.errors import MillraceError
from millrace.evaluation.figures import Figures, Rate
from millrace.evaluation.paired import Blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes

Metric = Literal["hr", "mrr"]
METRICS: Mapping[Metric, str] = {"hr": "HR", "mrr": "MRR"}
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
POINTS = 50
"""Of a line over the stream: each the mean of a fiftieth of the answers."""
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text: half as large
    "svg.hashsalt": "millrace",  # the same figures give the same file
}


def check() -> None:
    """Raises MillraceError where plots cannot be drawn."""
    if find_spec("matplotlib") is None:
        raise MillraceError("plots need matplotlib: pip install 'millrace[evaluate]'")


@contextmanager
def figure(path: Path, panels: int, rows: int = 1) -> Iterator[list[Axes]]:
    """Rows of panels, one after the other, written to ``path`` (.svg or .png) at the end."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        drawing = Figure(figsize=(3.6 * panels + 0.6, 3.0 * rows), layout="constrained", facecolor="white")
        FigureCanvasAgg(drawing)
        axes = drawing.subplots(rows, panels, squeeze=False).ravel().tolist()
        yield axes
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        drawing.savefig(path, dpi=120, metadata=metadata)


def draw(folder: Path, name: str, k: int, found: Sequence[tuple[str, Figures]]) -> list[Path]:
    """Draw the passes of a stream, each with its lag, into a folder; the files."""
    check()
    paths = [folder / "stream.png", folder / "segments.png"]
    with figure(paths[0], len(METRICS)) as axes:
        for metric, panel in zip(METRICS, axes, strict=True):
            over_stream(panel, metric, k, [(f"lag {lag}", one.blocks) for lag, one in found])
            panel.set_title(name)
    with figure(paths[1], len(METRICS)) as axes:
        for metric, panel in zip(METRICS, axes, strict=True):
            rates = [
                (f"lag {lag}", {group: getattr(one, metric) for group, one in figures.segments.items()})
                for lag, figures in found
            ]
            by_name(panel, metric, k, "segment of users", rates)
            panel.set_title(name)
    if len(found) > 1:
        paths.append(folder / "lag.png")
        with figure(paths[-1], len(METRICS)) as axes:
            for metric, panel in zip(METRICS, axes, strict=True):
                by_lag(panel, metric, k, [(lag, (getattr(one, metric), *one.ci95[metric])) for lag, one in found])
                panel.set_title(name)
    return paths


def over_stream(panel: Axes, metric: Metric, k: int, lines: Sequence[tuple[str, Blocks]]) -> None:
    """A line for each pass: the metric of its answers as the stream goes on."""
    for (label, blocks), colour in zip(lines, _colours(len(lines)), strict=True):
        cuts = np.linspace(0, len(blocks.starts), min(POINTS, len(blocks.starts)), endpoint=False).astype(int)
        means = np.add.reduceat(blocks.sums[metric], cuts) / np.add.reduceat(blocks.weights, cuts)
        panel.plot([blocks.starts[cut] for cut in cuts], means, color=colour, label=label, linewidth=1.2)
    panel.xaxis.set_major_formatter(lambda place, _: f"{place:,.0f}")
    panel.locator_params(axis="x", nbins=5)
    _name_axes(panel, "events gone through", metric, k)
    panel.set_ylim(bottom=0)
    if len(lines) > 1:
        panel.legend()


def by_lag(panel: Axes, metric: Metric, k: int, points: Sequence[tuple[str, Rate]]) -> None:
    """The metric at each lag, in the order given, with intervals."""
    _points(panel, [value for _, value in points], COLOURS[0], 0.0, "")
    panel.set_xticks(range(len(points)), [lag for lag, _ in points])
    _name_axes(panel, "learning lag (0 is live)", metric, k)
    panel.set_ylim(bottom=0)


def by_name(panel: Axes, metric: Metric, k: int, what: str, groups: Sequence[tuple[str, Mapping[str, Rate]]]) -> None:
    """The metric of named parts, for each of some passes."""
    names = sorted({name for _, rates in groups for name in rates})
    for place, ((label, rates), colour) in enumerate(zip(groups, _colours(len(groups)), strict=True)):
        shift = (place - (len(groups) - 1) / 2) * min(0.15, 0.8 / len(groups))
        nothing = (np.nan, np.nan, np.nan)
        _points(panel, [rates.get(name, nothing) for name in names], colour, shift, label)
    panel.set_xticks(range(len(names)), names)
    panel.set_xlim(-0.5, len(names) - 0.5)
    _name_axes(panel, what, metric, k)
    panel.set_ylim(bottom=0)
    if len(groups) > 1:
        panel.legend()


def _points(panel: Axes, values: Sequence[Rate], colour: str, shift: float, label: str) -> None:
    middle, low, high = np.array(values, dtype=np.float64).T
    places = np.arange(len(values)) + shift
    panel.plot(places, middle, "o", color=colour, markersize=4, label=label)
    # No bar where there are too few answers for an interval.
    sure = np.isfinite(low)
    panel.vlines(places[sure], low[sure], high[sure], color=colour, linewidth=1.2)


def _name_axes(panel: Axes, x: str, metric: Metric, k: int) -> None:
    panel.set_xlabel(x)
    panel.set_ylabel(f"{METRICS[metric]}@{k} (fraction of 1)")


def _colours(number: int) -> list[str]:
    return [COLOURS[place % len(COLOURS)] for place in range(number)]
