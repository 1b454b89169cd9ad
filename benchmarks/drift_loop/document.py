"""The parts of ``docs/drift.md`` about the loop, from the rows alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.claims import Row
from benchmarks.drift_loop.replay import ASKED, FOLLOWING_MS, SESSIONS, K
from benchmarks.drift_loop.rows import BIN_H, CLICKS, GLOBO, LOOP, POLICIES
from benchmarks.drift_loop.storefront import COURSE, STEPS, WAYS
from millrace.evaluation.plots import COLOURS, figure
from millrace.settings import HOUR_MS

_SHOP = COURSE.kind
_NOT_YET = 'Not measured yet: `make statistics ARGS="--only {part}"`.\n'

_FLIP = f"""\
## Tastes flip

A made-up shop in simulated time (`benchmarks/drift_loop`): shoppers of `millrace simulate`, {_SHOP.shoppers:,} of
them and {_SHOP.plan.sessions_per_day:,.0f} visits a day. What decides is production's: features, candidates, ranking,
joiner, learner, the detector, the orchestrator's rule, training job and gates, tracker. A version trained on days
{COURSE.known_on} to {COURSE.watched_on} serves from day {COURSE.watched_on}; as day {COURSE.flip_on} begins
everyone's tastes and habits change (`millrace simulate --shift-at`). Up to there a world is one shop that learns
online; there it becomes four, with the same shoppers. *Outcomes* are slots that were seen.

As by default: collecting, and window and gates of versions that drift starts, chosen and judged by what was served
since the change as the detector estimates it (decision 29). The window is what the shop has
since day {COURSE.known_on}, and not yet four weeks.

Not as by default: the experiment takes all users, half of whom see the version (by default a tenth each, which takes
five times as many outcomes). Jobs take no time. A person overrides the gate on answers in random order, which knows too
little after days: by itself production would compare in the shadow, and then show the version to a hundredth of the
users (decision 25). Medians are of the worlds that got there.
"""

_GLOBO = f"""\
## Replay of Globo.com, October 1 to 10

