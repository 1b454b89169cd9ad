"""``docs/drift.md``, written from ``results/statistics.json`` alone: what was not measured is said to be that.

``make statistics`` writes it whenever it has measured; ``python -m benchmarks.drift_document`` writes it as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.claims import Row
from benchmarks.drift_claims import LENGTH, OURS
from benchmarks.drift_loop import document as loop
from benchmarks.drift_loop.rows import CLICKS, GLOBO
from benchmarks.drifting_labels import LONGEST
from millrace.evaluation.plots import COLOURS, figure

RESULTS = Path(__file__).parent / "results" / "statistics.json"
DOCUMENT = Path(__file__).parents[1] / "docs" / "drift.md"

NOT_MEASURED = "not measured yet"
RETRAINED = "retraining"
OURS_ON_GLOBO = "online learning, rule"


@dataclass(frozen=True, slots=True)
class Claim:
    """A line of the table of what drift detection must show.

    Attributes
    ----------
    what
        In words.
    bound
        In words.
    name, rule
        Row that shows it; a rule may go on with what is written after it.
    unit
        ``share``, ``rise`` (a relative difference), ``dial`` (alarms over what the dial promises), ``outcomes``,
        ``hours``, ``count``, ``us`` or ``ms``.
    """

    what: str
    bound: str
    name: str
    rule: str = ""
    unit: str = "share"


CLAIMS = (
    Claim("labels, nothing changes: alarms over what the dial promises", "≤ 1", "drift.null", OURS, "dial"),
    Claim("the same, a reference of 20,000", "≤ 1", "drift.null.reference_20_000", OURS, "dial"),
    Claim("the same, a reference of 5,000", "≤ 1", "drift.null.reference_5_000", OURS, "dial"),
    Claim(
        "the same, users' outcomes are alike, and a daily season", "≤ 1", "drift.null.users_and_season", OURS, "dial"
    ),
    Claim(
        "click-through .05 → .07: median outcomes to the alarm", "≤ 2,000", "drift.delay.0.05_0.07", OURS, "outcomes"
    ),
    Claim("click-through .05 → .10: median outcomes to the alarm", "≤ 450", "drift.delay.0.05_0.1", OURS, "outcomes"),
    Claim("cost of an outcome, amortised", "≤ 2 µs", "drift.cost.outcome", "us an outcome, in blocks of 20", "us"),
    Claim("a feature of 100,000 values shifted by .02 sd: alarms", "≤ 5 %", "drift.feature.shift_0.02", "Kolmogorov-S"),
    Claim("shifted by .2 sd: alarms", "≥ 99 %", "drift.feature.shift_0.2", "Kolmogorov-Smirnov, evidence"),
    Claim("time of a check of 100,000 values", "≤ 3 ms", "drift.cost.check", "ms to count and compare", "ms"),
    Claim("20 features, 1,000 checks, wandering levels, a season: any alarm", "≤ 5 %", "drift.features.20_x_1_000"),
    Claim("one of 20 features moves by .75 sd: it alone is found", "≥ 90 %", "drift.features.one_moves"),
    Claim(
        "features move that the model does not use: a retraining begins", "0 (≤ 5 %)", "drift.unused_features", "a re"
    ),
    Claim("they are reported, and no other feature", "≥ 90 %", "drift.unused_features", "they are reported"),
    Claim("tastes flip, hours to: the signal", "", "drift.loop", f"{RETRAINED}: signal, hours", "hours"),
    Claim("to a version that passes its gates", "", "drift.loop", f"{RETRAINED}: version trained, hours", "hours"),
    Claim("to its promotion by the experiment", "", "drift.loop", f"{RETRAINED}: promoted, hours", "hours"),
    Claim(
        "click-through after the flip, retraining alone above neither", "", CLICKS, f"{RETRAINED}, after, above", "rise"
    ),
    Claim("online learning alone above neither", "", CLICKS, "online learning, after, above", "rise"),
    Claim("both above neither", "", CLICKS, "online learning and retraining, after, above", "rise"),
    Claim("replay of Globo.com with news peaks: retrainings", "", GLOBO, f"{OURS_ON_GLOBO}: retrainings", "count"),
    Claim("followed by gain", "", GLOBO, f"{OURS_ON_GLOBO}: followed by gain", "count"),
)

_HEAD = """\
# Drift: what is promised, and what was measured

