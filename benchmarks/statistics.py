"""What rules of experiments and drift do to thousands of simulated streams whose truth is known; `make statistics`.

Each row is seeded by its name. ``value`` of a share is the share of the runs, and ``ok`` says whether its 95 % limit
(one-sided), in ``limit``, is on the right side of ``bound``. The naive rules stand beside ours, on the same outcomes
and with no bound. Rows of drift are in ``benchmarks.drift_claims``, and ``docs/drift.md`` is written from them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import drift_claims, drift_document
from benchmarks.claims import Row, seed_of, share_row
from benchmarks.gated import SHOPS, looks, truth
from benchmarks.guarded import GUARDED, watch_guardrail
from benchmarks.ratios import alarms, naive_alarms
from benchmarks.regret import regrets
from benchmarks.tracked import ANSWERS, EVERY, SHOWN, watch_tracker
from benchmarks.watched import SLOTS, Floats, Scene, watch
from millrace.cli._output import quiet_logs
from millrace.experiments.gate import FAILED, PASSED
from millrace.experiments.plan import Plan

RESULTS = Path(__file__).parent / "results" / "statistics.json"
NULL_RUNS, RUNS, REGRET_RUNS = 10_000, 2_000, 200
TRACKER_RUNS = 400
"""A third of a second of a core each."""
GATE_RUNS = 1_000
"""A twentieth of a second each."""
FALSE_GATE = 0.045
"""Promised is .025, by a normal interval; the rest is what 1,000 runs leave open, and that clicks are few."""
FALSE_PROMOTION = 0.055
"""Promised is .05; the rest is what 10,000 runs leave open."""
FALSE_STOP = 0.075
"""The same for 400 runs."""
SLOTS_A_DAY = 10_000
"""For the time that a plan takes: the traffic of the two arms in a small shop."""


def flat(at: Floats) -> Floats:
    """5 %, always."""
    return np.full_like(at, 0.05)


def season(at: Floats) -> Floats:
    """Four days of 5 % with a daily swing of 40 %."""
    return np.asarray(0.05 * (1 + 0.4 * np.sin(8 * np.pi * at)))


def rising(at: Floats) -> Floats:
    """5 % to 10 %."""
    return 0.05 + 0.05 * at


RATES: dict[str, Callable[[Floats], Floats]] = {"flat": flat, "season": season, "rising": rising}
SPREAD = 0.1
"""Correlation of a user's slots .09: the variance by user is 2.7 times that of independent slots."""
NULLS = {
    **{f"null.{name}.fixed": Scene(rate) for name, rate in RATES.items()},
    **{f"null.{name}.thompson": Scene(rate, thompson=True) for name, rate in RATES.items()},
    "null.sessions.fixed": Scene(flat, users="sessions", spread=SPREAD),
    "null.sessions.thompson": Scene(flat, users="sessions", spread=SPREAD, thompson=True),
    "null.returning.fixed": Scene(flat, users="returning", spread=SPREAD),
    "null.returning.thompson": Scene(flat, users="returning", spread=SPREAD, thompson=True),
}
OURS = "confidence sequence, by user"


def null_rows(name: str, runs: int = NULL_RUNS) -> list[Row]:
    """How often a rule decides between two equal arms, either way."""
    seen = watch(NULLS[name], runs, seed_of(name))
    either = int(((seen.better > 0) | (seen.worse > 0)).sum())
    rows = [share_row(name, OURS, either, runs, FALSE_PROMOTION)]
    if NULLS[name].users != "independent":
        rows.append(share_row(name, "confidence sequence, by slot", int((seen.by_slot > 0).sum()), runs))
    pooled = ("P(better) > .95, looked at 100 times", "z test at .05, looked at 100 times")
    return rows + [
        share_row(name, rule, int((first > 0).sum()), runs)
        for rule, first in zip(pooled, (seen.bayes, seen.z), strict=True)
    ]


