"""Takes a retraining from step to step: its training job, and the contest of its version with the champion.

What is to be done follows from the ledger alone, at every look: who is killed and starts again, or takes over, finds
the state in ``model-events``, begins the job of it anew (which finds what it made already) and sends the same commands.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence

import structlog
from prometheus_client import Gauge

from millrace.registry.controller import Controller
from millrace.registry.retraining import ENDED, TRAINS, Retraining, State
from millrace.registry.steps import RetrainingStep, event_of
from millrace.registry.triggers import has_waited, look, may_train
from millrace.settings import HOUR_MS, RetrainSettings
from millrace.v1.drift_pb2 import DriftSignal
from workers.retrain_orchestrator.collecting import COLLECTED, Collecting
from workers.retrain_orchestrator.contest import MEASURE, SHADOW, Contest, Surroundings
from workers.retrain_orchestrator.errand import Errand

log = structlog.stdlib.get_logger(__name__)

RETRAINING = Gauge("millrace_orchestrator_retraining", "1 in the state of the newest retraining.", ["model", "state"])

TRAIN = ("-m", "workers.retrain_orchestrator.train")


class Retrainer:
    """Does what the retraining under way needs; for one thread at a time.

    Parameters
    ----------
    signals
        Drift that holds.
    cool_down_ms
        After a rollback, no version is promoted for so long.
    train, collected, measure, shadow
        How the interpreter starts the jobs; their own arguments follow.
    """

    def __init__(
        self,
        settings: RetrainSettings,
        controller: Controller,
        surroundings: Surroundings,
        signals: Callable[[], Sequence[DriftSignal]],
        cool_down_ms: int = 0,
        train: Sequence[str] = TRAIN,
        collected: Sequence[str] = COLLECTED,
        measure: Sequence[str] = MEASURE,
        shadow: Sequence[str] = SHADOW,
    ) -> None:
        self._settings, self._controller = settings, controller
        self._signals, self._cool_down_ms = signals, cool_down_ms
        self._train, self._training = train, Errand()
        self._collecting = Collecting(collected, self._note)
        self._contest = Contest(settings, controller.model_name, surroundings, self._write, self._note, measure, shadow)
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
        if newest is None or newest.state != State.TRAINING:
            self._training.stop()
        if newest is None or newest.state != State.COLLECTING:
            self._collecting.stop()
        if newest is None or not newest.version:
            self._contest.stand_by()
        if newest is None:
            return
        self._contest.stop_left_behind(newest, now_ms)
        if newest.state == State.COLLECTING:
            self._collect(newest, now_ms)
        elif newest.state == State.TRAINING:
            self._have_trained(newest, now_ms)
        elif newest.version:
            self._contest.step(newest, champion, now_ms)

    def stand_by(self) -> bool:
        """No job is wanted here, now; whether none works any more."""
        # All are told, whatever the first one says.
        return all([self._training.stop(), self._collecting.stop(), self._contest.stand_by()])

    def _collect(self, present: Retraining, now_ms: int) -> None:
        """Begin training once there is enough to learn from."""
        settings = self._settings
        known = may_train(present, settings, now_ms) or not has_waited(present, settings, now_ms)
        enough = False if known else self._collecting.is_enough(present.since_ms)
        if may_train(present, settings, now_ms, enough):
            self._write(present, RetrainingStep(TRAINS, present.reason))

    def _have_trained(self, present: Retraining, now_ms: int) -> None:
        if now_ms > present.changed_at_ms + self._settings.training_max_ms:
            hours = self._settings.training_max_ms / HOUR_MS
            self._write(present, RetrainingStep(ENDED, f"no version after {hours:g} hours (RETRAIN_TRAINING_MAX_MS)"))
            return
        arguments = [
            *self._train,
            f"--model={self._controller.model_name}",
            f"--job={present.retraining_id}",
            f"--reason={present.reason or 'asked for'}",
            *([f"--since={present.since_ms}"] if present.since_ms else []),
        ]
        answer = self._training.answer(f"train {present.retraining_id}", arguments)
        # Done: its version stands in the registry, with the verdict of the gates, and the controller sees it.
        if answer is not None and "problem" in answer:
            self._write(present, RetrainingStep(ENDED, str(answer["problem"])))

    def _write(self, present: Retraining, step: RetrainingStep) -> bool:
        return self._controller.settle(
            lambda ledger, now_ms: event_of(ledger, present, step, now_ms, self._cool_down_ms)
        )

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
