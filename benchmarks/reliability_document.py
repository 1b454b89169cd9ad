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
FAILS_OVER = "a node of a Redis Cluster fails over"
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
    FAILS_OVER: Fault(
        "`kill -9` of one of three masters, up to a second after the first write that its replica does not have; the "
        "replica takes over, and what died comes back as the replica; the feature updater lives, and 12 users act on "
        "20 items all the time",
        "as for the feature updater",
    ),
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
that this one does not know. `make test` does a fifth of it with a fifth of the events (but for three brokers and
upgrades), and `CHAOS_TIMES=1 make chaos` does a fifth of all. How nothing is lost: section by section in
[decision 2](decisions/0002-redis-layout.md), [4](decisions/0004-group-protocol.md),
[5](decisions/0005-transactions-and-lines-of-learning.md) and
[31](decisions/0031-three-traps-of-brokers-and-clients.md).

*Recovered* is the time from the fault to the next work done, median and longest, with a process that stands ready to
start. A broker gives up on dead workers after 1 s here (3 s where learners take over) and on dead brokers after 5 s;
in the embedded stack and docker-compose after 6 s and 9 s.
"""

_AWAY = """
## When something is away

Each of these is caused by a test, and the recommender recovers from it by itself.

| away | what the recommender does | bound | test |
|---|---|---|---|
| Redis | answers with trending items, marked `degraded` | `MILLRACE_RECOMMENDER_FEATURES_TIMEOUT_MS` later | `tests/integration/test_recommender_failures.py` |
| Redis is slow, and answers | as above; a command waits no longer, though others before it are answered; more than may be under way is refused at once (`RESOURCE_EXHAUSTED`) | the same; `MILLRACE_RECOMMENDER_CONCURRENT_MAX` | `tests/integration/test_recommender_slow_redis.py` |
| Kafka | answers from what it knows; impressions wait, more are dropped and counted (`/readyz`, `millrace_recommender_impressions_dropped_total`); what waited is on the topic once afterwards | `MILLRACE_RECOMMENDER_IMPRESSIONS_PENDING_MAX` impressions, each for 5 minutes (librdkafka's `message.timeout.ms`) | `tests/integration/test_recommender_impressions.py` |
| MLflow | ranks with the version that it has on disk | | `tests/integration/test_recommender_experiments.py` |
| time: a request's deadline has passed | works on it no further, answers `DEADLINE_EXCEEDED`, counts it | `MILLRACE_RECOMMENDER_DEADLINE_MS`, or the caller's | `tests/unit/test_recommender_deadlines.py` |
| the recommender: SIGTERM, one replica after another | is not asked any more, then drains: no call fails | | `tests/integration/test_recommender_restarts.py` |

A recommender that is killed with -9 takes along the impressions that the broker has not acknowledged: those of the last
`MILLRACE_RECOMMENDER_LINGER_MS` (5 ms) and of one delivery, which takes milliseconds. While Kafka is away they are all
that wait, and never more than `MILLRACE_RECOMMENDER_IMPRESSIONS_PENDING_MAX` and the answers that were on their way
(`MILLRACE_RECOMMENDER_CONCURRENT_MAX`). None is doubled.
"""  # noqa: E501


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
    yield _AWAY.rstrip()


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