Written by `make statistics` from `benchmarks/results/statistics.json`; do not edit it by hand. Each row is a simulation
whose truth is known, seeded by its name (`make statistics ARGS="--only drift"`). In brackets the 95 % limit on the side
of the bound: Poisson's of a rate, Clopper and Pearson's of a share, an order statistic's of a median; a row holds if
its limit does. How it is counted, and why:
[decision 13](decisions/0013-drift-is-counted-and-its-false-alarms-are-known.md); the process that does it:
[decision 18](decisions/0018-the-drift-detector-reads-outcomes.md).

The click-through is 5 %. A reference has 100,000 outcomes unless said, is estimated, and is drawn anew for each stream.
The dial of the labels is one false alarm in 200,000 outcomes, two-sided; that of features one in 16,000 days.
"""

_FALSE = """\
## False alarms of labels

Alarms where nothing changes, over what the dial promises: above 1 it is broken. A run is a stream of {length:,}
outcomes. *Always* and *never* show what a rate alone is worth.
"""

_DELAYS = """\
## How soon a change of the click-through is found

Median outcomes from the change to the alarm. ADWIN has no reference but the 100,000 outcomes before the change.
"""


def load(file: Path = RESULTS) -> list[Row]:
    """The rows on drift; none if nothing was measured."""
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"] if file.exists() else []
    return [Row(**row) for row in rows if row["name"].startswith("drift.")]


def write(rows: Sequence[Row], document: Path = DOCUMENT) -> None:
    """Write the document, and its plots into a folder of its name."""
    folder = document.with_suffix("")
    plots = {"labels.svg": _draw, "flip.svg": loop.draw}
    drawn = [f"{folder.name}/{name}" if draw(rows, folder / name) else "" for name, draw in plots.items()]
    document.parent.mkdir(parents=True, exist_ok=True)
    document.write_text("\n".join(_lines(rows, *drawn)), encoding="utf-8")


def _lines(rows: Sequence[Row], plot: str, flip: str) -> Iterator[str]:
    yield _HEAD
    yield "| what | bound | measured | runs | |\n|---|---|---|---|---|"
    for claim in CLAIMS:
        row = _row(rows, claim.name, claim.rule)
        if row is None:
            yield _line(claim.what, claim.bound, NOT_MEASURED, "", "")
        else:
            holds = "" if row.ok is None else "holds" if row.ok else "**does not hold**"
            yield _line(claim.what, claim.bound, _figure(row, claim.unit), f"{row.runs:,}", holds)
    yield ""
    if plot:
        yield f"![False alarms over what the dial promises, and outcomes until a change is found]({plot})\n"
    yield from loop.sections(rows, flip)
    yield from _section(_FALSE.format(length=LENGTH), "drift.null", rows, "dial")
    yield from _delays(rows)
    yield from _section(
        "## Features: many of them, looked at every hour\n", "drift.features.", rows, "share", skip=("looks until",)
    )
    yield from _section("## One feature of 100,000 values\n", "drift.feature.", rows, "share")
    yield from _section(
        "## Days whose levels differ by .3 sd as they always did: each test at level .01\n",
        "drift.days.",
        rows,
        "share",
    )
    yield from _section(
        "## The stability index (PSI) where nothing changed, by size of the sample\n", "drift.psi.", rows
    )
    yield from _section("## Cost, the best of five on the machine that measured\n", "drift.cost.", rows, "cost")


def _section(
    head: str, prefix: str, rows: Sequence[Row], unit: str = "share", skip: Sequence[str] = ()
) -> Iterator[str]:
    """All rows whose names begin so."""
    found = [row for row in rows if row.name.startswith(prefix) and not row.rule.startswith(tuple(skip))]
    yield head
    if not found:
        yield f'Not measured yet: `make statistics ARGS="--only {prefix.rstrip(".")}"`.\n'
        return
    yield "| row | rule | measured | runs |\n|---|---|---|---|"
    for row in found:
        shown = row.rule.partition(" ")[0] if unit == "cost" else unit
        yield _line(f"`{row.name}`", row.rule, _figure(row, shown), f"{row.runs:,}")
    yield ""


def _delays(rows: Sequence[Row]) -> Iterator[str]:
    yield _DELAYS
    names = sorted({row.name for row in rows if row.name.startswith("drift.delay.")}, key=_after)
    if not names:
        yield 'Not measured yet: `make statistics ARGS="--only drift.delays"`.\n'
        return
    yield _line("rule", *(f".05 → {_after(name):g}".replace("0.", ".") for name in names))
    yield "|---" * (len(names) + 1) + "|"
    for label, rule in DELAY_RULES.items():
        found = [_row(rows, name, rule) for name in names]
        yield _line(label, *(_outcomes(row) if row else NOT_MEASURED for row in found))
    yield ""


DELAY_RULES: Mapping[str, str] = {
    "ours": f"{OURS}, 0",
    "ours, users' outcomes are alike": f"{OURS}, users",
    "ADWIN": "ADWIN",
    "always": "always",
    "never": "never",
}


def _after(name: str) -> float:
    """The click-through after the change, from a row's name."""
    return float(name.rpartition("_")[2])


