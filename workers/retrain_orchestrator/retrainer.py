"""Takes a retraining from step to step: its jobs, and the commands that give its version an experiment.

What is to be done follows from the ledger alone, at every look: who is killed and starts again, or takes over, finds
the state in ``model-events``, begins the job of it anew (which finds what it made already) and sends the same commands.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from google.protobuf.json_format import ParseDict
from prometheus_client import Gauge

from millrace.errors import MillraceError
from millrace.experiments.gate import FAILED, judge
from millrace.registry import challenge
from millrace.registry.controller import Controller
from millrace.registry.ledger import Ledger
from millrace.registry.reconcile import step_id
from millrace.registry.retraining import CHALLENGER, ENDED, REJECTED, TRAINS, Retraining, State
from millrace.registry.triggers import look, may_train
from millrace.settings import DAY_MS, HOUR_MS, RetrainSettings
from millrace.stream.backoff import Backoff
from millrace.v1.command_pb2 import Command
from millrace.v1.drift_pb2 import DriftSignal
from millrace.v1.experiment_pb2 import Experiment, ExperimentDefinition, Gate, GateEvidence
from millrace.v1.model_pb2 import ModelEvent, ModelEventType
from workers.retrain_orchestrator.jobs import CANCELLED, NOT_ENOUGH, UNUSABLE, Job

log = structlog.stdlib.get_logger(__name__)

RETRAINING = Gauge("millrace_orchestrator_retraining", "1 in the state of the newest retraining.", ["model", "state"])

TRAIN = ("-m", "workers.retrain_orchestrator.train")
MEASURE = ("-m", "workers.retrain_orchestrator.measure")
# A job that was killed, or whose servers were away, is started so often by one process; then it has failed.
TRIES = 3
_AGAIN_MAX_S = 60.0
# As people's commands: one may get lost until the experiment runs.
_SEND_AGAIN_S = 5.0
# What was measured is of the champion's answers of a day; those of an hour more would not change the verdict.
_MEASURED_FOR_MS = HOUR_MS

_ENDING = {
    NOT_ENOUGH: "there is too little to learn from",
    UNUSABLE: "what there is cannot be learned from",
    CANCELLED: "the job was told to end",
}


class Retrainer:
    """Does what the retraining under way needs; for one thread at a time.

    Parameters
    ----------
    experiments
        The records of experiments that have come by now.
    send
        Puts a command into its topic, by the id of its experiment.
    train, measure
        How the interpreter starts the jobs; their own arguments follow.
    """

    def __init__(
        self,
        settings: RetrainSettings,
        controller: Controller,
        experiments: Callable[[], Sequence[Experiment]],
        signals: Callable[[], Sequence[DriftSignal]],
        send: Callable[[str, Command], None],
        train: Sequence[str] = TRAIN,
        measure: Sequence[str] = MEASURE,
    ) -> None:
        self._settings, self._controller = settings, controller
        self._experiments, self._signals, self._send = experiments, signals, send
        self._train, self._measure = train, measure
        self._job: Job | None = None
        # Failures of the job of this name, and when it may be tried again.
        self._failed, self._failures, self._again_at = "", 0, 0.0
        self._backoff = Backoff(_AGAIN_MAX_S)
        self._gate: Gate | None = None
        self._send_at = 0.0
        self._said = ""

    def step(self) -> None:
        """Do what is open now; does not wait for jobs. Raises MillraceError."""
        now_ms = time.time_ns() // 1_000_000
        newest, champion, waits = self._controller.read(
            lambda ledger: (
                ledger.retrainings.newest,
                ledger.champion,
                look(ledger, self._signals(), self._settings, now_ms).waits,
            )
        )
        self._say(newest, waits)
        if newest is None or newest.state not in (State.TRAINING, State.EVALUATING):
            self.stand_by()
        if newest is None:
            return
        if newest.state == State.COLLECTING:
            if may_train(newest, self._settings, now_ms):
                self._write(newest, TRAINS, newest.reason)
        elif newest.state == State.TRAINING:
            self._have_trained(newest, now_ms)
        elif newest.version:
            self._look_after(newest, champion, now_ms)

    def stand_by(self) -> bool:
        """No job is wanted here, now; whether none works any more."""
        if self._job is not None and self._job.end():
            self._job = None
        return self._job is None

    def _have_trained(self, present: Retraining, now_ms: int) -> None:
        if now_ms > present.changed_at_ms + self._settings.training_max_ms:
            hours = self._settings.training_max_ms / HOUR_MS
            self._write(present, ENDED, f"no version after {hours:g} hours (RETRAIN_TRAINING_MAX_MS)")
            return
        arguments = [
            *self._train,
            f"--model={self._controller.model_name}",
            f"--job={present.retraining_id}",
            f"--reason={present.reason or 'asked for'}",
        ]
        answer = self._answer(f"train {present.retraining_id}", arguments)
        # Done: its version stands in the registry, with the verdict of the gates, and the controller sees it.
        if answer is not None and "problem" in answer:
            self._write(present, ENDED, str(answer["problem"]))

    def _look_after(self, present: Retraining, champion: str, now_ms: int) -> None:
        """See that the version gets its experiment, and that this ends."""
        definition = challenge.definition_of(self._controller.model_name, present, self._settings.challenged_share)
        records = self._experiments()
        record = next(
            (one for one in records if one.definition.experiment_id == definition.experiment_id), Experiment()
        )
        if present.state == State.EVALUATING:
            if record.started_at_ms:
                self._write(present, CHALLENGER, f"experiment {definition.experiment_id}")
            else:
                self._give_traffic(present, definition, champion, now_ms)
        elif present.state == State.CHALLENGER:
            why = challenge.without_winner(record, present.version)
            late = now_ms > present.changed_at_ms + self._settings.experiment_max_ms
            if why:
                why = f"no decision after {self._settings.experiment_max_ms / DAY_MS:g} days" if late else why
                self._write(present, REJECTED, f"experiment {definition.experiment_id}: {why}")
            elif late and record.state == challenge.RUNNING:
                self._ask([challenge.stop(present, definition, now_ms)], definition)
        elif record.state == challenge.RUNNING:
            # Cancelled, or somebody promoted the version.
            self._ask([challenge.stop(present, definition, now_ms)], definition)

    def _give_traffic(self, present: Retraining, definition: ExperimentDefinition, champion: str, now_ms: int) -> None:
        gate = self._measured(present, champion, now_ms)
        if gate is None:
            return
        if gate.verdict == FAILED:
            self._write(present, REJECTED, f"version {present.version} gets no traffic: {gate.reason}")
            return
        problem = challenge.room(definition, self._experiments())
        if problem:
            self._note(f"the experiment waits: {problem}")
        else:
            self._ask(challenge.commands(present, definition, gate, now_ms), definition)

    def _measured(self, present: Retraining, champion: str, now_ms: int) -> Gate | None:
        """What is known of the version beside this champion; None while it is measured."""
        if self._gate is not None:
            known = self._gate.evidence
            same = (known.model_version, known.champion_version) == (present.version, champion)
            if same and known.at_ms > now_ms - _MEASURED_FOR_MS:
                return self._gate
        name, model = f"measure {present.version} beside {champion}", self._controller.model_name
        arguments = [*self._measure, f"--model={model}", f"--version={present.version}", f"--champion={champion}"]
        answer = self._answer(name, arguments)
        if not answer:
            return None
        if "problem" in answer:
            # The version has passed its gates: one that cannot be measured now is measured later.
            return None
        self.stand_by()
        self._gate = judge(ParseDict(answer, GateEvidence()))
        log.info("measured", version=present.version, reason=self._gate.reason)
        return self._gate

    def _answer(self, name: str, arguments: Sequence[str]) -> dict[str, Any] | None:
        """What the job of this name says, which is begun unless it is there; None while it works.

        With ``problem`` if it has failed for good.
        """
        if self._job is not None and self._job.name != name:
            self.stand_by()
        if self._job is None:
            if time.monotonic() < self._again_at:
                return None
            log.info("begins", job=name)
            try:
                self._job = Job(name, arguments)
            except OSError as error:
                raise MillraceError(f"no job can be started on this machine: {error}") from error
        if self._job.name != name or self._job.status is None:
            return None
        status, answer = self._job.status, self._job.answer()
        if status == 0 and answer:
            self._failures = 0
            self._backoff.reset()
            return answer
        problem = answer.get("problem") or _ENDING.get(status, f"the job ended with status {status}")
        self._failures = self._failures + 1 if self._failed == name else 1
        self._failed = name
        self._again_at = time.monotonic() + self._backoff.next()
        self.stand_by()
        if status in _ENDING or self._failures >= TRIES:
            self._failures = 0
            return {"problem": problem}
        log.warning("failed, is begun again", job=name, problem=problem)
        return None

    def _ask(self, commands: Sequence[Command], definition: ExperimentDefinition) -> None:
        """Send commands to the tracker, every few seconds until it has acted on them."""
        if time.monotonic() < self._send_at:
            return
        self._send_at = time.monotonic() + _SEND_AGAIN_S
        for command in commands:
            self._send(definition.experiment_id, command)

    def _write(self, present: Retraining, kind: ModelEventType.ValueType, reason: str) -> None:
        """Write a step, unless something else has happened to the retraining meanwhile."""

        def event(ledger: Ledger, now_ms: int) -> ModelEvent | None:
            if ledger.retrainings.newest != present:
                return None
            return ModelEvent(
                event_id=step_id(ledger.model_name, f"retraining/{present.retraining_id}/{kind}"),
                retraining_id=present.retraining_id,
                model_name=ledger.model_name,
                model_version=present.version,
                type=kind,
                at_ms=now_ms,
                reason=reason,
            )

        self._controller.settle(event)

    def _say(self, newest: Retraining | None, waits: Sequence[str]) -> None:
        for state in State:
            here = newest is not None and newest.state == state
            RETRAINING.labels(self._controller.model_name, state).set(here)
        if newest is None or not newest.is_open:
            self._note("; ".join(waits))

    def _note(self, why: str) -> None:
        """Say why nothing happens, once for each reason: times in it go down."""
        kind = re.sub(r"\d+", "", why)
        if kind != self._said and why:
            log.info("no step", model=self._controller.model_name, why=why)
        self._said = kind
