"""The asyncio form of ``EventProducer``: the same calls, awaited, and never blocking the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Self, Unpack

from millrace.client.errors import DeliveryFailed
from millrace.client.outbox import DELIVERY_TIMEOUT_S, LINGER_MS, QUEUE_MAX, Outbox, Parcel
from millrace.errors import InvalidField, MillraceError
from millrace.events import build
from millrace.events.build import EventType, InteractionFields, ItemFields
from millrace.events.rules import check_id
from millrace.settings import KafkaSettings
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.item_pb2 import Item

DELIVER_CHUNK = 100
"""Events queued in one go, before other tasks get their turn: about 1 ms."""
REPORTS_EVERY_S = 0.001
"""Between two looks for delivery reports, of 2 µs each: what it adds to a delivery at most."""


class AsyncEventProducer:
    """Sends events to the broker in the background. See ``EventProducer`` for parameters and errors."""

    def __init__(
        self,
        kafka: KafkaSettings | None = None,
        *,
        linger_ms: float = LINGER_MS,
        queue_max: int = QUEUE_MAX,
        delivery_timeout_s: float = DELIVERY_TIMEOUT_S,
    ) -> None:
        self._outbox = Outbox(kafka or KafkaSettings(), linger_ms, queue_max, delivery_timeout_s)
        # Calls of ``deliver`` under way, and what takes reports in for all of them.
        self._delivering = 0
        self._reports: asyncio.Task[None] | None = None

    async def interaction(
        self, user_id: str, item_id: str, type: EventType | str = "click", **fields: Unpack[InteractionFields]
    ) -> str:
        """Publish what a user did; returns the event's id. See ``EventProducer.interaction``."""
        event = build.interaction(user_id, item_id, type, **fields)
        await self.send(event)
        return event.event_id

    async def forget(self, user_id: str) -> str:
        """Ask that everything stored about a user be erased; returns the event's id."""
        return await self.interaction(user_id, "", "forget")

    async def item(self, item_id: str, **fields: Unpack[ItemFields]) -> None:
        """Publish a catalogue entry in place of the item's earlier one."""
        await self.send(build.item(item_id, **fields))

    async def remove_item(self, item_id: str) -> None:
        """Take an item out of the catalogue."""
        check_id("item_id", item_id)
        while not self._outbox.offer_removal(item_id):
            await asyncio.to_thread(self._outbox.await_room)

    async def send(self, event: Interaction | Item) -> None:
        """Publish a contract message as it is."""
        while not self._outbox.offer(event):
            await asyncio.to_thread(self._outbox.await_room)

    async def deliver(self, events: Sequence[Interaction | Item]) -> dict[int, MillraceError]:
        """Publish messages and wait until the broker has them. See ``EventProducer.deliver``."""
        if not events:
            return {}
        settled, loop = asyncio.Event(), asyncio.get_running_loop()

        def on_settled() -> None:
            loop.call_soon_threadsafe(settled.set)

        parcel = Parcel(len(events), on_settled)
        self._delivering += 1
        try:
            for place, event in enumerate(events):
                # Other tasks get their turn while many events are queued.
                if place and place % DELIVER_CHUNK == 0:
                    await asyncio.sleep(0)
                try:
                    while not self._outbox.offer(event, parcel.report(place)):
                        await asyncio.to_thread(self._outbox.await_room)
                except (InvalidField, DeliveryFailed) as problem:
                    parcel.refuse(place, problem)
            if self._reports is None or self._reports.done():
                self._reports = asyncio.create_task(self._take_reports())
            await settled.wait()
        finally:
            self._delivering -= 1
        return parcel.problems

    async def _take_reports(self) -> None:
        """Take delivery reports in, as long as somebody waits for them.

        On the event loop: in a thread each report would wait for the interpreter's lock, up to its switch interval
        (5 ms) while the loop is busy.
        """
        while self._delivering:
            self._outbox.take_reports()
            await asyncio.sleep(REPORTS_EVERY_S)

    async def flush(self, timeout_s: float | None = None) -> None:
        """Wait until the broker has acknowledged everything sent so far. See ``EventProducer.flush``."""
        await asyncio.to_thread(self._outbox.flush, timeout_s)

    async def close(self) -> None:
        """Flush, then refuse further calls; harmless when repeated."""
        await asyncio.to_thread(self._outbox.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self.close()
        except DeliveryFailed as failed:
            if error is None:
                raise
            error.add_note(f"also: {failed}")
