"""Sends commands to their topic, and waits for what comes of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from millrace.registry.asking import SEND_AGAIN_S, CommandSender
from millrace.registry.ledger import Ledger
from millrace.settings import KafkaSettings
from millrace.v1.command_pb2 import Command
from millrace.v1.model_pb2 import ModelEvent, ModelEventType
from services.gateway import metrics
from services.gateway.problems import REFUSED, Problem
from services.gateway.views import Views

T = TypeVar("T")

ISSUED_BY = "gateway"


class CommandDesk:
    """Puts commands into the topic, as the command line does.

    Parameters
    ----------
    timeout_s
        Longest wait for the broker to take one.
    """

    def __init__(self, kafka: KafkaSettings, views: Views, timeout_s: float) -> None:
        self._sender = CommandSender(kafka)
        self._views = views
        self._timeout_s = timeout_s

    async def ask(self, key: str, command: Command, find: Callable[[], T | None], wait_ms: int) -> T | None:
        """Send a command, again every second, until it is settled.

        One that was settled before, by the same id, is not sent again.

        Parameters
        ----------
        key
            The target model, or experiment.
        find
            Looks in the views for what came of it. Raises Problem if it was refused.

        Returns
        -------
        What came of it; None if nothing came in the time. It stands on the topic all the same.

        Raises
        ------
        Problem
            It was refused.
        InvalidField, InfrastructureError
            It was not sent.
        """

        def settled() -> T | None:
            if (reason := self._views.refusals.get(command.command_id)) is not None:
                raise Problem(REFUSED, reason, command_id=command.command_id)
            return find()

        action, give_up = command.WhichOneof("action") or "", time.monotonic() + wait_ms / 1_000
        try:
            found = settled()
            while found is None:
                await asyncio.to_thread(self._sender.send, key, command, self._timeout_s)
                left_s = give_up - time.monotonic()
                found = await self._views.until(settled, min(left_s, SEND_AGAIN_S))
                if left_s <= SEND_AGAIN_S:
                    break
        except Problem:
            metrics.COMMANDS.labels(action, "refused").inc()
            raise
        metrics.COMMANDS.labels(action, "unsettled" if found is None else "accepted").inc()
        return found

    async def ask_orchestrator(self, ledger: Ledger, command: Command, wait_ms: int) -> ModelEvent | None:
        """The event that a command to the orchestrator of a model led to; see :meth:`ask`."""

        def settled() -> ModelEvent | None:
            event = ledger.settled.get(command.command_id)
            if event is not None and event.type == ModelEventType.MODEL_EVENT_TYPE_COMMAND_REFUSED:
                raise Problem(REFUSED, event.reason, command_id=command.command_id)
            return event

        return await self.ask(ledger.model_name, command, settled, wait_ms)
