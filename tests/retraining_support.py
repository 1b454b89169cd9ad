"""A world in memory around an orchestrator that may be killed: topics, registry and tracker; its jobs are processes."""

from __future__ import annotations

import itertools
import json
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from millrace.errors import InvalidField
from millrace.experiments.life import obey, target
from millrace.registry.controller import Controller
from millrace.registry.gates import GATES_TAG, PASSED
from millrace.registry.ledger import Ledger, fold
from millrace.registry.retraining import Retraining, State
from millrace.registry.view import RegisteredVersion, RegistryView
from millrace.settings import RetrainSettings
from millrace.v1.command_pb2 import Command
from millrace.v1.common_pb2 import Position
from millrace.v1.drift_pb2 import DriftSignal
from millrace.v1.experiment_pb2 import DecisionKind, Experiment, ExperimentState
from millrace.v1.model_pb2 import ModelEvent, ModelEventType
from tests.registry_support import MODEL, Effects, MemoryJournal, MemoryRegistry
from workers.retrain_orchestrator.contest import Surroundings
from workers.retrain_orchestrator.retrainer import Retrainer

NOW = 1_800_000_000_000
# A job is a process: on a busy machine the interpreter alone takes a second to begin.
DEADLINE_S = 60.0


def event(kind: str, number: int, **fields: object) -> ModelEvent:
    made = ModelEvent(event_id=f"{kind} {number}", model_name=MODEL, at_ms=NOW, **fields)  # type: ignore[arg-type]
    made.type = ModelEventType.Value(f"MODEL_EVENT_TYPE_{kind}")
    return made


def champion() -> Ledger:
    """Version 1 serves."""
    return fold(MODEL, [event("REGISTERED", 1, model_version="1"), event("PROMOTED", 1, model_version="1")])


def started(ledger: Ledger, number: int, signal_id: str = "") -> str:
    """A retraining begins; its id."""
    begun = event("RETRAINING_STARTED", number, signal_id=signal_id)
    begun.retraining_id = begun.event_id
    ledger.apply(begun)
    return begun.event_id


JOB_SAYS = json.dumps({"version": "2"})
UNKNOWN = {"refusal": "no log yet"}
KNOWN = {"answers": 5_000, "users": 1_000, "effect_low": -0.02, "effect_high": 0.1}
WORSE = {"answers": 5_000, "users": 1_000, "effect_low": -0.2, "effect_high": -0.1}
BETTER = {"better": True, "reason": "better: saves a lot", "figures": {"low": 0.01}}


class Killed(BaseException):
    """The process is gone: nothing catches it."""