def power_rows(runs: int = RUNS) -> Iterator[Row]:
    """Whether +20 % on 5 % is found within 40,000 slots, and harm of -20 % stopped; what the plan says of it."""
    for split, share, bound in (("50_50", 0.5, 0.9), ("10_90", 0.1, None)):
        name = f"power.{split}"
        seen = watch(Scene(flat, lift=0.2, share=share), runs, seed_of(name))
        yield share_row(name, OURS, int((seen.better > 0).sum()), runs, bound, least=True)
        plan = Plan(0.05, 0.2, share)
        yield Row(name, f"plan: power within {SLOTS:,} slots", plan.power(SLOTS), None, None, 0, 0)
        weeks = plan.days_needed(SLOTS_A_DAY, 1.0, 0.9) / 7
        yield Row(name, f"plan: weeks to .9 at {SLOTS_A_DAY:,} slots a day", weeks, None, None, 0, 0)
    name = "harm.50_50"
    seen = watch(Scene(flat, lift=-0.2), runs, seed_of(name))
    yield share_row(name, OURS, int((seen.worse > 0).sum()), runs, 0.9, least=True)
    median = float(np.median(seen.worse[seen.worse > 0]))
    yield Row(name, "median slots until it is stopped", median, None, None, runs, seed_of(name))


def ratio_rows(runs: int = NULL_RUNS) -> Iterator[Row]:
    """False alarms of the sample-ratio test, looked at after every user; how soon a 52/48 split is found."""
    name = "srm.right"
    first = alarms(0.5, runs, seed_of(name))
    # Markov's bound is exact: what the runs leave open is allowed for, as above.
    yield share_row(name, "Dirichlet-multinomial at .01", int((first > 0).sum()), runs, 0.01)
    looked = naive_alarms(0.5, runs, seed_of(name))
    yield share_row(name, "chi-square at .01, looked at 100 times", int((looked > 0).sum()), runs)
    name = "srm.52_48"
    found = alarms(0.52, min(runs, RUNS), seed_of(name))
    yield share_row(name, f"found within {SLOTS:,} users", int((found > 0).sum()), min(runs, RUNS), 0.9, least=True)
    middle = float(np.median(np.where(found > 0, found, np.inf)))
    yield Row(name, "median users until it is found", middle, None, None, min(runs, RUNS), seed_of(name))


