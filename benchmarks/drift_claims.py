"""The rows of `make statistics` on drift: false alarms where nothing changed, delays where something did, and costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from scipy.stats import ks_2samp

from benchmarks.claims import Row, median_row, rate_row, seed_of, share_row
from benchmarks.drift_loop.rows import globo_rows, loop_rows
from benchmarks.drifting_features import (
    FEATURES,
    LOOKS,
    alike_days,
    looks_until_found,
    single_alarm,
    stability_alarms,
    watch_features,
)
from benchmarks.drifting_labels import (
    LONGEST,
    RATE,
    REFERENCE,
    SIZE,
    Always,
    Maker,
    Never,
    Stream,
    delays,
    false_alarms,
)
from benchmarks.unused_features import MORE_CLICKS, MOVING, Seen, watch
from millrace.drift.block import Baseline, Block
from millrace.drift.cells import chi_square, jensen_shannon, population_stability
from millrace.drift.compare import compare
from millrace.drift.correction import Dial
from millrace.drift.e_detector import EDetector
from millrace.drift.kolmogorov_smirnov import kolmogorov_smirnov
from millrace.drift.reference import Reference
from millrace.drift.river_detectors import adwin, page_hinkley

BETWEEN = 200_000
"""The dial: expected outcomes between two false alarms."""
LENGTH = 400_000
"""Outcomes of a stream without a change: each has a reference of its own."""
STREAMS, DELAYS, FEATURE_RUNS, MOVED_RUNS, SINGLE_RUNS, DAY_RUNS, UNUSED_RUNS = 100, 500, 200, 50, 1_000, 2_000, 100
UNUSED_REASON = "the model uses none of these features"
OURS = f"e-detector, one in {BETWEEN:,}"


def ours(baseline: Baseline) -> EDetector:
    """As a worker would make it."""
    return EDetector(baseline, BETWEEN)


def credulous(baseline: Baseline) -> EDetector:
    """The reference is the truth, and outcomes are independent."""
    return EDetector(Baseline(baseline.ratio, baseline.rate, error=1e-9), BETWEEN)


def false_alarm_rows(runs: int = STREAMS) -> Iterator[Row]:
    """Alarms over what the dial promises, where nothing changes."""
    streams = min(runs, STREAMS)

    def row(name: str, rule: str, make: Maker, stream: Stream, reference: int, part: int, bound: float | None) -> Row:
        several = max(streams // part, 1)
        alarms = false_alarms(make, stream, reference, several, LENGTH, np.random.default_rng(seed_of(name)))
        return rate_row(name, rule, alarms, several * LENGTH / BETWEEN, several, bound)

    plain, single = Stream(), Stream(size=1)
    yield row("drift.null", OURS, ours, plain, REFERENCE, 1, 1.0)
    yield row("drift.null", "ADWIN, delta .002", lambda _: adwin(), single, SIZE, 20, None)
    yield row("drift.null", "Page-Hinkley, as in river", lambda _: page_hinkley(), single, SIZE, 20, None)
    yield row("drift.null", f"always, every {SIZE} outcomes", lambda _: Always(), plain, SIZE, 20, None)
    yield row("drift.null", "never", lambda _: Never(), plain, SIZE, 20, None)
    for size in (20_000, 5_000):
        name = f"drift.null.reference_{size:_}"
        yield row(name, OURS, ours, plain, size, 2, 1.0)
        yield row(name, "the reference is the truth", credulous, plain, size, 2, None)
    users, season = Stream(spread=0.1), Stream(swing=0.4, looked_for=True)
    both = Stream(spread=0.1, swing=0.4, looked_for=True)
    for name, naive, stream, blind in (
        ("users", "outcomes are independent", users, users),
        ("season", "every hour is expected to be alike", season, Stream(swing=0.4)),
        ("users_and_season", "both", both, Stream(spread=0.1, swing=0.4)),
    ):
        yield row(f"drift.null.{name}", OURS, ours, stream, REFERENCE, 2, 1.0)
        yield row(f"drift.null.{name}", naive, credulous, blind, REFERENCE, 10, None)


def delay_rows(runs: int = DELAYS) -> Iterator[Row]:
    """Outcomes from a change to its alarm."""
    runs = min(runs, DELAYS)
    for after, bound in ((0.07, 2_000.0), (0.10, 450.0), (0.03, None), (0.055, None)):
        name = f"drift.delay.{RATE:g}_{after:g}"

        def drawn(
            make: Maker, stream: Stream, part: int, warm: int = 5_000, name: str = name, after: float = after
        ) -> list[float]:
            return delays(make, stream, after, max(runs // part, 1), np.random.default_rng(seed_of(name)), warm)

        yield median_row(name, f"{OURS}, {RATE:g} to {after:g}", drawn(ours, Stream(), 1), bound)
        yield median_row(name, f"{OURS}, users' outcomes alike", drawn(ours, Stream(spread=0.1), 2))
        # It has no reference but its own past.
        yield median_row(name, "ADWIN, delta .002", drawn(lambda _: adwin(), Stream(size=1), 10, REFERENCE))
        yield median_row(name, "always", drawn(lambda _: Always(), Stream(), 10))
        yield median_row(name, f"never ({LONGEST:,}: not found)", drawn(lambda _: Never(), Stream(), 10))


def single_rows(runs: int = SINGLE_RUNS) -> Iterator[Row]:
    """One feature: alarms of 100,000 values against 100,000, and of the stability index where nothing changed."""
    runs = min(runs, SINGLE_RUNS)
    for shift, bound, least in ((0.02, 0.05, False), (0.2, 0.99, True)):
        name = f"drift.feature.shift_{shift:g}"
        rng = np.random.default_rng(seed_of(name))
        found = [single_alarm(shift, rng) for _ in range(runs)]
        rule = "Kolmogorov-Smirnov, evidence and a twentieth moved"
        yield share_row(name, rule, sum(ours for ours, _ in found), runs, bound, least)
        yield share_row(name, "Kolmogorov-Smirnov at .05", sum(naive for _, naive in found), runs)
    for size in (100, 1_000, 100_000):
        name = f"drift.psi.{size:_}"
        null, tenth = stability_alarms(size, runs, np.random.default_rng(seed_of(name)))
        # Promised is .05; the rest is what 1,000 runs leave open.
        yield share_row(name, "PSI above its threshold at .05, nothing changed", null, runs, 0.07)
        yield share_row(name, "PSI above .1, nothing changed", tenth, runs)


def day_rows(runs: int = DAY_RUNS) -> Iterator[Row]:
    """One feature whose days differ as they always did: alarms of each test of a day."""
    runs = min(runs, DAY_RUNS)
    for method in (kolmogorov_smirnov, jensen_shannon, population_stability, chi_square):
        name = f"drift.days.{method.__name__}"
        found_in = alike_days(method, runs, np.random.default_rng(seed_of(name)))
        yield share_row(name, "above its threshold at .01, days differ as they did", found_in.days, runs, 0.02)
        yield share_row(name, "the same, values independent", found_in.independent, runs)


def feature_rows(runs: int = FEATURE_RUNS) -> Iterator[Row]:
    """Any false alarm in a run of many features and looks, with a daily season and levels that wander."""
    runs = min(runs, FEATURE_RUNS)
    name = f"drift.features.{FEATURES}_x_{LOOKS:_}"
    rng = np.random.default_rng(seed_of(name))
    seen = [watch_features(rng, naive=run < runs // 10) for run in range(runs)]
    naive = seen[: runs // 10]
    yield share_row(name, "any alarm at one in 16,000 days", sum(one.ours for one in seen), runs, 0.05)
    for rule, alarms in (
        ("Kolmogorov-Smirnov at .05 / 20, values independent", sum(one.independent for one in naive)),
        ("PSI above .1", sum(one.tenth for one in naive)),
        ("PSI above .25", sum(one.quarter for one in naive)),
    ):
        yield share_row(name, rule, alarms, max(len(naive), 1))


def moved_rows(runs: int = MOVED_RUNS) -> Iterator[Row]:
    """Whether one feature that moves is found, and no other, by those who look every hour at the last day."""
    runs = min(runs, MOVED_RUNS)
    name = "drift.features.one_moves"
    rng = np.random.default_rng(seed_of(name))
    looks = [looks_until_found(0.75, rng) for _ in range(runs)]
    rule = "three quarters of a deviation from the first hour on: it alone is found"
    yield share_row(name, rule, sum(found <= LOOKS for found in looks), runs, 0.9, least=True)
    yield median_row(name, "looks until then, the first after a whole day", looks)


def unused_rows(runs: int = UNUSED_RUNS) -> Iterator[Row]:
    """Features that the model does not use move: what is reported, and whether a retraining begins."""
    runs = min(runs, UNUSED_RUNS)
    name = "drift.unused_features"
    seen = [watch(rng) for rng in np.random.default_rng(seed_of(name)).spawn(runs)]

    def declined(one: Seen) -> bool:
        return bool(one.declined) and all(why.endswith(UNUSED_REASON) for why in one.declined)

    yield share_row(name, "a retraining begins", sum(one.retrainings > 0 for one in seen), runs, 0.05)
    reported = sum(one.reported == MOVING for one in seen)
    yield share_row(name, "they are reported, and no other", reported, runs, 0.9, least=True)
    answered = sum(map(declined, seen))
    yield share_row(name, "declined: the model uses none of them", answered, runs, 0.9, least=True)
    name = "drift.unused_features.and_clicks"
    both = [watch(rng, MORE_CLICKS) for rng in np.random.default_rng(seed_of(name)).spawn(max(runs // 3, 1))]
    begun = sum(one.retrainings > 0 for one in both)
    yield share_row(
        name, f"{MORE_CLICKS:g} times the clicks too: a retraining begins", begun, len(both), 0.85, least=True
    )


def cost_rows(_: int = 0) -> Iterator[Row]:
    """Time on this machine, the best of several."""
    rng = np.random.default_rng(1)
    for size, bound in ((SIZE, 2.0), (1, None)):
        blocks = Stream(size=size).blocks(RATE, 2_000 * size, rng)
        detector = EDetector(Baseline.of([Block(REFERENCE, REFERENCE * RATE, REFERENCE)]), BETWEEN)

        def watch(blocks: list[Block] = blocks, detector: EDetector = detector) -> None:
            for block in blocks:
                detector.update(Block(block.count, block.total, block.expected))

        micros = best_s(watch) / 2_000 / size * 1e6
        yield time_row("drift.cost.outcome", f"us an outcome, in blocks of {size}", micros, bound)
    before, now = rng.normal(size=100_000), rng.normal(size=100_000)
    reference = Reference.of_numbers("x", before)
    counts = reference.cells.count(now)
    name = "drift.cost.check"
    check = best_s(lambda: compare([reference], {"x": reference.cells.count(now)}, Dial()))
    yield time_row(name, "ms to count and compare 100,000 values", 1e3 * check, 3.0)
    yield time_row(name, "ms to compare them", 1e3 * best_s(lambda: compare([reference], {"x": counts}, Dial())))
    yield time_row(name, "ms of scipy", 1e3 * best_s(lambda: ks_2samp(before, now)))


def best_s(action: Callable[[], object], times: int = 5) -> float:
    """Seconds of the fastest of several calls: what else runs only adds."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        action()
        found.append(time.perf_counter() - start)
    return min(found)


def time_row(name: str, rule: str, value: float, bound: float | None = None) -> Row:
    """A time, which has no seed."""
    return Row(name, rule, value, bound, None if bound is None else value <= bound, 5, 0)


PARTS: Mapping[str, Callable[[int], Iterator[Row]]] = {
    "drift.alarms": false_alarm_rows,
    "drift.delays": delay_rows,
    "drift.single": single_rows,
    "drift.days": day_rows,
    "drift.features": feature_rows,
    "drift.moved": moved_rows,
    "drift.unused": unused_rows,
    "drift.loop": loop_rows,
    "drift.globo": globo_rows,
    "drift.cost": cost_rows,
}
