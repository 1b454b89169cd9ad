"""What `make statistics` keeps of the loop: steps, click-through, and retrainings on Globo.com."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.claims import Row, mean_row, middle_row, seed_of, share_row
from benchmarks.drift_loop import replay, storefront
from benchmarks.drift_loop.replay import Policy, Replayed
from benchmarks.drift_loop.storefront import COURSE, STEPS, WAYS, Course, Went
from millrace.events.datasets import dataset
from millrace.simulation.catalogue import Floats

WORLDS = 6
"""Of the storefront, nine minutes of a core each."""
LOOP, CLICKS, GLOBO = "drift.loop", "drift.loop.clicks", "drift.globo"
BIN_H = 6
"""Hours of a point of the plot."""
POLICIES: Mapping[str, Policy] = {
    f"{'online learning' if learns else 'no online learning'}, {retrains}": Policy(learns, retrains)
    for learns in (True, False)
    for retrains in ("rule", "always", "never")
}
NEITHER = "neither"


def loop_rows(runs: int = WORLDS) -> Iterator[Row]:
    """The storefront, once for each seed."""
    with ProcessPoolExecutor() as pool:
        return rows_of(list(pool.map(storefront.run, range(1, min(runs, WORLDS) + 1))), COURSE)


def rows_of(worlds: Sequence[Mapping[str, Went]], course: Course) -> Iterator[Row]:
    """Steps and click-through of all worlds."""
    for way in (way for way, what in WAYS.items() if what.retrains):
        went = [world[way] for world in worlds]
        for step in ("signal", *STEPS):
            reached = [one.steps[step] for one in went if step in one.steps]
            yield share_row(LOOP, f"{way}: {step}, reached", len(reached), len(went))
            if reached:
                yield middle_row(LOOP, f"{way}: {step}, hours", [hours for hours, _ in reached])
                yield middle_row(LOOP, f"{way}: {step}, outcomes", [float(outcomes) for _, outcomes in reached])
    early = sum(world[NEITHER].early > 0 for world in worlds)
    yield share_row(LOOP, "signals of labels in the day before the flip", early, len(worlds))
    yield from _click_rows(worlds, course)


def _click_rows(worlds: Sequence[Mapping[str, Went]], course: Course) -> Iterator[Row]:
    """Click-through by phase; against the day before the flip; and between the ways, paired by world."""
    flip_h, end_h = course.flip_on * 24, course.days * 24
    first_h = course.watched_on * 24
    phases = {"before": (first_h, flip_h), "during": (flip_h, flip_h + 24), "after": (flip_h + 24, end_h)}
    for way in WAYS:
        for phase, (start, stop) in phases.items():
            yield mean_row(CLICKS, f"{way}, {phase}", [_rate(world[way], start, stop) for world in worlds])
            if phase != "before":
                ratios = [_rate(one[way], start, stop) / _rate(one[way], first_h, flip_h) for one in worlds]
                yield mean_row(CLICKS, f"{way}, {phase}, of before", ratios)
                against = [_rate(one[way], start, stop) / _rate(one[NEITHER], start, stop) - 1 for one in worlds]
                if way != NEITHER:
                    yield mean_row(CLICKS, f"{way}, {phase}, above {NEITHER}", against)
        for start in range(first_h, end_h, BIN_H):
            ratios = [_rate(one[way], start, start + BIN_H) / _rate(one[way], first_h, flip_h) for one in worlds]
            yield mean_row(f"{CLICKS}.hours", f"{way}, {start - flip_h}", ratios)


def _rate(went: Went, start: int, stop: int) -> float:
    return float(went.clicked[start:stop].sum() / max(went.shown[start:stop].sum(), 1))


def globo_rows(_: int = 0) -> Iterator[Row]:
    """The replay, once for each policy; no rows without the data."""
    folder = Path(os.environ.get("MILLRACE_DATA", "../shared/data"))
    if (folder / "globo").is_dir():
        source = dataset("globo", folder)
        yield from globo_rows_of({name: replay.run(policy, source) for name, policy in POLICIES.items()})


def globo_rows_of(found: Mapping[str, Replayed]) -> Iterator[Row]:
    """Retrainings and what followed."""
    for name, one in found.items():
        judged = [trial for trial in one.trials if trial.gain is not None]
        better = [trial for trial in judged if trial.gain is not None and trial.gain.low > 0]
        worse = [trial for trial in judged if trial.gain is not None and trial.gain.high < 0]
        counts = {
            "signals of labels": one.labels,
            "signals of features and scores": one.values,
            "retrainings": len(one.trials),
            "followed by gain": len(better),
            "followed by loss": len(worse),
            "promoted": sum(trial.passed for trial in one.trials),
            "promoted and followed by gain": sum(trial.passed for trial in better),
            "promoted and followed by loss": sum(trial.passed for trial in worse),
        }
        for what, count in counts.items():
            yield Row(GLOBO, f"{name}: {what}", float(count), None, None, 1, seed_of(GLOBO))
        for what, trials in (("all", judged), ("promoted", [trial for trial in judged if trial.passed])):
            gains = [trial.gain.value for trial in trials if trial.gain is not None]
            if len(gains) > 1:
                yield mean_row(GLOBO, f"{name}: log loss saved in the hours after, {what}", gains)
        yield Row(GLOBO, f"{name}: HR@{replay.K}", _hits(one.hit, one.asked), None, None, 1, seed_of(GLOBO))
        never = found[f"{name.partition(', ')[0]}, never"]
        if one is not never:
            value, low, high = _difference(one, never)
            rule = f"{name}: HR@{replay.K} above never"
            yield Row(GLOBO, rule, value, None, None, 1, seed_of(GLOBO), None, low, high)


def _hits(hit: Floats, asked: Floats) -> float:
    return float(hit.sum() / max(asked.sum(), 1))


def _difference(one: Replayed, other: Replayed) -> tuple[float, float, float]:
    """Of two policies' hit rates, with a bootstrap of hours: both were asked the same."""
    random = np.random.default_rng(seed_of(GLOBO))
    there = np.flatnonzero(one.asked > 0)
    drawn = random.choice(there, (2_000, len(there)))
    gained = one.hit - other.hit
    means = gained[drawn].sum(axis=1) / one.asked[drawn].sum(axis=1)
    low, high = (float(end) for end in np.percentile(means, (2.5, 97.5)))
    return float(gained.sum() / max(one.asked.sum(), 1)), low, high
