"""The plots of ``docs/quality.md``, from what ``quality.json`` and the blocks beside it say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes

from benchmarks.quality.results import Results, Row
from benchmarks.quality.runs import HEADLINES, SERIES, Series
from millrace.evaluation.figures import Rate
from millrace.evaluation.plots import METRICS, Metric, by_lag, by_name, figure, over_stream

NOT_SURE = (float("nan"), float("nan"))


def draw(results: Results, folder: Path) -> dict[str, Path]:
    """Draw what there is; the files by what they show: ``stream``, ``segments``, ``lag-NAME``. Others there go."""
    found: dict[str, Path] = {}
    headlines = [run.name for run in HEADLINES if run.name in results.rows]
    over = [name for name in headlines if name in results.blocks]
    if over:
        found["stream"] = folder / "stream.svg"
        _panels(found["stream"], [_stream(results, name) for name in over])
    if headlines:
        found["segments"] = folder / "segments.svg"
        _panels(found["segments"], [_segments(results.rows[name]) for name in headlines])
    for series in SERIES:
        rows = [results.rows[name] for name in series.rows() if name in results.rows]
        if len(rows) > 1:
            found[f"lag-{series.name}"] = folder / f"lag-{series.name}.svg"
            with figure(found[f"lag-{series.name}"], len(METRICS)) as axes:
                for metric, panel in zip(METRICS, axes, strict=True):
                    _lags(series, rows, metric, panel)
    for path in folder.glob("*.svg"):
        if path not in found.values():
            path.unlink()
    return found


def _panels(path: Path, draws: Sequence[Callable[[Metric, Axes], None]]) -> None:
    """A row of panels for each drawing: HR and MRR."""
    with figure(path, len(METRICS), rows=len(draws)) as axes:
        for place, panel in enumerate(axes):
            draws[place // len(METRICS)](list(METRICS)[place % len(METRICS)], panel)


def _stream(results: Results, name: str) -> Callable[[Metric, Axes], None]:
    def draw_one(metric: Metric, panel: Axes) -> None:
        over_stream(panel, metric, results.rows[name]["k"], [(name, results.blocks[name])])
        panel.set_title(name)

    return draw_one


def _segments(row: Row) -> Callable[[Metric, Axes], None]:
    def draw_one(metric: Metric, panel: Axes) -> None:
        rates = {f"{name}\nn = {one['n']:,}": rate(one, metric) for name, one in row["segments"].items()}
        by_name(panel, metric, row["k"], "segment of users", [(row["name"], rates)])
        panel.set_title(row["name"])

    return draw_one


def _lags(series: Series, rows: Sequence[Row], metric: Metric, panel: Axes) -> None:
    by_lag(panel, metric, rows[0]["k"], [(row["lag"], rate(row, metric)) for row in rows])
    panel.set_title(series.title)


def rate(row: Row, metric: str) -> Rate:
    """A row's metric with the ends of its interval; nan where there is none."""
    low, high = row["ci95"].get(metric) or NOT_SURE
    return row[metric], low, high
