"""``docs/quality.md``, written from ``quality.json`` alone: what was not measured is said to be that."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from benchmarks.quality.drawings import draw, rate
from benchmarks.quality.results import METRICS, Results, Row
from benchmarks.quality.runs import (
    ABLATIONS,
    AIMS,
    HEADLINES,
    LIVE_AND_WEEKLY,
    RECOMMEND_US,
    SERIES,
    TUNED,
    Aim,
    Series,
    Without,
    all_runs,
)
from millrace.evaluation.parts import PARTS

DOCUMENT = Path(__file__).parents[2] / "docs" / "quality.md"
Differences: TypeAlias = Mapping[tuple[str, str, str], Row]
"""What a row has above another: by their names, the better one first, and the metric."""
NAMES = {"hr": "HR", "recall": "recall", "mrr": "MRR", "ndcg": "NDCG"}

_HEAD = """\
# How good the recommendations are, and what freshness is worth

Written by `make evaluate` from `benchmarks/results/quality.json`; do not edit it by hand. A row is a command of
`millrace evaluate`: candidates, features, ranking and learning of production, each event asked for before it is
learned, all items ranked, ties against us. In brackets 95 % intervals (block bootstrap over the stream: what other
stretches of the same stream would have given). `make evaluate ARGS="--only NAME --again"` measures rows anew.

Rows whose name ends in `.tuned` have settings that `millrace tune` chose on events that are not counted; all others
have the settings that the table of commands below says, the defaults if it says none. No setting knows a data set.
"""

_FRESHNESS = """\
## The value of freshness

The same model, learning each event later: in one batch at each boundary of the lag. What the request tells of the user
is known at once in every row, as where a shop sends its visit's clicks along. Asked before every fifth eligible event,
the same ones in each row, so that differences are paired. *Live above it*: how much higher the figure is with lag 0.
"""

_PARTS = """\
## What each part adds

The same pass without one part: its generator proposes no candidates, its features do not count from the first ranker
on, and the others make up for it where they can. *Adds*: how much higher the figure is with everything, before the
same events; the absolute difference. Without repeats others may still propose what the user has seen, and nothing
tells that it was seen; leaving such items out is something else, `MILLRACE_RECOMMENDER_REPEAT_POLICY=exclude`.
"""

_FIGURES = """\
## All figures

HR, MRR, NDCG: of the k best. candidate: share of the answers in which the item that came was ranked at all. MPR: mean
percentile rank, 0 is best. coverage: share of all items that were in any answer. bias: how many times as popular the
items of answers were as the average item. Times: processor time, 90th percentile.
"""

_COMMANDS = """\
## Commands

