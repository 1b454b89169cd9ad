"""Run the months, keep their figures, write the document."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.environment import Say
from benchmarks.freshness_value import document, results
from benchmarks.freshness_value.clock import ClickLog, clock
from benchmarks.freshness_value.figures import BASE, figures_of
from benchmarks.report import Row, commit, machine, versions
from millrace.evaluation.month import WAYS, make_front
from millrace.settings import Settings
from millrace.simulation.catalogue import Floats
from millrace.simulation.days import DAY_S, Days
from millrace.simulation.worlds import WORLDS, WorldKind, make_month_world

PREFIX = "freshness_value"


def run(
    say: Say,
    worlds: Sequence[str] = (),
    seed: int = results.SEED,
    kinds: Mapping[str, WorldKind] = WORLDS,
    file: Path = results.RESULTS,
    page: Path = document.DOCUMENT,
) -> list[Row]:
    """Measure the months of some worlds, of all if none is named; the document is written after each."""
    rows = []
    for name in worlds or kinds:
        one = measure(name, kinds[name], seed, say)
        results.add(one, file)
        document.write(results.read(file), page)
        rows += _rows(one)
    return rows


def measure(name: str, kind: WorldKind, seed: int, say: Say) -> dict[str, Any]:
    """A month of every arm in a world."""
    began, state, settings = time.monotonic(), commit(), Settings()
    counts: dict[str, Floats] = {}
    shoppers: dict[str, Any] = {}
    for arm, way in WAYS.items():
        world = make_month_world(seed, kind)
        log = ClickLog(make_front(way, world, kind, settings))
        days = Days(world, log, kind.plan)
        for day in days.run():
            say(f"{name}, {arm}: day {day + 1} of {kind.plan.days}")
        counts[arm] = days.counts
        if arm == BASE:
            shoppers = clock(log.clicks, kind.warm_up_days * DAY_S)
    return {
        "world": name,
        "seed": seed,
        "command": f"millrace bench freshness-value --world {name} --seed {seed}",
        "days": kind.plan.days - kind.warm_up_days,
        "warm_up_days": kind.warm_up_days,
        "shift_after": (kind.plan.shift_on or kind.plan.days) - kind.warm_up_days,
        "shoppers": kind.shoppers,
        "visits_per_day": kind.plan.sessions_per_day,
        "items": kind.items,
        "lifetime_days": round(kind.lifetime_s / DAY_S, 3),
        "clock": shoppers,
        "figures": figures_of(counts, kind, seed),
        "wall_s": round(time.monotonic() - began, 1),
        "commit": state,
        "machine": machine(),
        "versions": versions(),
    }


def _rows(one: Mapping[str, Any]) -> list[Row]:
    """Of the whole month; the rest is in the results alone."""
    rows = []
    for what, arms in one["figures"].items():
        for arm, figures in arms.items():
            name = f"{PREFIX}.{one['world']}.{what}.{arm}"
            rows.append(_row(name, figures["all"], "share", one))
            if arm != BASE:
                rows.append(_row(f"{name}.live_above", figures["live_above"]["all"], "relative", one))
            took = figures["recovered"]
            # A figure of its own unit says "not within the run": there is no number for it.
            value, unit = (took[0], "days") if took[0] else (one["days"] - one["shift_after"], "days, not yet")
            low, high = (None if end is None else float(end) for end in took[1:])
            rows.append(Row(f"{name}.recovered_after", float(value), unit, low=low, high=high, seed=one["seed"]))
    return rows


def _row(name: str, rate: Sequence[float], unit: str, one: Mapping[str, Any]) -> Row:
    value, low, high = rate
    return Row(name, value, unit, samples=one["shoppers"], low=low, high=high, seed=one["seed"])
