"""``docs/reliability.md``, written from ``results/reliability.json`` alone: what was not measured is said to be that.

``make chaos`` has the tests of ``tests/chaos`` write a line for each fault that they cause, gives them to
``python -m benchmarks.reliability_document LINES``, and so replaces the rows of the same faults in the results. Without
lines the document is written as the results are.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import click

RESULTS = Path(__file__).parent / "results" / "reliability.json"
DOCUMENT = Path(__file__).parents[1] / "docs" / "reliability.md"

NOT_MEASURED = "not measured yet"
EVENTS_GOAL, FAULTS_GOAL, RECOVERY_GOAL_S = 1_000_000, 200, 15.0


@dataclass(frozen=True, slots=True)
class Fault:
    """What may befall the system.

    Attributes
    ----------
    how
        How it is caused.
    counted
        What is held against the ledger.
    """

    how: str
    counted: str = ""


UPDATER_DIES, JOINER_DIES, LEARNER_DIES = "the feature updater dies", "the outcome joiner dies", "the learner dies"
TAKEOVER, ORCHESTRATOR_DIES = "the learner that stands by takes over", "the retrain orchestrator dies"
REDIS_LOSES = "Redis dies and loses its last writes"
GROUPS, BROKER_RESTARTS = "groups grow from one process to four and shrink", "the broker restarts"
BROKER_DIES, CLOCK_JUMPS = "one of three brokers dies", "the clock jumps"
UPGRADE = "processes are upgraded one at a time under load"
_BOTH = "as for the feature updater and for the joiner"

FAULTS: Mapping[str, Fault] = {
    UPDATER_DIES: Fault(
        "`kill -9` at random moments and at five points: within a batch's scripts, between users and items, between "
        "items and their states, before and after a commit",
        "clicks of every user and item; all features to 1e-9; published states",
    ),
    JOINER_DIES: Fault(
        "`kill -9` at random moments and at three points of its transaction: before the positions, before and after "
        "the commit",
        "label of every slot, dead letters",
    ),
    LEARNER_DIES: Fault("`kill -9` in the middle of learning", "slots learned; weights to 1e-9"),
    TAKEOVER: Fault("`kill -9` of the learner that leads", "slots learned; weights to 1e-9"),
    ORCHESTRATOR_DIES: Fault("`kill -9` in every state of a retraining", "commands and steps, each done once"),
    REDIS_LOSES: Fault(
        "`kill -9`, up to a second cut off the end of its append-only file, started again; the feature updater lives, "
        "and 12 users act on 20 items all the time",
        "as for the feature updater",
    ),
    GROUPS: Fault(
        "feature updaters and joiners join one after another and leave by `kill -9` and by SIGTERM in turns",
        _BOTH,
    ),
    BROKER_RESTARTS: Fault(
        "the only broker ends by `kill -9` and by SIGTERM in turns and is started again; the workers live (recovered: "
        "from when it serves)",
        _BOTH,
    ),
    BROKER_DIES: Fault(
        "`kill -9` of one of three brokers, which are controllers too, and started again (three replicas, two have to "
        "acknowledge); the workers live",
        _BOTH,
    ),
    "a node of a Redis Cluster fails over": Fault(""),
    CLOCK_JUMPS: Fault(
        "the wall clocks of a feature updater and a joiner go up to an hour fast and slow (those of Python; the broker "
        "sets the times of records)",
        _BOTH,
    ),
    UPGRADE: Fault(
        "three feature updaters and three joiners are replaced by those of a later release, whose messages have fields "
        "that this one does not know, and back again (the code is the same)",
        _BOTH,
    ),
}

_HEAD = """\
# Reliability: what is promised, and what was measured

