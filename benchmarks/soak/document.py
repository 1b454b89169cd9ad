"""``docs/soak.md``, written from ``results/soak.json`` alone: what was not measured is said to be that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np

from benchmarks.soak import figures
from benchmarks.soak.figures import DESCRIPTORS_MORE, GROWTH_LIMIT, LAG_MORE, LAG_TIMES, Verdict
from benchmarks.soak.samples import Soak
from millrace.evaluation.plots import COLOURS, figure

DOCUMENT = Path(__file__).parents[2] / "docs" / "soak.md"
NOT_MEASURED = "Not measured yet."

_HEAD = f"""\
# Soak: does anything grow while it runs?

Written by `make soak` from `benchmarks/results/soak.json`; do not edit it by hand. The whole pipeline as `make run`
starts it, with simulated shoppers; a process is sampled together with those that it started. `SOAK_MINUTES=60 make
soak` takes longer and tells more.

Memory is proportional set size (pages that processes share are shared out among them). Its growth by the hour is a
least squares slope; the 95 % interval respects autocorrelation (Newey and West after prewhitening, Andrews and Monahan
1992). The rules, fixed beforehand: memory is *flat* if the interval lies below {GROWTH_LIMIT:.0%} of the process's
memory an hour, *grows* if it lies above, and otherwise *unclear*: a longer soak decides. Descriptors are flat if the
last quarter has at most {DESCRIPTORS_MORE} more than the first half had at most. Lag is bounded if in the second half
it is at most {LAG_TIMES:g} times the most of the first, and {LAG_MORE} records.
"""


@dataclass(frozen=True, slots=True)
class Line:
    """What is said of a process or a group, and whether that is as it should be."""

    text: str
    verdict: Verdict


def processes(soak: Soak) -> list[Line]:
    """A row of the table for each process; one that was started anew grows."""
    found = []
    for name, one in soak.processes.items():
        slope = figures.slope(soak.at_s, one.pss_mib)
        memory, open_files = figures.memory(slope, mean(one.pss_mib)), figures.descriptors(one.descriptors)
        again = len(one.pids) - 1
        verdict: Verdict = "grows" if again or open_files == "grows" else memory
        cells = (
            name,
            f"{mean(one.pss_mib):.0f}",
            f"{max(one.rss_mib):.0f}",
            f"{slope.per_hour:+.1f} ({slope.low:+.1f} to {slope.high:+.1f})",
            _bold(memory),
            f"{min(one.descriptors)} to {max(one.descriptors)}, {_bold(open_files)}",
            f"{min(one.threads)} to {max(one.threads)}",
            f"**{again}**" if again else "0",
        )
        found.append(Line(f"| {' | '.join(cells)} |", verdict))
    return found


def groups(soak: Soak) -> list[Line]:
    """A row of the table for each consumer group."""
    found = []
    for name, records in soak.lag.items():
        verdict = figures.lag(records)
        middle, most = np.percentile(records, [50, 100])
        bounded = "bounded" if verdict == "flat" else "**grows**"
        found.append(Line(f"| {name} | {middle:.0f} | {most:.0f} | {bounded} |", verdict))
    return found


def write(soak: Soak | None, document: Path = DOCUMENT) -> None:
    """Write the document, and its plot into a folder of its name."""
    plot = ""
    if soak is not None:
        drawn = document.with_suffix("") / "soak.svg"
        _draw(soak, drawn)
        plot = f"{drawn.parent.name}/{drawn.name}"
    document.parent.mkdir(parents=True, exist_ok=True)
    document.write_text("\n".join(_lines(soak, plot)) + "\n", encoding="utf-8")


def _lines(soak: Soak | None, plot: str) -> Iterator[str]:
    yield _HEAD
    if soak is None:
        yield NOT_MEASURED
        return
    yield (
        f"{soak.at_s[-1] / 60:.1f} minutes after {soak.warm_up_s / 60:.1f} minutes of warm-up, "
        f"{len(soak.at_s)} samples, {soak.pages_per_s:g} pages/s, {soak.measured_on}, {soak.machine}.\n"
    )
    yield "| process | memory, MiB | RSS at most | growth, MiB an hour | memory is | descriptors | threads | restarts |"
    yield "|---|---|---|---|---|---|---|---|"
    yield from (line.text for line in processes(soak))
    yield "\n| group | lag, records: median | most | |\n|---|---|---|---|"
    yield from (line.text for line in groups(soak))
    yield f"\n![Memory of each process against its first sample, and lag of each group, over time]({plot})"


def _bold(verdict: Verdict) -> str:
    return verdict if verdict == "flat" else f"**{verdict}**"


def _draw(soak: Soak, path: Path) -> None:
    minutes = np.array(soak.at_s) / 60
    with figure(path, 2) as (memory, lag):
        for place, (name, one) in enumerate(soak.processes.items()):
            _plot(memory, minutes, [value - one.pss_mib[0] for value in one.pss_mib], name, place)
        memory.set(xlabel="minutes", ylabel="MiB more than at first")
        memory.legend(fontsize=5, ncols=2)
        for place, (name, records) in enumerate(soak.lag.items()):
            _plot(lag, minutes, records, name, place)
        lag.set(xlabel="minutes", ylabel="records of lag")
        lag.legend(fontsize=5)


def _plot(panel: object, minutes: object, values: Sequence[float], name: str, place: int) -> None:
    colour, dashes = COLOURS[place % len(COLOURS)], ("-", "--")[place // len(COLOURS) % 2]
    panel.plot(minutes, values, label=name, color=colour, linestyle=dashes, linewidth=0.9)  # type: ignore[attr-defined]
