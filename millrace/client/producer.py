"""Publishes what users do and what the catalogue holds."""

from __future__ import annotations

import threading
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

# Longest wait for delivery reports in one go: another thread may have taken in those that are waited for.
_REPORTS_WAIT_S = 0.01


class EventProducer:
    """Sends events to the broker in the background; validates each before it is taken.

    A call returns when the event stands in the queue to the broker. What could not be delivered is raised as
    ``DeliveryFailed`` by the next call, ``flush`` or ``close``. Safe to use from several threads.

    Parameters
    ----------
    kafka
        The broker; by default from the settings (``KAFKA_BOOTSTRAP_SERVERS`` and so on).
    linger_ms
        Time to gather events into one batch, milliseconds.
    queue_max
        Most events in the queue; when it is full, a call waits for room (back-pressure).
    delivery_timeout_s
        An event that the broker did not take within this time has failed; also the longest wait for room.
    """

    def __init__(
        self,
        kafka: KafkaSettings | None = None,
        *,
        linger_ms: float = LINGER_MS,
        queue_max: int = QUEUE_MAX,
        delivery_timeout_s: float = DELIVERY_TIMEOUT_S,
    ) -> None:
        self._outbox = Outbox(kafka or KafkaSettings(), linger_ms, queue_max, delivery_timeout_s)

    def interaction(
        self, user_id: str, item_id: str, type: EventType | str = "click", **fields: Unpack[InteractionFields]
    ) -> str:
        """Publish what a user did; returns the event's id (made if not given).

        ``request_id`` is the one of the answer that led to it, ``value`` the money paid or the rating,
        ``occurred_at`` (default: now) a datetime with its zone or Unix milliseconds. ``context`` takes device,
        os, country, region, referrer and placement; other names become attributes.

        Raises
        ------
        InvalidField
            A value breaks the contract; nothing was sent.
        DeliveryFailed
            Earlier events did not reach the broker; this one was not sent.
        """
        event = build.interaction(user_id, item_id, type, **fields)
        self.send(event)
        return event.event_id

    def forget(self, user_id: str) -> str:
        """Ask that everything stored about a user be erased; returns the event's id. Raises as ``interaction``."""
        return self.interaction(user_id, "", "forget")

    def item(self, item_id: str, **fields: Unpack[ItemFields]) -> None:
        """Publish a catalogue entry in place of the item's earlier one. Raises as ``interaction``."""
        self.send(build.item(item_id, **fields))

    def remove_item(self, item_id: str) -> None:
        """Take an item out of the catalogue. Raises as ``interaction``."""
        check_id("item_id", item_id)
        while not self._outbox.offer_removal(item_id):
            self._outbox.await_room()

    def send(self, event: Interaction | Item) -> None:
        """Publish a contract message as it is. Raises as ``interaction``."""
        while not self._outbox.offer(event):
            self._outbox.await_room()

    def deliver(self, events: Sequence[Interaction | Item]) -> dict[int, MillraceError]:
        """Publish messages and wait until the broker has them, each by itself.

        Nothing is raised: what comes back says, by the message's place, which the broker does not have, and why:
        ``InvalidField`` for what breaks the contract, ``DeliveryFailed`` for what did not get there in time. The
        others are on the log, whatever became of these.
        """
        if not events:
            return {}
        settled = threading.Event()
        parcel = Parcel(len(events), settled.set)
        for place, event in enumerate(events):
            try:
                while not self._outbox.offer(event, parcel.report(place)):
                    self._outbox.await_room()
            except (InvalidField, DeliveryFailed) as problem:
                parcel.refuse(place, problem)
        while not settled.is_set():
            self._outbox.take_reports(_REPORTS_WAIT_S)
        return parcel.problems

    def flush(self, timeout_s: float | None = None) -> None:
        """Wait until the broker has acknowledged everything sent so far (by default for the delivery timeout).

        Raises
        ------
        DeliveryFailed
            Something did not reach the broker, or still waits after the timeout.
        """
        self._outbox.flush(timeout_s)

    def close(self) -> None:
        """Flush, then refuse further calls; harmless when repeated. Raises as ``flush``."""
        self._outbox.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.close()
        except DeliveryFailed as failed:
            if error is None:
                raise
            error.add_note(f"also: {failed}")  # the error inside the block came first and is the one to look at