`MILLRACE_DATA` is the folder of the data sets. Seconds: wall time; of a row that was interrupted, since it went on.
"""


def write(results: Results, document: Path = DOCUMENT) -> None:
    """Write the document and its plots, which go into a folder of its name."""
    plots = draw(results, document.with_suffix(""))
    links = {name: f"{path.parent.name}/{path.name}" for name, path in plots.items()}
    document.parent.mkdir(parents=True, exist_ok=True)
    document.write_text("\n".join(_lines(results, links)), encoding="utf-8")


def _lines(results: Results, plots: Mapping[str, str]) -> Iterator[str]:
    yield _HEAD
    yield from _missing(results)
    yield from _aims(results)
    yield from _figures(results)
    if "stream" in plots:
        yield f"## Over the stream\n\n![HR and MRR as the stream goes on]({plots['stream']})\n"
    yield _FRESHNESS
    differences = {(one["better"], one["worse"], one["metric"]): one for one in results.differences()}
    for series in SERIES:
        yield from _series(series, results, differences, plots)
    yield from _live_and_weekly(results, differences)
    yield from _parts(results, differences)
    if "segments" in plots:
        yield f"## By segment of users\n\n![HR and MRR by segment of users]({plots['segments']})\n"
    yield from _commands(results)


def _missing(results: Results) -> Iterator[str]:
    names = [f"`{run.name}`" for run in all_runs() if run.name not in results.rows]
    if names:
        yield f"**Not measured yet** ({len(names)} of {len(all_runs())} rows): {', '.join(names)}.\n"
    codes = {row["code"] for row in results.rows.values()}
    if len(codes) > 1:
        yield f"**The rows are of {len(codes)} states of the code** (see Commands); they are not compared across.\n"


def _aims(results: Results) -> Iterator[str]:
    yield "## Beside published figures\n"
    yield "| data, protocol | figure | published | floor | goal | measured | |\n|---|---|---|---|---|---|---|"
    runs = {run.name: run for run in all_runs()}
    names = [name + end for name in AIMS for end in ("", TUNED) if name + end in runs]
    for run in (runs[name] for name in names):
        row = results.rows.get(run.name)
        for aim in AIMS[run.name.removesuffix(TUNED)]:
            name = NAMES[aim.metric] + (f"@{row['k']}" if row else "")
            yield _line(run.title, name, aim.published, _aimed(aim.floor), _aimed(aim.goal), *_held(row, aim))
    quick = [row for row in results.rows.values() if row["name"] in {run.name for run in HEADLINES}]
    slowest = max(quick, key=lambda row: row[RECOMMEND_US.metric], default=None)
    held: Sequence[object] = ("not measured yet", "")
    if slowest:
        us = slowest[RECOMMEND_US.metric]
        held = f"{us:,.0f} µs ({slowest['name']})", _verdict(-us, RECOMMEND_US.floor, RECOMMEND_US.goal, -1)
    bounds = f"{RECOMMEND_US.floor:.0f} µs", f"{RECOMMEND_US.goal:.0f} µs"
    yield _line("slowest of these rows", "one recommendation, p90", RECOMMEND_US.published, *bounds, *held)
    yield ""


def _held(row: Row | None, aim: Aim) -> tuple[str, str]:
    if row is None:
        return "not measured yet", ""
    return _rate(row, aim.metric), _verdict(row[aim.metric], aim.floor, aim.goal)


def _verdict(value: float, floor: float | None, goal: float | None, sign: int = 1) -> str:
    if goal is not None and value >= sign * goal:
        return "goal"
    if floor is None:
        return "misses the goal"
    return "floor" if value >= sign * floor else "**misses the floor**"


def _figures(results: Results) -> Iterator[str]:
    yield _FIGURES
    columns = ("row", "k", "n", "HR", "MRR", "NDCG", "candidate", "MPR", "coverage", "bias", "recommend", "update")
    yield _line(*columns) + "\n" + "|---" * len(columns) + "|"
    for row in _rows(results):
        rates = (
            _rate(row, "hr"),
            _rate(row, "mrr"),
            f"{row['ndcg']:.4f}",
            f"{row['candidate']:.3f}",
            f"{row['mpr']:.3f}",
        )
        shown = (f"{row['coverage']:.3f}", f"{row['popularity_bias']:.1f}x")
        times = (f"{row['recommend_us_p90']:,.0f} µs", f"{row['update_us_p90']:,.0f} µs")
        yield _line(f"`{row['name']}`", row["k"], f"{row['n']:,}", *rates, *shown, *times)
    yield ""


def _series(series: Series, results: Results, differences: Differences, plots: Mapping[str, str]) -> Iterator[str]:
    yield f"### {series.title}\n"
    rows = [results.rows[name] for name in series.rows() if name in results.rows]
    if not rows:
        yield f'Not measured yet: `make evaluate ARGS="--only {series.name}.lag"`.\n'
        return
    yield "| lag | n | HR | live above it | MRR | live above it |\n|---|---|---|---|---|---|"
    live = series.rows()[0]
    for row in rows:
        cells = [cell for metric in METRICS for cell in (_rate(row, metric), _above(differences, live, row, metric))]
        yield _line(row["lag"], f"{row['n']:,}", *cells)
    yield ""
    if (plot := plots.get(f"lag-{series.name}")) is not None:
        yield f"![HR and MRR by learning lag]({plot})\n"


def _live_and_weekly(results: Results, differences: Differences) -> Iterator[str]:
    yield "## Learning live above learning weekly\n"
    yield "Over the same events; the absolute difference.\n"
    yield "| rows | HR | MRR |\n|---|---|---|"
    for better, worse in LIVE_AND_WEEKLY:
        cells = [_higher(results, differences, better, worse, metric) for metric in METRICS]
        yield _line(f"`{better}` - `{worse}`", *cells)
    yield ""


def _parts(results: Results, differences: Differences) -> Iterator[str]:
    yield _PARTS
    for name, part in PARTS.items():
        yield f"- *{name}*: {part.what}"
    yield ""
    for ablation in ABLATIONS:
        yield from _without(ablation, results, differences)


def _without(ablation: Without, results: Results, differences: Differences) -> Iterator[str]:
    yield f"### {ablation.title}\n"
    everything = results.rows.get(ablation.everything)
    if everything is None:
        yield f'Not measured yet: `make evaluate ARGS="--only {ablation.name}.without"`.\n'
        return
    yield "| without | n | HR | adds | MRR | adds |\n|---|---|---|---|---|---|"
    yield _line("nothing", f"{everything['n']:,}", _rate(everything, "hr"), "", _rate(everything, "mrr"), "")
    for part in ablation.parts:
        name = ablation.row(part)
        row = results.rows.get(name)
        if row is None:
            yield _line(part, "", *("not measured yet", "") * len(METRICS))
            continue
        adds = {metric: _higher(results, differences, ablation.everything, name, metric) for metric in METRICS}
        cells = [cell for metric in METRICS for cell in (_rate(row, metric), adds[metric])]
        yield _line(part, f"{row['n']:,}", *cells)
    yield ""


def _higher(results: Results, differences: Differences, better: str, worse: str, metric: str) -> str:
    found = differences.get((better, worse, metric))
    if found is not None:
        return _signed(found)
    return "cannot be compared" if {better, worse} <= results.rows.keys() else "not measured yet"


def _signed(one: Row) -> str:
    ends = one["absolute_ci95"]
    value = f"{one['absolute']:+.4f}"
    return value if ends is None else f"{value} [{ends[0]:+.4f}, {ends[1]:+.4f}]"


def _above(differences: Differences, live: str, late: Row, metric: str) -> str:
    if live == late["name"]:
        return ""
    found = differences.get((live, late["name"], metric))
    if found is None or found["relative_ci95"] is None:
        return "cannot be compared"
    return "{:+.1f} % [{:+.1f}, {:+.1f}]".format(*(100 * x for x in (found["relative"], *found["relative_ci95"])))


def _commands(results: Results) -> Iterator[str]:
    yield _COMMANDS
    columns = ("row", "command", "settings", "events", "checksum", "seed", "code", "seconds", "machine")
    yield _line(*columns) + "\n" + "|---" * len(columns) + "|"
    for row in _rows(results):
        settings = "<br>".join(f"`{name}={value}`" for name, value in row["settings"].items()) or "defaults"
        if row["tuning"]:
            gain = "{:+.4f} [{:+.4f}, {:+.4f}]".format(*row["tuning"]["confirmed"]["gain"])
            settings += f"<br>HR + MRR on later events of the past: {gain}"
        code = f"{row['code']} ({row['commit']})"
        events = (f"{row['events']:,}", f"`{row['checksum']}`", row["seed"])
        yield _line(f"`{row['name']}`", f"`{row['command']}`", settings, *events, code, row["wall_s"], row["machine"])
    yield ""


def _rows(results: Results) -> list[Row]:
    return [results.rows[run.name] for run in all_runs() if run.name in results.rows]


def _line(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _rate(row: Row, metric: str) -> str:
    value, low, high = rate(row, metric)
    return f"{value:.4f}" if math.isnan(low) else f"{value:.4f} [{low:.4f}, {high:.4f}]"


def _aimed(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
