"""Detector, orchestrator and experiment tracker of one model: what their processes do, at every minute of the world.

What is decided is decided by production's functions; what is here is the order in which processes would hand things to
each other, and jobs that take no time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.drift_loop.retraining import Reign, Trained, parts_of, slot_file, train
from benchmarks.drift_loop.serving import Serving
from millrace.experiments.gate import judge
from millrace.experiments.tracker import Tracker, TrackerLimits
from millrace.learning.state import fresh
from millrace.ranking.features import FEATURE_NAMES, FEATURE_SCHEMA
from millrace.ranking.first import first_ranker
from millrace.registry import challenge
from millrace.registry.drift_signals import SignalBoard
from millrace.registry.ledger import Ledger
from millrace.registry.reconcile import Append, next_step
from millrace.registry.retraining import (
    CHALLENGER,
    PROMOTED,
    REGISTERED,
    REJECTED,
    TRAINS,
    Retraining,
    State,
)
from millrace.registry.triggers import has_waited, may_train
from millrace.registry.versions import first_state
from millrace.settings import MINUTE_MS, Settings
from millrace.stream.worker import Record
from millrace.topics import DRIFT_SIGNALS
from millrace.training.change import enough
from millrace.training.slots import Slots, read_slots
from millrace.v1.drift_pb2 import DriftChannel, DriftEvidence, DriftSignal
from millrace.v1.experiment_pb2 import GateEvidence
from millrace.v1.model_pb2 import ModelEvent, ModelEventType
from millrace.v1.outcome_pb2 import Outcome
from workers.drift_detector.stored import Stored
from workers.drift_detector.watched import Watched

SETTLE_SLACK_MS = 5 * MINUTE_MS
"""As the detector's worker has it."""
COUNTED_EVERY_MS = 10 * MINUTE_MS
"""What has come since a change, while it is collected; about as often as the orchestrator asks."""
LONG_AGO_MS = 1
"""When the world changed of which who always alarms speaks: all of any window came since, so that its versions are as
those of the schedule."""
OVERRIDE = "simulated: too few answers in random order in so few days"


@dataclass(frozen=True)
class Rule:
    """What becomes of signals and of versions.

    Attributes
    ----------
    always
        Labels are said to drift at all times.
    experiments
        A version that passed its gates gets an experiment; else it is promoted at once.
    """

    always: bool = False
    experiments: bool = True


