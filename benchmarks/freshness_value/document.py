"""``docs/freshness-in-simulation.md``, written from the results alone: no figure in it is typed by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.freshness_value.drawings import draw
from benchmarks.freshness_value.figures import BASE, FIGURES, NIGHTLY
from benchmarks.freshness_value.recovering import recovery, took
from benchmarks.freshness_value.results import SEED, Month, Results
from benchmarks.freshness_value.words import (
    ARMS,
    CLOCK,
    HEAD,
    MOVED_BY,
    READ_RECOVERY,
    READ_RESULT,
    TITLES,
    WORLD_PROSE,
    listed,
    rate,
    signed,
    table,
)
from millrace.simulation.worlds import WORLDS

CALIBRATED = "news"
DOCUMENT = Path(__file__).parents[2] / "docs" / "freshness-in-simulation.md"
CLAIMED = {"click_through": (0.15, 0.25), "conversion": (0.10, 0.20)}
"""What systems of this kind claim for live against nightly (issue 5)."""


def write(results: Results, document: Path = DOCUMENT) -> None:
    """Write the document; its plot goes into a folder of its name."""
    plot = document.with_suffix("") / "click-through.svg"
    shown = [one for one in results.months if one["seed"] == SEED]
    if shown:
        draw(shown, ARMS, plot)
    document.parent.mkdir(parents=True, exist_ok=True)
    document.write_text(text(results, f"{plot.parent.name}/{plot.name}" if shown else ""), encoding="utf-8")


def text(results: Results, plot: str = "") -> str:
    """The document, with a link to its plot."""
    return "\n".join(_lines(results, plot))


def _lines(results: Results, plot: str) -> Iterator[str]:
    yield HEAD
    yield from _states(results)
    yield from _worlds(results)
    yield from _claimed(results)
    for world in WORLDS:
        for one in _shown(results, world):
            yield from _result(one)
    if plot:
        yield f"## Day by day\n\n![Click-through of each arm by day, in both worlds]({plot})\n"
    yield READ_RECOVERY
    for world in WORLDS:
        for one in _shown(results, world):
            yield from recovery(one)
    yield from _seeds(results)
    yield from _clocks(results)
    yield from _commands(results)


def _shown(results: Results, world: str) -> list[Month]:
    """The month that is told in full."""
    return [one for one in results.of(world) if one["seed"] == SEED]


def _states(results: Results) -> Iterator[str]:
    missing = [world for world in WORLDS if not _shown(results, world)]
    if missing:
        yield f"**Not measured yet**: {listed(missing)}.\n"
    commits = {one["commit"] for one in results.months}
    if len(commits) > 1:
        yield f"**The months are of {len(commits)} states of the code** (see Commands): compare within a month only.\n"


def _worlds(results: Results) -> Iterator[str]:
    yield WORLD_PROSE
    months = [one for world in WORLDS for one in _shown(results, world)]
    lines: dict[str, Callable[[Month], object]] = {
        "shoppers": lambda one: f"{one['shoppers']:,}",
        "visits a day": lambda one: f"{one['visits_per_day']:.0f}",
        "items on sale": lambda one: f"{one['items']:,}",
        "an item stays, on average": lambda one: f"{one['lifetime_days']:g} days",
        "warm-up": lambda one: f"{one['warm_up_days']} days",
        "then watched": lambda one: f"{one['days']} days",
        "tastes shift after": lambda one: f"day {one['shift_after']}",
        "seed": lambda one: one["seed"],
    }
    rows = [(name, *(line(one) for one in months)) for name, line in lines.items()]
    yield table(("", *(one["world"] for one in months)), rows)


def _claimed(results: Results) -> Iterator[str]:
    yield "## Beside what is claimed\n"
    yield "Live against nightly, all days after the warm-up. The claims are of systems of this kind in general.\n"
    rows = []
    for one in results.months:
        for what in FIGURES:
            above = one["figures"][what][NIGHTLY]["live_above"]["all"]
            low, high = CLAIMED[what]
            claim = f"{100 * low:+.0f} to {100 * high:+.0f} %"
            rows.append((one["world"], one["seed"], TITLES[what], claim, signed(above), _beside(above, low, high)))
    yield table(("world", "seed", "figure", "claimed", "measured", ""), rows)


def _beside(above: Sequence[float], low: float, high: float) -> str:
    value, least, most = above
    if least > high:
        return "above the claim"
    if most < 0:
        return "live is **below** nightly"
    if most < low:
        return "below the claim" if least > 0 else "below the claim, and the interval includes 0"
    if low <= value <= high:
        return "as claimed"
    return f"{'above' if value > high else 'below'}, the interval reaches what is claimed"


def _result(one: Month) -> Iterator[str]:
    yield f"## Result: {one['world']}\n"
    yield READ_RESULT.format(days=one["days"])
    through, bought = (one["figures"][what] for what in FIGURES)
    rows = []
    for arm, name in ARMS.items():
        cells = [name]
        for figures in (through[arm], bought[arm]):
            cells += [rate(figures["all"]), signed(figures["live_above"]["all"]) if arm != BASE else ""]
        rows.append(cells)
    yield table(("arm", "click-through", "live against it", "conversion", "live against it"), rows)
    for what in FIGURES:
        yield from _order(what, one["figures"][what])
    yield ""


def _order(what: str, arms: Mapping[str, Any]) -> Iterator[str]:
    ordered = sorted(ARMS, key=lambda arm: -arms[arm]["all"][0])
    yield f"- {TITLES[what].capitalize()}, the highest first: {'; '.join(ARMS[arm] for arm in ordered)}."
    above = {arm: arms[arm]["live_above"]["all"] for arm in ARMS if arm != BASE}
    level = [ARMS[arm] for arm, (_, low, high) in above.items() if low <= 0 <= high]
    worse = [ARMS[arm] for arm, (_, _, high) in above.items() if high < 0]
    if worse:
        yield f"  Live is **below** {listed(worse)}."
    if level:
        yield f"  Between live and {listed(level)} the interval includes 0: no difference is shown."
    if not worse and not level:
        yield "  Live is above each of the others, no interval includes 0."


def _seeds(results: Results) -> Iterator[str]:
    others = [one for one in results.months if one["seed"] != SEED]
    if not others:
        return
    yield "## Other worlds of the same kinds\n"
    yield "Live against each arm, all days after the warm-up.\n"
    rows = []
    for one in results.months:
        for what in FIGURES:
            above = (signed(one["figures"][what][arm]["live_above"]["all"]) for arm in ARMS if arm != BASE)
            rows.append((one["world"], one["seed"], TITLES[what], *above))
    yield table(("world", "seed", "figure", *(name for arm, name in ARMS.items() if arm != BASE)), rows)
    yield "Click-through in the first three days after the shift against those before it, and days until it is back.\n"
    rows = []
    for one in results.months:
        arms = one["figures"]["click_through"]
        cells = (f"{signed(arms[arm]['first_change'])}, {took(one, arms[arm]['recovered'])}" for arm in ARMS)
        rows.append((one["world"], one["seed"], *cells))
    yield table(("world", "seed", *ARMS.values()), rows)


def _clocks(results: Results) -> Iterator[str]:
    yield CLOCK
    columns = {one["world"]: one["clock"] for one in _shown(results, CALIBRATED)}
    if results.globo:
        columns["Globo.com"] = results.globo
    else:
        yield "Globo.com is not measured yet: `python -m benchmarks.freshness_value --globo`.\n"
    rows = [(line, *(f"{one[name]:g}" for one in columns.values()), by) for name, (line, by) in MOVED_BY.items()]
    yield table(("", *columns, "set by"), rows)


def _commands(results: Results) -> Iterator[str]:
    yield "## Commands\n"
    rows = [(f"`{one['command']}`", one["commit"], f"{one['wall_s']:.0f} s", one["machine"]) for one in results.months]
    yield table(("command", "code", "took", "machine"), rows)
