"""Features whose distribution moves with the hour and from day to day, and does not drift; and some that do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.watched import Floats
from millrace.drift.cells import population_stability
from millrace.drift.compare import compare
from millrace.drift.correction import Dial
from millrace.drift.counts import Counts, Edges
from millrace.drift.evidence import Method
from millrace.drift.kolmogorov_smirnov import kolmogorov_smirnov
from millrace.drift.reference import Reference
from millrace.drift.rolling import Rolling

FEATURES, LOOKS, HOURS = 20, 1_000, 24
DAYS = 28
"""Of the reference."""
VALUES = 100
"""Of an hour and feature: a sample of the impressions of a small shop."""
SEASON, LEVEL, KEPT = 0.5, 0.1, 0.9
"""Swing of the day; deviation of the level of an hour, and how much of it the next hour keeps: all in standard
deviations of a value. Day means then have a deviation of .09, five times that of independent values."""
MISSING = 0.02


@dataclass(frozen=True, slots=True)
class Seen:
    """What rules said in one run.

    Attributes
    ----------
    ours
        Any alarm.
    independent
        Any p-value of Kolmogorov and Smirnov at .05 over the features (Bonferroni), values taken as independent.
    tenth, quarter
        Any PSI above .1, and above .25.
    """

    ours: bool
    independent: bool
    tenth: bool
    quarter: bool


def hours(count: int, rng: np.random.Generator, shift: float = 0.0) -> Floats:
    """Values of a feature, float64[count, VALUES], NaN where missing; ``shift`` is added to all."""
    steps = rng.normal(0, LEVEL * (1 - KEPT**2) ** 0.5, count)
    steps[0] = rng.normal(0, LEVEL)
    level = np.empty(count)
    for hour, step in enumerate(steps):
        level[hour] = step + (KEPT * level[hour - 1] if hour else 0.0)
    day = SEASON * np.sin(2 * np.pi * (np.arange(count) % HOURS) / HOURS)
    values = rng.normal(size=(count, VALUES)) + (level + day + shift)[:, None]
    values[rng.random(values.shape) < MISSING] = np.nan
    return values


def features(rng: np.random.Generator) -> list[Reference[Edges]]:
    """References of all features, a block a day."""
    days = np.repeat(np.arange(DAYS), HOURS * VALUES)
    return [Reference.of_numbers(f"feature-{each}", hours(DAYS * HOURS, rng).ravel(), days) for each in range(FEATURES)]


def windows(
    references: list[Reference[Edges]], rng: np.random.Generator, shift: float = 0.0, looks: int = LOOKS
) -> Iterator[dict[str, Counts]]:
    """The last day's counts of every feature, hour by hour; the first feature is shifted."""
    rolling = {reference.name: Rolling[Counts](HOURS) for reference in references}
    values = [hours(looks + HOURS - 1, rng, 0.0 if at else shift) for at in range(len(references))]
    for hour in range(looks + HOURS - 1):
        for reference, mine in zip(references, values, strict=True):
            rolling[reference.name].add(hour, reference.cells.count(mine[hour]))
        if hour >= HOURS - 1:
            yield {name: total for name, each in rolling.items() if (total := each.total()) is not None}


def watch_features(rng: np.random.Generator, naive: bool = False, looks: int = LOOKS) -> Seen:
    """One run in which nothing drifts; the naive rules only if asked for."""
    references, dial = features(rng), Dial()
    ours = independent = tenth = quarter = False
    plain = [
        Reference(each.name, each.cells, each.blocks.sum(axis=0, keepdims=True), each.missing.sum(keepdims=True))
        for each in references
    ]
    for window in windows(references, rng, looks=looks):
        ours |= any(finding.alarm for finding in compare(references, window, dial))
        if naive and not (independent and tenth and quarter):
            tests = [kolmogorov_smirnov(each, window[each.name], 0.05 / FEATURES) for each in plain]
            independent |= any(test.p_value <= 0.05 / FEATURES for test in tests)
            most = max(population_stability(each, window[each.name], 0.05).statistic for each in plain)
            tenth, quarter = tenth or most > 0.1, quarter or most > 0.25
    return Seen(ours, independent, tenth, quarter)


def looks_until_found(shift: float, rng: np.random.Generator) -> float:
    """Looks until the feature that is shifted from the first hour on is found; ``LOOKS + 1``: another or none was."""
    references, dial = features(rng), Dial()
    for look, window in enumerate(windows(references, rng, shift), 1):
        names = {finding.name for finding in compare(references, window, dial) if finding.alarm}
        if names:
            return look if names == {references[0].name} else LOOKS + 1
    return LOOKS + 1


def single_alarm(shift: float, rng: np.random.Generator, size: int = 100_000) -> tuple[bool, bool]:
    """Whether ``size`` independent values alarm against as many of which they are shifted; whether evidence alone is
    enough at .05."""
    reference = Reference.of_numbers("x", rng.normal(size=size))
    window = {"x": reference.cells.count(rng.normal(shift, size=size))}
    alone = kolmogorov_smirnov(reference, window["x"], 0.05)
    return any(finding.alarm for finding in compare([reference], window, Dial())), alone.p_value <= 0.05


@dataclass(frozen=True, slots=True)
class Days:
    """Runs in which a test at .01 alarmed, knowing how days differ, and taking values as independent."""

    days: int
    independent: int


def alike_days(method: Method, runs: int, rng: np.random.Generator, size: int = 500) -> Days:
    """A day against ``DAYS`` of ``size`` values, whose levels have a deviation of .3 and do not drift."""
    clustered = independent = 0
    days = np.repeat(np.arange(DAYS), size)
    for _ in range(runs):
        values = rng.normal(size=DAYS)[days] * 0.3 + rng.normal(size=len(days))
        reference = Reference.of_numbers("x", values, days)
        window = reference.cells.count(rng.normal() * 0.3 + rng.normal(size=size))
        clustered += method(reference, window, 0.01).p_value <= 0.01
        independent += method(Reference.of_numbers("x", values), window, 0.01).p_value <= 0.01
    return Days(clustered, independent)


def stability_alarms(size: int, runs: int, rng: np.random.Generator) -> tuple[int, int]:
    """Runs in which the stability index of two samples of one distribution is above its threshold at .05; above .1."""
    null = tenth = 0
    for _ in range(runs):
        reference = Reference.of_numbers("x", rng.normal(size=size))
        found = population_stability(reference, reference.cells.count(rng.normal(size=size)), 0.05)
        null, tenth = null + (found.statistic > found.threshold), tenth + (found.statistic > 0.1)
    return null, tenth