Written by `make chaos` from `benchmarks/results/reliability.json`; do not edit it by hand. A producer keeps a ledger of
what it writes while something is killed, again and again; at the end what was counted is compared with the ledger.
Kafka, Redis, MLflow and the processes are real, the seeds are fixed, and what a run meets depends on the machine's
timing as well. Producers are of three releases: the first, this one, and one of the future whose messages have fields
that this one does not know. `make test` does a tenth of it, and so does `CHAOS_TIMES=1 make chaos`; *times* says what a
row is of. How nothing is lost: section by section in [decision 2](decisions/0002-redis-layout.md),
[4](decisions/0004-group-protocol.md) and [5](decisions/0005-transactions-and-lines-of-learning.md).

*Recovered* is the time from the fault to the next work done, median and longest, with a process that stands ready to
start. Brokers here give up on dead workers after 1 s (3 s where learners take over) and on each other after 5 s; in the
embedded stack and docker-compose these are 6 s and 9 s.
"""


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one fault.

    Attributes
    ----------
    faults
        How often it was caused.
    events
        Records that went in.
    lost, doubled
        Of what is counted.
    recovered_s
        Of those that were measured.
    measured_on
        The day, as 2026-11-27.
    """

    fault: str
    faults: int
    events: int
    lost: int
    doubled: int
    recovered_s: tuple[float, ...]
    measured_on: str


def load(file: Path = RESULTS) -> list[Row]:
    """The rows; none if nothing was measured."""
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"] if file.exists() else []
    return [Row(**row | {"recovered_s": tuple(row["recovered_s"])}) for row in rows]


def merged(before: Sequence[Row], lines: Sequence[str]) -> list[Row]:
    """The rows with those of a run in place of older ones of the same faults."""
    today = time.strftime("%Y-%m-%d", time.gmtime())
    found = {row.fault: row for row in before}
    for line in lines:
        row = json.loads(line)
        found[row["fault"]] = Row(**row | {"recovered_s": tuple(row["recovered_s"]), "measured_on": today})
    return [found[fault] for fault in FAULTS if fault in found]


def document(rows: Sequence[Row]) -> str:
    """The whole text."""
    return "\n".join(_lines(rows)) + "\n"


def _lines(rows: Sequence[Row]) -> Iterator[str]:
    found = {row.fault: row for row in rows}
    yield _HEAD
    yield "| fault | how | times | events in | lost | doubled | recovered | compared | measured |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for name, fault in FAULTS.items():
        row = found.get(name)
        if row is None:
            yield f"| {name} | {fault.how} | {NOT_MEASURED} | | | | | {fault.counted} | |"
            continue
        counts = f"{row.faults:,} | {row.events:,} | {_none(row.lost)} | {_none(row.doubled)}"
        yield f"| {name} | {fault.how} | {counts} | {_recovered(row)} | {fault.counted} | {row.measured_on} |"
    yield ""
    events, faults = sum(row.events for row in rows), sum(row.faults for row in rows)
    wrong = sum(row.lost + row.doubled for row in rows)
    yield f"In all {events:,} events and {faults:,} faults; {wrong:,} lost or doubled."
    short = [
        f"{goal:,} {what}"
        for goal, what, at in ((EVENTS_GOAL, "events", events), (FAULTS_GOAL, "faults", faults))
        if at < goal
    ]
    if short:
        yield f"The goal of one run, not reached yet: {' and '.join(short)}."


def _none(count: int) -> str:
    return f"**{count:,}**" if count else "0"


def _recovered(row: Row) -> str:
    if not row.recovered_s:
        return ""
    longest = max(row.recovered_s)
    late = "" if longest < RECOVERY_GOAL_S else f", **above {RECOVERY_GOAL_S:g} s**"
    return f"{median(row.recovered_s):.1f} s, {longest:.1f} s{late}"


@click.command()
@click.argument("lines", type=click.Path(path_type=Path, exists=True), required=False)
def main(lines: Path | None) -> None:
    """Write the document, and before it what LINES hold into the results."""
    rows = load()
    if lines is not None:
        rows = merged(rows, lines.read_text(encoding="utf-8").splitlines())
        RESULTS.write_text(json.dumps({"rows": [asdict(row) for row in rows]}, indent=1) + "\n", encoding="utf-8")
    DOCUMENT.write_text(document(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
