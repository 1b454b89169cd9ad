"""Runs the controller from Faust's event loop: one reconciliation and one answer at a time, in threads."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import structlog
from prometheus_client import Counter, Gauge

from millrace.errors import InfrastructureError, MillraceError
from millrace.registry.controller import Controller
from millrace.stream import metrics
from millrace.stream.http import Readiness
from millrace.v1.command_pb2 import Command
from workers.retrain_orchestrator.retrainer import Retrainer

log = structlog.stdlib.get_logger(__name__)

NAME = "retrain_orchestrator"
RECONCILED_AT = Gauge(
    "millrace_orchestrator_reconciled_timestamp_seconds", "When everything was last found as it should be.", ["model"]
)
COMMANDS = Counter("millrace_orchestrator_commands", "Commands settled, refused ones included.", ["model"])
LEADER = Gauge(
    "millrace_orchestrator_leader", "1 in the process whose turn it is, 0 in those that stand by.", ["model"]
)
BUFFERED_COMMANDS = Gauge("millrace_orchestrator_buffered_commands", "Commands fetched ahead.", ["model"])
BUFFERED_COMMANDS_MAX = Gauge("millrace_orchestrator_buffered_commands_max", "Most commands fetched ahead.", ["model"])

T = TypeVar("T")
P = ParamSpec("P")


class Turns:
    """The controller and the retrainer, when it is this process's turn.

    Parameters
    ----------
    interval_s
        Pause before the next try when something failed, seconds.
    """

    def __init__(self, controller: Controller, retrainer: Retrainer, interval_s: float) -> None:
        self._controller, self._retrainer = controller, retrainer
        self._interval_s = interval_s
        # Two things may go on at the same time: a look at MLflow, and answers to commands, which do not wait for it.
        self._reconciling, self._answering = asyncio.Lock(), asyncio.Lock()
        self._reread = False
        self._problem = "waiting for its part of the work"
        self._leads = False
        LEADER.labels(controller.model_name).set(0)

    def readiness(self) -> Readiness:
        """Ready when the last reconciliation succeeded, or while another process's turn it is."""
        return Readiness(
            not self._problem,
            [self._problem] if self._problem else [],
            {"model": self._controller.model_name, "leader": self._leads},
        )

    def waits_for(self, problem: str) -> None:
        """Something is missing before the first turn."""
        self._problem = problem

    def over(self) -> None:
        """Partitions move: others may write from now on, so the ledger is read again before the next step."""
        self._reread = True

    async def stand_by(self) -> None:
        """It is another process's turn."""
        async with self._reconciling, self._answering:
            self._lead(False)
            self._problem = ""
            await in_thread(self._controller.stand_by)
            await in_thread(self._retrainer.stand_by)

    async def reconcile(self) -> bool:
        """Bring everything to where it should be; False, with the reason logged, if something is in the way."""
        async with self._reconciling:
            self._lead(True)
            try:
                try:
                    await in_thread(self._on_what_stands, self._controller.reconcile)
                finally:
                    # Who cancels a job does not wait for MLflow either.
                    await in_thread(self._on_what_stands, self._retrainer.step)
            except MillraceError as error:
                self._failed(error)
                return False
            if self._problem:
                log.info("everything is as it should be", model=self._controller.model_name)
            self._problem = ""
            RECONCILED_AT.labels(self._controller.model_name).set(time.time())
            return True

    async def answer(self, command: Command, leads: Callable[[], bool]) -> bool:
        """See that the command is accepted or refused in ``model-events``, however long that takes.

        False if it became another process's turn before: the broker hands the command to that one.
        """
        while leads():
            if await self._settled(command):
                COMMANDS.labels(self._controller.model_name).inc()
                return True
            await asyncio.sleep(self._interval_s)
        return False

    async def _settled(self, command: Command) -> bool:
        async with self._answering:
            self._lead(True)
            try:
                return await in_thread(self._on_what_stands, self._controller.answer, command)
            except MillraceError as error:
                self._failed(error)
                return False

    async def act_on_decisions(self) -> bool:
        """Act on what experiments have decided; whether something was done. What is in the way is logged."""
        async with self._answering:
            try:
                return await in_thread(self._on_what_stands, self._controller.act_on_decisions)
            except MillraceError as error:
                self._failed(error)
                return False

    def _on_what_stands(self, act: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        if self._reread:
            self._reread = False
            self._controller.stand_by()
        return act(*arguments, **named)

    def _failed(self, error: MillraceError) -> None:
        if isinstance(error, InfrastructureError):
            metrics.INFRASTRUCTURE_FAILURES.labels(NAME, error.system).inc()
        if str(error) != self._problem:  # say it once, not every two seconds
            log.warning("cannot reconcile, trying again", problem=str(error))
        self._problem = str(error)

    def _lead(self, leads: bool) -> None:
        if leads != self._leads:
            log.info("leading" if leads else "standing by", model=self._controller.model_name)
        self._leads = leads
        LEADER.labels(self._controller.model_name).set(leads)


async def in_thread(function: Callable[..., T], *arguments: object) -> T:
    """What the function returns, run in a daemon thread.

    Unlike ``asyncio.to_thread``: at the end of the process nobody waits for a request to a server that hangs.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def settle(action: Callable[[], None]) -> None:
        def unless_cancelled() -> None:
            if not outcome.done():
                action()

        if not loop.is_closed():
            loop.call_soon_threadsafe(unless_cancelled)

    def run() -> None:
        try:
            result = function(*arguments)
        except Exception as error:  # noqa: BLE001  (handed on to the awaiting task, whatever it is)
            failure = error
            settle(lambda: outcome.set_exception(failure))
        else:
            settle(lambda: outcome.set_result(result))

    threading.Thread(target=run, name=function.__name__, daemon=True).start()
    return await outcome