def _row(rows: Sequence[Row], name: str, rule: str) -> Row | None:
    return next((row for row in rows if row.name == name and row.rule.startswith(rule)), None)


def _outcomes(row: Row) -> str:
    """A change that was not found counts as ``LONGEST``."""
    if row.value >= LONGEST:
        return f"not within {LONGEST:,}"
    if row.limit is not None and row.limit >= LONGEST:
        return f"{row.value:,.0f} (≤ not within {LONGEST:,})"
    return _figure(row, "outcomes")


def _figure(row: Row, unit: str) -> str:
    """The value, and its limit on the side of the bound."""
    sign = "≥" if row.limit is not None and row.limit < row.value else "≤"
    if unit == "share":
        value, limit = f"{row.value:.1%}", "" if row.limit is None else f"{row.limit:.1%}"
    elif unit in ("hours", "rise") and row.low is not None and row.high is not None:
        form = "+.1%" if unit == "rise" else ",.1f"
        value, limit = f"{row.value:{form}} ({row.low:{form}} to {row.high:{form}})", ""
    elif unit == "count":
        value, limit = f"{row.value:,.0f}", ""
    elif unit in ("us", "ms"):
        value, limit = f"{row.value:.3g} {'µs' if unit == 'us' else 'ms'}", ""
    elif unit == "outcomes":
        value, limit = f"{row.value:,.0f}", "" if row.limit is None else f"{row.limit:,.0f}"
    else:
        value, limit = f"{row.value:,.2f}", "" if row.limit is None else f"{row.limit:,.2f}"
    return f"{value} ({sign} {limit})" if limit else value


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _draw(rows: Sequence[Row], path: Path) -> bool:
    """False alarms and delays, both on scales of tens; False if there is nothing to draw."""
    alarms = [row for row in rows if row.name.startswith("drift.null") and row.value > 0]
    delays = [row for row in rows if row.name.startswith("drift.delay.")]
    if not alarms or not delays:
        return False
    with figure(path, 2) as (left, right):
        names = [f"{_circumstances(row)}\n{row.rule}" for row in alarms]
        colours = [COLOURS[0] if row.rule == OURS else COLOURS[1] for row in alarms]
        left.barh(names, [row.value for row in alarms], color=colours)
        left.tick_params(axis="y", labelsize=5)
        left.invert_yaxis()
        left.axvline(1, color="#888888", linewidth=0.8)
        left.set_xscale("log")
        left.set_xlabel("false alarms over what the dial promises")
        for (label, rule), colour in zip(DELAY_RULES.items(), COLOURS, strict=False):
            mine = sorted((_after(row.name), row.value) for row in delays if row.rule.startswith(rule))
            right.plot([at for at, _ in mine], [value for _, value in mine], "o", color=colour, label=label)
        right.axvline(0.05, color="#888888", linewidth=0.8)
        right.set_yscale("log")
        right.set_xlabel("click-through after the change, .05 before")
        right.set_ylabel("outcomes to the alarm, median")
        right.legend(fontsize=6, loc="lower left", bbox_to_anchor=(0.3, 0.08))
    return True


def _circumstances(row: Row) -> str:
    return row.name.removeprefix("drift.null").strip(".").replace("_", " ") or "independent outcomes"


if __name__ == "__main__":
    write(load())
