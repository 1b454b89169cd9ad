"""Experiments through the tracker itself, many times: outcomes by partition, looks, and a restart.

What ``benchmarks.watched`` shows of the rule is to hold for what decides in production: arms as users are hashed to
them, whole answers whose clicks are known before the rest, sums by partition, and records that are read back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.answers import answer, begun, outcome
from millrace.experiments.life import STOPPED
from millrace.experiments.tracker import Tracker, TrackerLimits
from millrace.v1.experiment_pb2 import Arm, Experiment, ExperimentDefinition
from millrace.v1.outcome_pb2 import Label, Outcome

ANSWERS, SHOWN, USERS, PARTITIONS = 2_000, 5, 800, 3
RATE, SPREAD = 0.1, 0.1
"""Users' own rates are Beta(1, 9): the correlation of a user's slots is .09, and users come back."""
MINIMUM_USERS = 100
EVERY = 20
"""Answers between two looks: the tracker looks five times a second."""
BEGIN_MS = 1_700_000_000_000

_LIMITS = TrackerLimits(holdout=0.0, users_max=10 * USERS, answers_max=USERS, purchase_wait_ms=1)
_CLICKED, _NOT = Label.LABEL_POSITIVE, Label.LABEL_NEGATIVE


@dataclass(slots=True)
class Decided:
    """How many of the runs were decided, either way.

    Attributes
    ----------
    ours
        By the tracker.
    z
        By a z test of the arms' click-throughs at .05 at any of the looks.
    """

    runs: int
    ours: int = 0
    z: int = 0


def watch_tracker(runs: int, seed: int, lift: float = 0.0) -> Decided:
    """Run an experiment of two arms many times; the second one's rates are higher by ``lift``, relative."""
    decided = Decided(runs)
    for number, generator in enumerate(np.random.default_rng(seed).spawn(runs)):
        ours, z = _run(f"{seed}-{number}", generator, lift)
        decided.ours += ours
        decided.z += z
    return decided


def _run(name: str, random: np.random.Generator, lift: float) -> tuple[bool, bool]:
    tracker, given, z = Tracker(_LIMITS), _definition(name), False
    tracker.restore({name: begun(given)}, {}, {})
    restart = random.integers(ANSWERS)
    for number, came in enumerate(_answers(given, random, lift)):
        for partition, each in came:
            tracker.outcome(each, partition, each.decided_at_ms)
        if number == restart:
            tracker = _restarted(tracker)
        if number % EVERY == EVERY - 1:
            tracker.decide(BEGIN_MS + number)
            record = tracker.experiments[name]
            z = z or _z(record) > 1.959964
            if record.state == STOPPED:
                return True, z
    return False, z


def _definition(name: str) -> ExperimentDefinition:
    return ExperimentDefinition(
        experiment_id=name,
        model_name="ranker",
        traffic=1.0,
        arms=[Arm(name="a", share=0.5, control=True), Arm(name="b", share=0.5)],
        minimum_users=MINIMUM_USERS,
        expected_rate=RATE,
        expected_lift=0.3,
    )


def _answers(
    given: ExperimentDefinition, random: np.random.Generator, lift: float
) -> Iterator[list[tuple[int, Outcome]]]:
    """What came of each answer, with its partition: clicks first, in an outcome of their own."""
    rates = random.beta(RATE / SPREAD, (1 - RATE) / SPREAD, USERS)
    users = random.integers(USERS, size=ANSWERS)
    coins = random.random((ANSWERS, SHOWN))
    for number, user in enumerate(users.tolist()):
        shown = answer(given, f"shopper-{user}", f"r{number}", BEGIN_MS + number)
        rate = rates[user] * (1 + lift if shown.arm == "b" else 1)
        clicks = int((coins[number] < rate).sum())
        rest = SHOWN - clicks
        came = []
        if clicks:
            came.append(outcome(shown, [_CLICKED] * clicks, final=not rest))
        if rest:
            came.append(outcome(shown, [_NOT] * rest, first=not clicks, rank=clicks))
        yield [(user % PARTITIONS, one) for one in came]


def _restarted(tracker: Tracker) -> Tracker:
    """Another process that goes on from what was written: all of it, for this is the first time."""
    _, parts = tracker.changes()
    again = Tracker(_LIMITS)
    again.restore(tracker.experiments, {key: part for key, part in parts if part is not None}, {})
    return again


def _z(record: Experiment) -> float:
    """Difference of the arms' click-throughs over its standard error, pooled, without its sign."""
    (a, b) = record.figures
    if min(a.users, b.users) < MINIMUM_USERS:
        return 0.0
    rate = (a.clicks + b.clicks) / (a.slots + b.slots)
    error = math.sqrt(rate * (1 - rate) * (1 / a.slots + 1 / b.slots))
    return abs(a.clicks / a.slots - b.clicks / b.slots) / error if error else 0.0