@dataclass
class Control:
    """Everything that looks after the model that a shop serves.

    Attributes
    ----------
    acts
        Whether signals may start a retraining.
    events
        What stands in ``model-events``, in order.
    heard
        Every signal as it was first said, and when, Unix milliseconds.
    trained
        Version -> what its job made.
    """

    settings: Settings
    serving: Serving
    folder: Path
    rule: Rule = field(default_factory=Rule)
    acts: bool = True
    events: list[ModelEvent] = field(default_factory=list)
    heard: list[tuple[int, DriftSignal]] = field(default_factory=list)
    trained: dict[str, Trained] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ours = self.settings.experiments
        self.ledger = Ledger(self.settings.orchestrator.model_name)
        self._settle_ms = self.settings.joiner.attribution_window_ms + SETTLE_SLACK_MS
        self._tracker = Tracker(TrackerLimits(ours.holdout, ours.users_max, ours.answers_max, ours.purchase_wait_ms))
        self._board = SignalBoard()
        self._said: set[str] = set()
        self._watched: Watched | None = None
        self._reign: Reign | None = None
        self._slots: list[Slots] = []
        self._looked_at = self._count_at = 0
        self._number = 0

    def begin(self, now_ms: int) -> None:
        """Serve the first ranker, which has no reference."""
        version = self._register("the first one", now_ms)
        self.serving.serve(version, fresh(first_ranker(), version, "", epoch=1))
        self._append(self._event(PROMOTED, version, "the only version", now_ms))

    def note_champion(self, now_ms: int) -> None:
        """Remember what the champion is now: a training job has no more than a window to find it out from."""
        self._reign = Reign(self.serving.state(self.serving.champion), now_ms)

    def retrain_now(self, now_ms: int) -> Trained:
        """A person has a version trained and promotes it, whatever the gates say."""
        version = self._register("asked for", now_ms)
        made = self._train(version, now_ms)
        self._have_served(version)
        self._append(self._event(PROMOTED, version, "asked for", now_ms))
        return made

    def take(self, outcomes: Sequence[Outcome], now_ms: int) -> None:
        """What the joiner decided, for the log, the detector and the tracker."""
        for outcome in outcomes:
            self._slots.append(read_slots(outcome, FEATURE_SCHEMA, len(FEATURE_NAMES), now_ms))
            if self._watched is not None and outcome.impression.model_version == self.ledger.champion:
                self._watched.taking.take(outcome)
            self._tracker.outcome(outcome, 0, now_ms)

    def look(self, now_ms: int) -> None:
        """A minute has gone by: say what drifts, decide experiments, take every step that is open."""
        self._detect(now_ms)
        self._tracker.decide(now_ms)
        self._tracker.saved()
        if not self.acts:
            return
        ours = self.settings
        while True:
            before = len(self.events)
            signals = self._board.holding(self.ledger.model_name, now_ms)
            step = next_step(
                self.ledger,
                (),
                None,
                now_ms,
                list(self._tracker.experiments.values()),
                ours.orchestrator.cool_down_ms,
                signals,
                ours.retrain,
            )
            if isinstance(step, Append):
                self._append(step.event)
            else:
                self._carry_on(now_ms)
            if len(self.events) == before:
                return

    def _detect(self, now_ms: int) -> None:
        said: list[DriftSignal] = []
        if self._watched is not None:
            self._watched.taking.count()
            said += self._watched.labels()
            if now_ms - self._looked_at >= self.settings.drift.check_interval_ms:
                self._looked_at = now_ms
                said += self._watched.values()
                self._watched.watch.forget()
            known = {signal.signal_id for signal in said}
            again = self._watched.signals.again(self._watched.watch.newest_ms)
            said += [signal for signal in again if signal.signal_id not in known]
            if self.rule.always:
                said.append(self._alarm(now_ms))
        for signal in said:
            kept = DriftSignal()
            kept.CopyFrom(signal)
            if kept.signal_id not in self._said:
                self._said.add(kept.signal_id)
                self.heard.append((now_ms, kept))
            self._board.take(Record(DRIFT_SIGNALS.name, 0, 0, None, kept, now_ms, (), None))

    def _alarm(self, now_ms: int) -> DriftSignal:
        assert self._reign is not None
        return DriftSignal(
            signal_id=f"always-{self.ledger.champion}",
            model_name=self.ledger.model_name,
            model_version=self.ledger.champion,
            channel=DriftChannel.DRIFT_CHANNEL_PERFORMANCE,
            first_at_ms=self._reign.at_ms,
            changed_at_ms=LONG_AGO_MS,
            at_ms=now_ms,
            holds=True,
            evidence=[DriftEvidence(name="always")],
        )

    def _carry_on(self, now_ms: int) -> None:
        """The next step of the retraining under way: what ``workers.retrain_orchestrator.retrainer`` does."""
        present = self.ledger.retrainings.newest
        if present is None or not present.is_open:
            return
        if present.state == State.COLLECTING:
            if may_train(present, self.settings.retrain, now_ms, self._is_enough(present, now_ms)):
                self._write(present, TRAINS, present.reason, now_ms)
        elif present.state == State.TRAINING:
            self._number += 1
            version = str(self._number)
            made = self._train(version, now_ms, present.since_ms)
            self._write(present, REJECTED if made.problem else REGISTERED, made.problem or "trained", now_ms, version)
        elif present.state == State.EVALUATING:
            if self.rule.experiments:
                self._challenge(present, now_ms)
            else:
                self._have_served(present.version)
                self._write(present, PROMOTED, "passed its gates", now_ms)
        elif present.state == State.CHALLENGER:
            why = challenge.without_winner(self._tracker.experiments[self._experiment_id(present)], present.version)
            late = now_ms > present.changed_at_ms + self.settings.retrain.experiment_max_ms
            if why or late:
                self._write(present, REJECTED, why or "no decision in time", now_ms)

    def _is_enough(self, present: Retraining, now_ms: int) -> bool:
        """Whether enough has come since the change; counted now and then, as the orchestrator has it counted."""
        if not has_waited(present, self.settings.retrain, now_ms) or now_ms < self._count_at:
            return False
        self._count_at = now_ms + COUNTED_EVERY_MS
        since = [part for part in self._slots if len(part) and part["appended_ms"][0] >= present.since_ms]
        with slot_file(since, self.folder / "collected") as slots:
            ours = self.settings.training
            return enough(slots, parts_of(slots, ours, present.since_ms), ours).passed

    def _challenge(self, present: Retraining, now_ms: int) -> None:
        """Give the version its experiment, as a person would who does not wait for the shadow (decision 25)."""
        given = challenge.definition_of(self.ledger.model_name, present, self.settings.retrain.challenged_share)
        gate = judge(
            GateEvidence(
                model_version=present.version,
                champion_version=self.ledger.champion,
                refusal="nothing was measured",
            )
        )
        commands = challenge.commands(present, given, gate, now_ms)
        commands[-1].start_experiment.override_reason = OVERRIDE
        for command in commands:
            self._tracker.command(command, {self.ledger.model_name: self.ledger}, now_ms)
        self._have_served(present.version)
        self.serving.experiment = self._tracker.experiments[given.experiment_id]
        self._write(present, CHALLENGER, f"experiment {given.experiment_id}", now_ms)

    def _experiment_id(self, present: Retraining) -> str:
        share = self.settings.retrain.challenged_share
        return challenge.definition_of(self.ledger.model_name, present, share).experiment_id

    def _train(self, version: str, now_ms: int, since_ms: int = 0) -> Trained:
        assert self._reign is not None
        from_ms = now_ms - self.settings.training.window_ms
        self._slots = [part for part in self._slots if not len(part) or part["appended_ms"][0] >= from_ms]
        with slot_file(self._slots, self.folder / f"slots-{version}") as slots:
            made = train(slots, self._reign, self.serving.learns, self.folder / version, self.settings, since_ms)
        self.trained[version] = made
        return made

    def _have_served(self, version: str) -> None:
        """Have a version served as learner and recommender begin with it."""
        self.serving.serve(version, first_state(self.trained[version].folder, version, ""))

    def _register(self, reason: str, now_ms: int) -> str:
        self._number += 1
        version = str(self._number)
        self._append(self._event(REGISTERED, version, reason, now_ms))
        return version

    def _write(
        self, present: Retraining, kind: ModelEventType.ValueType, reason: str, now_ms: int, version: str = ""
    ) -> None:
        event = self._event(kind, version or present.version, reason, now_ms)
        event.retraining_id = present.retraining_id
        self._append(event)

    def _event(self, kind: ModelEventType.ValueType, version: str, reason: str, now_ms: int) -> ModelEvent:
        return ModelEvent(
            event_id=f"event-{len(self.events)}",
            model_name=self.ledger.model_name,
            model_version=version,
            type=kind,
            at_ms=now_ms,
            reason=reason,
        )

    def _append(self, event: ModelEvent) -> None:
        """Write an event, and let everybody follow who follows the champion."""
        self.events.append(event)
        self.ledger.apply(event)
        if event.type == PROMOTED:
            version = event.model_version
            made = self.trained.get(version)
            state = made.state if made is not None else fresh(first_ranker(), version, "", epoch=1)
            self._reign = Reign(state, event.at_ms)
            self.serving.champion, self.serving.experiment = version, None
            self._watched = None
            if made is not None:
                self._watched = Watched(self.settings.drift, self._settle_ms, event, made.folder, Stored())
        if event.type == REJECTED:
            self.serving.experiment = None
        if self.ledger.retrainings.under_way is None:
            self.serving.keep([self.serving.champion])