def tracker_rows(runs: int = TRACKER_RUNS) -> Iterator[Row]:
    """How often the tracker itself decides between two equal arms, either way; and between a tenth and 60 % more."""
    runs = min(runs, TRACKER_RUNS)
    rule = f"the tracker, looking every {EVERY} answers"
    name = "null.tracker"
    decided = watch_tracker(runs, seed_of(name))
    yield share_row(name, rule, decided.ours, runs, FALSE_PROMOTION)
    yield share_row(name, f"z test at .05, looked at every {EVERY} answers", decided.z, runs)
    name = "null.tracker.thompson"
    moving = watch_tracker(runs, seed_of(name), thompson=True)
    yield share_row(name, rule, moving.ours, runs, FALSE_PROMOTION)
    name = "null.tracker.earlier"
    # The same shoppers as above.
    explained = watch_tracker(runs, seed_of("null.tracker"), earlier_activity=True)
    yield share_row(name, f"{rule}, with earlier activity", explained.ours, runs, FALSE_PROMOTION)
    ratio = float(np.median(np.array(explained.errors) / np.array(decided.errors)))
    yield Row(name, "standard error, with / without", ratio, 1.0, ratio < 1, runs, seed_of("null.tracker"))
    name = "power.tracker"
    found = watch_tracker(runs // 4, seed_of(name), lift=0.6)
    rule = f"the tracker, within {ANSWERS * SHOWN:,} slots"
    yield share_row(name, rule, found.ours, runs // 4, 0.9, least=True)


def guardrail_rows(runs: int = TRACKER_RUNS) -> Iterator[Row]:
    """How often a guardrail stops an arm that is no worse than is borne, and one that is; by the tracker itself."""
    runs = min(runs, TRACKER_RUNS)
    for name, guarded in GUARDED.items():
        null = name.endswith((".alike", ".at_it"))
        here = runs if null else runs // 4
        found = [slots for slots in watch_guardrail(guarded, here, seed_of(name)) if slots]
        rule = f"stopped by the tracker within {ANSWERS * SHOWN:,} slots"
        yield share_row(name, rule, len(found), here, FALSE_STOP if null else 0.9, least=not null)
        if found and not null:
            median = float(np.median(found))
            yield Row(name, "median slots until it is stopped", median, None, None, here, seed_of(name))


def gate_rows(name: str, runs: int = GATE_RUNS) -> Iterator[Row]:
    """How often the gate fails a version that is worth what the champion is, or lets through one that is not."""
    runs, shop = min(runs, GATE_RUNS), SHOPS[name]
    found = looks(shop, runs, seed_of(name))
    passed, failed = (sum(gate.verdict == one for gate in found) for one in (PASSED, FAILED))
    where = f"in {shop.answers:,} answers in random order"
    yield share_row(name, f"fails {where}", failed, runs, None if shop.noise else FALSE_GATE, least=bool(shop.noise))
    yield share_row(name, f"passes {where}", passed, runs, FALSE_GATE if shop.noise else None, least=not shop.noise)
    known, true = [gate.evidence for gate in found if not gate.evidence.refusal], truth(shop)
    yield Row(name, "the true difference", true, None, None, 0, 0)
    yield Row(
        name, "estimated, on average", float(np.mean([one.effect for one in known])), None, None, runs, seed_of(name)
    )
    held = sum(one.effect_low <= true <= one.effect_high for one in known)
    yield share_row(name, "95 % intervals that hold it", held, len(known), least=True)


def regret_rows(runs: int = REGRET_RUNS) -> Iterator[Row]:
    """Clicks lost against always showing the best of 8 arms, on average, after each quarter of the slots."""
    name = "regret.8_arms"
    thompson, uniform = regrets(runs, seed_of(name))
    for at in (10, 20, 30, 40):
        for rule, lost in (("Thompson", thompson), ("uniform", uniform)):
            yield Row(name, f"{rule}, after {at * 1_000:,} slots", float(lost[at - 1]), None, None, runs, seed_of(name))
    yield Row(
        name,
        "Thompson / uniform",
        float(thompson[-1] / uniform[-1]),
        1.0,
        bool(thompson[-1] < uniform[-1]),
        runs,
        seed_of(name),
    )


def write(rows: Sequence[Row], file: Path = RESULTS) -> None:
    """Keep the rows, and those of other names that were kept before."""
    names = {row.name for row in rows}
    before = json.loads(file.read_text(encoding="utf-8"))["rows"] if file.exists() else []
    kept = [*(row for row in before if row["name"] not in names), *(asdict(row) for row in rows)]
    file.write_text(json.dumps({"rows": kept}, indent=2) + "\n", encoding="utf-8")


def print_table(rows: Sequence[Row]) -> None:
    """A table for people."""
    table = Table()
    for column in ("figure", "rule", "value", "95 % limit", "bound", "ok", "runs"):
        table.add_column(column, no_wrap=True, justify="left" if column in ("figure", "rule") else "right")
    for row in rows:
        limit = "" if row.limit is None else f"{row.limit:.4f}"
        value = f"{row.value:,.0f}" if row.value >= 100 else f"{row.value:.4f}"
        ok = "" if row.ok is None else "yes" if row.ok else "NO"
        table.add_row(
            row.name, row.rule, value, limit, "" if row.bound is None else f"{row.bound:g}", ok, f"{row.runs:,}"
        )
    console = Console()
    (console if console.is_terminal else Console(width=160)).print(table)


def part(name: str, runs: int) -> list[Row]:
    """The rows of a part; ``runs`` are those of each null simulation."""
    # In a process of the pool: what workers log would be thousands of lines.
    quiet_logs()
    if name in NULLS:
        return null_rows(name, runs)
    if name == "tracker":
        return list(tracker_rows(runs))
    if name == "guardrail":
        return list(guardrail_rows(runs))
    if name in drift_claims.PARTS:
        return list(drift_claims.PARTS[name](runs))
    if name in SHOPS:
        return list(gate_rows(name, runs))
    parts = {"power": power_rows, "ratio": ratio_rows, "regret": regret_rows}
    return list(parts[name]())


PARTS = (*NULLS, "tracker", "guardrail", *SHOPS, "power", "ratio", "regret", *drift_claims.PARTS)


@click.command()
@click.option("--runs", default=NULL_RUNS, show_default=True, help="Runs of each simulation in which nothing happens.")
@click.option("--only", default="", help="Run the parts whose names begin like this; all other rows stay.")
def main(runs: int, only: str) -> None:
    """Simulate what is known to be true and show what each rule says of it; fails if a bound does not hold."""
    say = Console(stderr=True).print
    names = [name for name in PARTS if name.startswith(only)]
    if not names:
        raise click.BadParameter(f"no part begins with {only!r}: {', '.join(PARTS)}", param_hint="--only")
    rows: list[Row] = []
    start = time.monotonic()
    with ProcessPoolExecutor() as pool:
        for name, found in zip(names, pool.map(part, names, [runs] * len(names)), strict=True):
            rows += found
            write(rows)
            say(f"{name}: done after {time.monotonic() - start:.0f} s")
    drift_document.write(drift_document.load())
    print_table(rows)
    if any(row.ok is False for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
