"""Takes the orchestrator's steps: decisions from ``reconcile``, effects on Kafka and MLflow."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import structlog

from millrace.ranking.model import first_ranker
from millrace.registry.journal import Journal
from millrace.registry.reconcile import FIRST_VERSION_REASON, Append, LogFirstVersion, Step, concerns, next_step
from millrace.registry.registry import Registry
from millrace.registry.view import CHAMPION, RegistryView
from millrace.v1.command_pb2 import Command
from millrace.v1.model_pb2 import ModelEventType

log = structlog.stdlib.get_logger(__name__)


class Controller:
    """Brings what is (topic ``model-events``, the registry) to what should be. One thread at a time.

    An event is on all replicas before the alias that it means is touched: a crash between the two leaves the
    truth ahead of its projection, never the other way round.
    """

    def __init__(
        self,
        model_name: str,
        journal: Journal,
        registry: Registry,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.model_name = model_name
        self._journal = journal
        self._registry = registry
        self._clock = clock

    def reconcile(self, commands: Sequence[Command] = ()) -> None:
        """Take every step that is open. Blocks for milliseconds, or for the timeouts of Kafka and MLflow.

        Raises
        ------
        InfrastructureError
            Kafka or MLflow failed; steps taken so far stand, and the next call goes on from there.
        MillraceError
            Something that only a person can mend.
        """
        if self._journal.ledger().versions:
            self._take_steps(commands, None)  # people wait for these, and they do not need MLflow
        self._take_steps(commands, self._registry.view(self.model_name))

    def is_settled(self, command: Command) -> bool:
        """Whether a command needs nothing more: it was answered, or is another process's."""
        if not concerns(command, self.model_name):
            return True
        return command.command_id in self._journal.ledger().settled

    def stand_by(self) -> None:
        """It is another process's turn."""
        self._journal.close()

    def _take_steps(self, commands: Sequence[Command], view: RegistryView | None) -> None:
        while True:
            now_ms = round(self._clock() * 1_000)
            step = next_step(self._journal.ledger(), commands, view, now_ms)
            if step is None:
                return
            self._take(step)
            if view is not None and not isinstance(step, Append):
                view = self._registry.view(self.model_name)

    def _take(self, step: Step) -> None:
        if isinstance(step, Append):
            self._journal.append(step.event)
            log.info(
                ModelEventType.Name(step.event.type).removeprefix("MODEL_EVENT_TYPE_").lower().replace("_", " "),
                model=self.model_name,
                version=step.event.model_version,
                reason=step.event.reason,
            )
        elif isinstance(step, LogFirstVersion):
            made = self._registry.log_version(self.model_name, first_ranker(), step.step_id, FIRST_VERSION_REASON)
            log.info("stored in the registry", model=self.model_name, version=made.version, run=made.run_id)
        else:
            self._registry.set_alias(self.model_name, CHAMPION, step.version)
            log.info("alias champion set", model=self.model_name, version=step.version)
