"""Takes the orchestrator's steps: decisions from ``reconcile``, effects on Kafka and MLflow."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import structlog

from millrace.enums import name_of
from millrace.ranking.first import first_ranker
from millrace.registry.journal import Journal
from millrace.registry.ledger import Ledger
from millrace.registry.reconcile import (
    FIRST_VERSION_REASON,
    Append,
    LogFirstVersion,
    PointAlias,
    Step,
    concerns,
    next_step,
)
from millrace.registry.registry import Registry
from millrace.registry.view import RegistryView
from millrace.settings import RetrainSettings
from millrace.v1.command_pb2 import Command
from millrace.v1.drift_pb2 import DriftSignal
from millrace.v1.experiment_pb2 import Experiment
from millrace.v1.model_pb2 import ModelEvent, ModelEventType

T = TypeVar("T")

log = structlog.stdlib.get_logger(__name__)


class Controller:
    """Brings what is (topic ``model-events``, the registry) to what should be.

    An event is on all replicas before the alias that it means is touched: a crash between the two leaves the
    truth ahead of its projection, never the other way round.

    One thread may answer commands while another one waits for MLflow: who rolls back does not.
    """

    def __init__(
        self,
        model_name: str,
        journal: Journal,
        registry: Registry,
        clock: Callable[[], float] = time.time,
        experiments: Callable[[], Sequence[Experiment]] = tuple,
        cool_down_ms: int = 0,
        signals: Callable[[], Sequence[DriftSignal]] = tuple,
        retraining: RetrainSettings | None = None,
    ) -> None:
        self.model_name = model_name
        self._journal = journal
        self._registry = registry
        self._clock = clock
        self._experiments = experiments
        self._cool_down_ms = cool_down_ms
        self._signals = signals
        self._retraining = retraining
        # Held while the journal is read and written, never while MLflow is asked.
        self._at_journal = threading.Lock()

    def answer(self, command: Command) -> bool:
        """Accept or refuse a command in ``model-events``, without MLflow; whether it needs nothing more.

        It does while there is no version yet: :meth:`reconcile` makes the first one.

        Raises
        ------
        InfrastructureError
            Kafka failed; the command may or may not be settled.
        """
        if not concerns(command, self.model_name):
            return True
        with self._at_journal:
            versions = self._journal.ledger().versions
        while versions and self._step([command], None) is not None:
            pass
        with self._at_journal:
            return command.command_id in self._journal.ledger().settled

    def act_on_decisions(self) -> bool:
        """Promote, reject or roll back what experiments have decided, without MLflow; whether there was any of it.

        Raises
        ------
        InfrastructureError
            Kafka failed; the next call goes on from there.
        """
        acted = False
        while self._step((), None) is not None:
            acted = True
        return acted

    def reconcile(self) -> None:
        """Take every step that is open. Blocks for the timeouts of Kafka and MLflow.

        Raises
        ------
        InfrastructureError
            Kafka or MLflow failed; steps taken so far stand, and the next call goes on from there.
        MillraceError
            Something that only a person can mend.
        """
        view = self._registry.view(self.model_name)
        while (step := self._step((), view)) is not None:
            if not isinstance(step, Append):
                self._take(step)
                view = self._registry.view(self.model_name)

    def read(self, look: Callable[[Ledger], T]) -> T:
        """What ``look`` finds in the ledger, with everything that stands in the topic. Raises InfrastructureError."""
        with self._at_journal:
            return look(self._journal.ledger())

    def settle(self, decide: Callable[[Ledger, int], ModelEvent | None]) -> bool:
        """Write the event that somebody makes of the ledger and the time (Unix milliseconds); whether there was one.

        Raises
        ------
        InfrastructureError
            Kafka failed; the event may or may not stand.
        """
        with self._at_journal:
            event = decide(self._journal.ledger(), round(self._clock() * 1_000))
            if event is not None:
                self._append(event)
            return event is not None

    def stand_by(self) -> None:
        """It is another process's turn."""
        with self._at_journal:
            self._journal.close()

    def _step(self, commands: Sequence[Command], view: RegistryView | None) -> Step | None:
        """The next step; an event stands in the topic when this returns."""
        with self._at_journal:
            now_ms = round(self._clock() * 1_000)
            step = next_step(
                self._journal.ledger(),
                commands,
                view,
                now_ms,
                self._experiments(),
                self._cool_down_ms,
                self._signals(),
                self._retraining,
            )
            if isinstance(step, Append):
                self._append(step.event)
            return step

    def _append(self, event: ModelEvent) -> None:
        self._journal.append(event)
        log.info(
            name_of(ModelEventType.DESCRIPTOR, event.type).replace("_", " "),
            model=self.model_name,
            version=event.model_version,
            reason=event.reason,
        )

    def _take(self, step: LogFirstVersion | PointAlias) -> None:
        if isinstance(step, LogFirstVersion):
            made = self._registry.log_version(self.model_name, first_ranker(), step.step_id, FIRST_VERSION_REASON)
            log.info("stored in the registry", model=self.model_name, version=made.version, run=made.run_id)
        else:
            if step.version:
                self._registry.set_alias(self.model_name, step.alias, step.version)
            else:
                self._registry.delete_alias(self.model_name, step.alias)
            log.info(f"alias {step.alias} set", model=self.model_name, version=step.version)