class World:
    """What outlives an orchestrator: topics, the registry, the tracker."""

    def __init__(
        self,
        folder: Path,
        wins: bool = True,
        job: str = "",
        evidence: dict[str, Any] | None = None,
        compared: dict[str, Any] | None = None,
        experiments: Literal["auto", "on", "off"] = "auto",
        tracked: bool = True,
        shadow_status: int = 0,
        signals: Sequence[DriftSignal] = (),
        collected: str = "",
    ) -> None:
        # The job leaves it behind.
        self._trained = folder / uuid.uuid4().hex
        leaves = f"pathlib.Path({str(self._trained)!r}).write_text(' '.join(sys.argv))"
        self._job = job or f"import pathlib, sys; {leaves}; print({JOB_SAYS!r})"
        self._signals, self._collected = signals, collected
        self.effects = Effects()
        self.journal = MemoryJournal(self.effects)
        self.registry = MemoryRegistry(self.effects)
        self.records: dict[str, Experiment] = {}
        self.sent: list[Command] = []
        self.starts = 0
        self._wins, self.tracked = wins, tracked
        self.settings = RetrainSettings(experiments=experiments, tracker_wait_ms=50, collect_ms=0)
        self._evidence, self._compared = evidence or UNKNOWN, compared or BETTER
        self._shadow_status = shadow_status

    def orchestrator(self) -> tuple[Controller, Retrainer]:
        """One that has just started."""
        self.starts += 1
        records = lambda: list(self.records.values())  # noqa: E731
        signals = lambda: self._signals  # noqa: E731
        controller = Controller(
            MODEL, self.journal, self.registry, time.time, records, signals=signals, retraining=self.settings
        )
        ends = [Position(topic="outcomes", topic_id="t", partition=0, offset=7)]
        evidence = {"model_version": "2", "champion_version": "1", "at_ms": now_ms(), **self._evidence}
        retrainer = Retrainer(
            self.settings,
            controller,
            Surroundings(records, self._send, lambda: ends),
            signals,
            train=("-c", self._job),
            collected=("-c", self._collected),
            measure=("-c", f"print({json.dumps(evidence)!r})"),
            shadow=("-c", f"import sys; print({json.dumps(self._compared)!r}); sys.exit({self._shadow_status})"),
        )
        return controller, retrainer

    @property
    def job_arguments(self) -> str:
        """Those of the training job that has run."""
        return self._trained.read_text()

    def train(self) -> None:
        """The job that has run makes its version, once."""
        present = self.journal.topic.retrainings.under_way
        if present is not None and self._trained.exists() and len(self.registry.held.versions) == 1:
            made = RegisteredVersion("2", "r", "", present.retraining_id, "00ff", {GATES_TAG: PASSED})
            self.registry.held = RegistryView((*self.registry.held.versions, made), self.registry.held.aliases)

    def track(self) -> None:
        """The tracker obeys, if there is one; then the version has won, or somebody stops the experiment."""
        if not self.tracked:
            return
        for command in self.sent:
            try:
                changed = obey(command, self.records, {MODEL: self.journal.topic}, now_ms())
            except InvalidField:
                continue
            if changed is not None:
                self.records[target(command)] = changed
        self.sent.clear()
        for record in self.records.values():
            if record.state == ExperimentState.EXPERIMENT_STATE_RUNNING and self._challenges():
                record.state, record.stopped_at_ms = ExperimentState.EXPERIMENT_STATE_STOPPED, now_ms()
                if self._wins:
                    record.decision.kind, record.decision.arm = DecisionKind.DECISION_KIND_PROMOTE, "new"

    def _challenges(self) -> bool:
        present = self.journal.topic.retrainings.under_way
        return present is not None and present.state == State.CHALLENGER

    def _send(self, key: str, command: Command) -> None:
        self.effects.take(f"sent {command.WhichOneof('action')}")
        self.sent.append(command)
        assert key.startswith("retrain-2-")
        self.effects.take("have sent")


def run(world: World, command: Command | None = None, kills: Sequence[int] = ()) -> list[str]:
    """Everything until the retraining has ended; the process is killed ahead of these effects, counted from the first.

    Parameters
    ----------
    command
        What asks for it; None: drift does.

    Returns what was done.
    """
    taken = itertools.count()

    def before(_effect: str) -> None:
        if next(taken) in kills:
            raise Killed

    controller, retrainer = world.orchestrator()
    controller.reconcile()
    world.effects.done.clear()
    world.effects.before = before
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            if command is not None:
                controller.answer(command)
            controller.reconcile()
            retrainer.step()
        except Killed:
            end(retrainer)
            controller, retrainer = world.orchestrator()
        world.train()
        world.track()
        newest = world.journal.topic.retrainings.newest
        follows = world.registry.held.aliases == {"champion": world.journal.topic.champion}
        if newest is not None and not newest.is_open and follows:
            end(retrainer)
            return world.effects.done
        time.sleep(0.002)  # a job is a process, which can only be asked for
    raise AssertionError(f"it did not end: {world.effects.done}")


def end(retrainer: Retrainer) -> None:
    """What the end of its process does to the job."""
    while not retrainer.stand_by():
        time.sleep(0.002)


TRAINED = ["RETRAINING_STARTED ", "RETRAINING_TRAINS ", "REGISTERED 2"]
TRIED = [
    *("sent define_experiment", "have sent", "sent start_experiment", "have sent"),
    *("CHALLENGER 2", "PROMOTED 2", "champion 2"),
]
PROBED = ["sent define_experiment", "have sent"]
WON = [*TRAINED, *PROBED, "RETRAINING_SHADOWS 2", *TRIED]


def newest_of(world: World) -> Retraining:
    newest = world.journal.topic.retrainings.newest
    assert newest is not None
    return newest


def now_ms() -> int:
    return time.time_ns() // 1_000_000