Every {SESSIONS}th session of the file; of the clicks that continue one, every {ASKED}th is asked for, {K} slots an
answer; features take all of them. The first version is trained after a day. *rule* is production's rule with its
defaults; *always* a detector that alarms always, without the guard against loops, and knows of no change; *never*
trains nothing. A version that passes its gates is promoted at once: clicks of a log do not follow from what is shown,
so there is no experiment. *Gain*, *loss*: the log loss of the {FOLLOWING_MS // HOUR_MS} hours after it, version against
what served before, on the same slots, has a 95 % interval above or below 0; also where the gates kept it from serving.
"""


def sections(rows: Sequence[Row], plot: str) -> Iterator[str]:
    """Both of them. ``plot``: where the picture is, empty if there is none."""
    names = {row.name for row in rows}
    yield _FLIP
    if LOOP in names:
        yield from _steps(rows)
        if plot:
            yield f"![Click-through around the flip, in parts of what it was before]({plot})\n"
        yield from _clicks(rows)
    else:
        yield _NOT_YET.format(part=LOOP)
    yield _GLOBO
    if GLOBO in names:
        yield from _globo(rows)
    else:
        yield _NOT_YET.format(part=GLOBO)


def draw(rows: Sequence[Row], path: Path) -> bool:
    """Click-through by hours from the flip; False if there is nothing to draw."""
    found = [row for row in rows if row.name == f"{CLICKS}.hours"]
    if not found:
        return False
    with figure(path, 2) as (left, right):
        for axes, learns in ((left, True), (right, False)):
            for way, what in WAYS.items():
                if what.learns != learns:
                    continue
                mine = sorted(
                    (float(row.rule.rpartition(", ")[2]), row) for row in found if row.rule.startswith(f"{way},")
                )
                hours = [at + BIN_H / 2 for at, _ in mine]
                colour = COLOURS[list(WAYS).index(way)]
                axes.plot(hours, [row.value for _, row in mine], color=colour, label=way)
                ends = [row.low or 0.0 for _, row in mine], [row.high or 0.0 for _, row in mine]
                axes.fill_between(hours, *ends, color=colour, alpha=0.15, linewidth=0)
            axes.axvline(0, color="#888888", linewidth=0.8)
            axes.set_ylim(0.4, 1.2)
            axes.set_xlabel("hours from the flip")
            axes.legend(fontsize=7, loc="lower right")
        left.set_ylabel("click-through, before the flip = 1")
    return True


def _steps(rows: Sequence[Row]) -> Iterator[str]:
    ways = [way for way, what in WAYS.items() if what.retrains]
    yield _line("from the flip to", *(f"{way}: hours" for way in ways), *(f"{way}: outcomes" for way in ways), "worlds")
    yield "|---" * (2 * len(ways) + 2) + "|"
    for step in ("signal", *STEPS):
        cells = [_of(rows, LOOP, f"{way}: {step}, {what}") for what in ("hours", "outcomes") for way in ways]
        reached = [_of(rows, LOOP, f"{way}: {step}, reached") for way in ways]
        worlds = " / ".join(f"{row.value * row.runs:.0f}" if row else "" for row in reached)
        yield _line(step, *(_middle(row) for row in cells), f"{worlds} of {reached[0].runs if reached[0] else 0}")
    early = _of(rows, LOOP, "signals of labels in the day before")
    yield ""
    if early:
        worlds = f"{early.value * early.runs:.0f} of {early.runs}"
        yield f"Worlds with a signal of labels in the day before the flip: {worlds}.\n"


def _clicks(rows: Sequence[Row]) -> Iterator[str]:
    yield "Click-through of slots shown, means of the worlds with Student's interval; *above* is paired by world.\n"
    yield _line("", "the day before", "the day after", "then", "above neither, the day after", "then")
    yield "|---" * 6 + "|"
    for way in WAYS:
        cells = [f"{way}, {phase}" for phase in ("before", "during", "after")]
        above = [f"{way}, {phase}, above neither" for phase in ("during", "after")]
        yield _line(
            way,
            *(_share(_of(rows, CLICKS, rule), 2) for rule in cells),
            *(_share(_of(rows, CLICKS, rule), 1) for rule in above),
        )
    yield ""


def _globo(rows: Sequence[Row]) -> Iterator[str]:
    counts = (
        "signals of labels",
        "signals of features and scores",
        "retrainings",
        "followed by gain",
        "followed by loss",
    )
    promoted = ("promoted", "promoted and followed by gain", "promoted and followed by loss")
    saved, hits = "log loss saved in the hours after, all", f"HR@{K}"
    yield _line("", *counts, *promoted, "nats a slot saved in the hours after", hits, "above never")
    yield "|---" * (len(counts) + len(promoted) + 4) + "|"
    for name in POLICIES:
        cells = [_of(rows, GLOBO, f"{name}: {what}") for what in (*counts, *promoted)]
        yield _line(
            name,
            *(f"{row.value:.0f}" if row else "" for row in cells),
            _nats(_of(rows, GLOBO, f"{name}: {saved}")),
            _share(_of(rows, GLOBO, f"{name}: {hits}"), 2),
            _share(_of(rows, GLOBO, f"{name}: {hits} above never"), 2),
        )
    yield ""


def _of(rows: Sequence[Row], name: str, rule: str) -> Row | None:
    exact = next((row for row in rows if (row.name, row.rule) == (name, rule)), None)
    return exact or next((row for row in rows if row.name == name and row.rule.startswith(rule)), None)


def _middle(row: Row | None) -> str:
    if row is None or row.low is None or row.high is None:
        return ""
    places = 1 if row.rule.endswith("hours") else 0
    return f"{row.value:,.{places}f} ({row.low:,.{places}f} to {row.high:,.{places}f})"


def _share(row: Row | None, places: int) -> str:
    if row is None:
        return ""
    if row.low is None or row.high is None:
        return f"{row.value:.{places}%}"
    sign = "+" if "above" in row.rule else ""
    return f"{row.value:{sign}.{places}%} ({row.low:{sign}.{places}%} to {row.high:{sign}.{places}%})"


def _nats(row: Row | None) -> str:
    if row is None or row.low is None or row.high is None:
        return ""
    return f"{row.value:+.4f} ({row.low:+.4f} to {row.high:+.4f})"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
