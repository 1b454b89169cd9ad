"""Experiments through the tracker itself, many times: outcomes by partition, looks, and a restart.

What ``benchmarks.watched`` shows of the rule is to hold for what decides in production: arms as users are hashed to
them, whole answers whose clicks are known before the rest, sums by partition, and records that are read back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.answers import answer, begun, outcome
from millrace.experiments.definition import CLICKS
from millrace.experiments.life import STOPPED
from millrace.experiments.record import sums_of
from millrace.experiments.tracker import Tracker, TrackerLimits
from millrace.v1.experiment_pb2 import AllocationPolicy, Arm, Experiment, ExperimentDefinition, Period
from millrace.v1.outcome_pb2 import Label, Outcome

ANSWERS, SHOWN, USERS, PARTITIONS = 2_000, 5, 800, 3
RATE, SPREAD = 0.1, 0.1
"""Users' own rates are Beta(1, 9): the correlation of a user's slots is .09, and users come back."""
MINIMUM_USERS = 100
EVERY = 20
"""Answers between two looks: the tracker looks five times a second."""
BEGIN_MS, STEP_MS = 1_700_000_000_000, 1_000
EARLIER = 200
"""Slots that each user saw before the experiment: 20 clicks on average, which tell the rate to a fifth."""
PERIODS, FLOOR = 20, 0.1
"""Of Thompson sampling."""

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
    errors
        Of each run, the standard error of the difference for each slot at its end.
    """

    runs: int
    ours: int = 0
    z: int = 0
    errors: list[float] = field(default_factory=list)


def watch_tracker(
    runs: int, seed: int, lift: float = 0.0, thompson: bool = False, earlier_activity: bool = False
) -> Decided:
    """Run an experiment of two arms many times; the second one's rates are higher by ``lift``, relative."""
    decided = Decided(runs)
    for number, generator in enumerate(np.random.default_rng(seed).spawn(runs)):
        given = two_arms(f"{seed}-{number}")
        given.earlier_activity = earlier_activity
        if thompson:
            given.policy = AllocationPolicy.ALLOCATION_POLICY_THOMPSON
            given.period_ms, given.floor = ANSWERS * STEP_MS // PERIODS, FLOOR
        record, z = run(given, generator, lift)
        decided.ours += record.state == STOPPED
        decided.z += z
        decided.errors.append(_error(record))
    return decided


def _error(record: Experiment) -> float:
    """Standard error of the difference for each slot."""
    sums = sums_of(record.figures[1], CLICKS)
    return math.sqrt(sums.variance) / sums.slots


def run(
    given: ExperimentDefinition,
    random: np.random.Generator,
    lift: float = 0.0,
    rate: float = RATE,
    items: Mapping[str, int] | None = None,
) -> tuple[Experiment, bool]:
    """Run an experiment once; its record at the end, and whether a z test would have decided.

    Parameters
    ----------
    rate
        Click rate of the first arm, on average over users.
    items
        How many items each arm shows, all of them alike; None: both the same few.
    """
    tracker, name, z = Tracker(_LIMITS), given.experiment_id, False
    tracker.restore({name: begun(given, BEGIN_MS)}, {}, {})
    restart = random.integers(ANSWERS)
    shop = Shop(random, lift, rate, items)
    for number in range(ANSWERS):
        record = tracker.experiments[name]
        for partition, each in shop.answer(record.definition, number, record.periods):
            tracker.outcome(each, partition, each.decided_at_ms)
        if number == restart:
            tracker = _restarted(tracker)
        if number % EVERY == EVERY - 1:
            tracker.decide(BEGIN_MS + number * STEP_MS)
            record = tracker.experiments[name]
            z = z or _z(record) > 1.959964
            if record.state == STOPPED:
                break
    return record, z


def two_arms(name: str) -> ExperimentDefinition:
    """An experiment of two arms with equal shares."""
    return ExperimentDefinition(
        experiment_id=name,
        model_name="ranker",
        traffic=1.0,
        arms=[Arm(name="a", share=0.5, control=True), Arm(name="b", share=0.5)],
        minimum_users=MINIMUM_USERS,
        expected_rate=RATE,
        expected_lift=0.3,
    )


class Shop:
    """Shoppers who come back, each with a rate of their own."""

    def __init__(self, random: np.random.Generator, lift: float, rate: float, items: Mapping[str, int] | None) -> None:
        self._rates = random.beta(rate / SPREAD, (1 - rate) / SPREAD, USERS)
        self._users = random.integers(USERS, size=ANSWERS)
        self._coins = random.random((ANSWERS, SHOWN))
        self._lift = lift
        self._earlier = random.poisson(EARLIER * self._rates)
        self._random, self._items = random, items

    def answer(
        self, given: ExperimentDefinition, number: int, periods: Sequence[Period]
    ) -> Iterator[tuple[int, Outcome]]:
        """What came of an answer, with its partition: clicks first, in an outcome of their own."""
        user = int(self._users[number])
        shown = answer(given, f"shopper-{user}", f"r{number}", BEGIN_MS + number * STEP_MS, periods)
        shown.earlier_activity = int(self._earlier[user])
        rate = self._rates[user] * (1 + self._lift if shown.arm == "b" else 1)
        clicks = int((self._coins[number] < rate).sum())
        rest = SHOWN - clicks
        items = self._drawn(shown.arm)
        if clicks:
            yield user % PARTITIONS, outcome(shown, [_CLICKED] * clicks, final=not rest, items=items[:clicks])
        if rest:
            yield user % PARTITIONS, outcome(shown, [_NOT] * rest, first=not clicks, rank=clicks, items=items[clicks:])

    def _drawn(self, arm: str) -> list[str]:
        if self._items is None:
            return []
        return [f"i{item}" for item in self._random.permutation(self._items[arm])[:SHOWN].tolist()]


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
