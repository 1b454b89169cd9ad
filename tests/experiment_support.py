"""Experiments, commands and outcomes for tests of the tracker."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence

from benchmarks import answers
from benchmarks.answers import outcome
from millrace.experiments.tracker import Tracker, TrackerLimits
from millrace.registry.ledger import Ledger, fold
from millrace.v1.command_pb2 import Command
from millrace.v1.experiment_pb2 import (
    Arm,
    ArmFigures,
    Decision,
    DecisionKind,
    Experiment,
    ExperimentDefinition,
    ExperimentState,
    Period,
)
from millrace.v1.impression_pb2 import Impression
from millrace.v1.model_pb2 import ModelEvent, ModelEventType
from millrace.v1.outcome_pb2 import Label, Outcome
from millrace.v1.tracker_pb2 import TrackerState
from tests.outcome_support import T0

TOPIC_IDS = {"outcomes": "o", "interactions": "i", "commands": "c"}
LIMITS = TrackerLimits(holdout=0.0, users_max=100_000, answers_max=10_000, purchase_wait_ms=3_600_000)
POSITIVE, NEGATIVE, UNSEEN = Label.LABEL_POSITIVE, Label.LABEL_NEGATIVE, Label.LABEL_UNSEEN


def definition(
    experiment_id: str = "test", versions: tuple[str, ...] = ("", "2"), **fields: object
) -> ExperimentDefinition:
    """Arms "a" (the control), "b", ... with equal shares."""
    arms = [
        Arm(name="abcdef"[place], model_version=version, share=1 / len(versions), control=place == 0)
        for place, version in enumerate(versions)
    ]
    given: dict[str, object] = {"model_name": "ranker", "traffic": 1.0, "minimum_users": 100, "arms": arms}
    return ExperimentDefinition(experiment_id=experiment_id, **(given | fields))  # type: ignore[arg-type]


def define(given: ExperimentDefinition, command_id: str = "") -> Command:
    command = Command(command_id=command_id or f"define {given.experiment_id}", issued_at_ms=T0)
    command.define_experiment.definition.CopyFrom(given)
    return command


def start(experiment_id: str = "test", command_id: str = "", override: str = "a test") -> Command:
    """Starts it whatever the gate says, unless ``override`` is empty."""
    command = Command(command_id=command_id or f"start {experiment_id}", issued_at_ms=T0)
    command.start_experiment.experiment_id = experiment_id
    command.start_experiment.override_reason = override
    return command


def stop(experiment_id: str = "test", command_id: str = "") -> Command:
    command = Command(command_id=command_id or f"stop {experiment_id}", issued_at_ms=T0)
    command.stop_experiment.experiment_id = experiment_id
    return command


def model_events() -> list[ModelEvent]:
    """Versions 1, the champion, and 2."""
    kinds = ("REGISTERED", "1"), ("PROMOTED", "1"), ("REGISTERED", "2")
    return [
        ModelEvent(
            event_id=f"{kind} {version}",
            model_name="ranker",
            model_version=version,
            type=ModelEventType.Value(f"MODEL_EVENT_TYPE_{kind}"),
            at_ms=T0,
        )
        for kind, version in kinds
    ]


def ledgers() -> Mapping[str, Ledger]:
    return {"ranker": fold("ranker", model_events())}


def answer(
    given: ExperimentDefinition, user_id: str, request_id: str, at_ms: int = T0, periods: Sequence[Period] = ()
) -> Impression:
    """An answer in the user's arm."""
    return answers.answer(given, user_id, request_id, at_ms, periods)


def traffic(
    given: ExperimentDefinition,
    users: int,
    rates: Mapping[str, float],
    seed: int = 1,
    slots: int = 5,
    variety: Mapping[str, int] | None = None,
    periods: Sequence[Period] = (),
) -> Iterator[Outcome]:
    """An answer of each user, a millisecond apart; clicks come in an outcome of their own, before the rest.

    ``variety``: of so many items each arm shows some, drawn anew for each answer; None: all show the same.
    ``periods``: all answers are of the last one, under THOMPSON.
    """
    chance = random.Random(seed)
    for number in range(users):
        shown = answer(given, f"user {seed}.{number}", f"r{seed}.{number}", T0 + number, periods)
        if given.earlier_activity:
            shown.earlier_activity = number % 7
        clicked = sum(chance.random() < rates[shown.arm] for _ in range(slots))
        drawn = chance.sample(range(variety[shown.arm]), slots) if variety else range(slots)
        items = [f"i{item}" for item in drawn]
        if clicked:
            yield outcome(shown, [POSITIVE] * clicked, final=clicked == slots, items=items[:clicked])
        if clicked < slots:
            labels = [NEGATIVE] * (slots - clicked)
            yield outcome(shown, labels, first=not clicked, rank=clicked, items=items[clicked:])


def decided(
    name: str,
    model: str,
    version: str,
    champion: str,
    kind: DecisionKind.ValueType = DecisionKind.DECISION_KIND_PROMOTE,
) -> Experiment:
    """The record of an experiment of a version against the champion, with a decision about the version."""
    return Experiment(
        definition=definition(name, versions=("", version), model_name=model),
        state=ExperimentState.EXPERIMENT_STATE_STOPPED,
        champion_version=champion,
        started_at_ms=T0,
        stopped_at_ms=T0 + 1,
        decision=Decision(kind=kind, arm="b", effect=0.1, effect_low=0.05, effect_high=0.2, reason="b +5% to +20%"),
    )


def running(given: ExperimentDefinition, limits: TrackerLimits = LIMITS) -> Tracker:
    """A tracker in which the experiment has just started."""
    tracker = Tracker(limits)
    tracker.restore({}, {}, TOPIC_IDS)
    tracker.command(define(given), ledgers(), T0)
    tracker.command(start(given.experiment_id), ledgers(), T0)
    return tracker


def figures(tracker: Tracker, arm: str, name: str = "test") -> ArmFigures:
    """Of an arm, after a decision."""
    tracker.decide(T0)
    return next(one for one in tracker.experiments[name].figures if one.name == arm)


class TrackerLog:
    """The two compacted topics that the tracker writes."""

    def __init__(self, limits: TrackerLimits) -> None:
        self._limits = limits
        self.records: dict[str, Experiment] = {}
        self.parts: dict[str, TrackerState] = {}

    def save(self, tracker: Tracker) -> None:
        records, parts = tracker.changes()
        for record in records:
            self.records[record.definition.experiment_id] = Experiment.FromString(record.SerializeToString())
        for key, part in parts:
            if part is None:
                self.parts.pop(key, None)
            else:
                self.parts[key] = TrackerState.FromString(part.SerializeToString())
        tracker.saved()

    def restored(self) -> Tracker:
        tracker = Tracker(self._limits)
        tracker.restore(self.records, self.parts, TOPIC_IDS)
        return tracker
