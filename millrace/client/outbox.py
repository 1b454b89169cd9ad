"""The queue of events on their way to the broker, and the account of those that did not get there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from millrace.client.errors import DeliveryFailed, Undelivered
from millrace.errors import MillraceError
from millrace.events.build import now_ms
from millrace.events.rules import check_append_time, check_interaction, check_item
from millrace.settings import KafkaSettings
from millrace.stream.clients import producer_config
from millrace.stream.codec import encode
from millrace.stream.logs import kafka_logger
from millrace.stream.tracing import outgoing
from millrace.stream.worker import Headers
from millrace.topics import INTERACTIONS, ITEMS, Topic
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.item_pb2 import Item

LINGER_MS = 2
"""Time to gather events into one batch: an event is delayed by at most this, a burst shares one round trip."""
QUEUE_MAX = 100_000
"""Most events waiting for the broker (at 300 bytes each about 30 MB, beside librdkafka's own overhead)."""
DELIVERY_TIMEOUT_S = 30.0
"""An event has failed when the broker did not take it within this time; a broker restarts in a few seconds."""
_FAILURES_KEPT = 10_000
"""Bounds memory while the broker is away and nobody looks; failures past it are counted, not kept."""

Report = Callable[[KafkaError | None, Message], None]


class Parcel:
    """Events whose delivery one caller waits for. Settled from any thread.

    Parameters
    ----------
    on_settled
        Called once, when the fate of every event is known, from the thread that learned the last one.

    Attributes
    ----------
    problems
        Place of an event -> why the broker does not have it.
    """

    def __init__(self, events: int, on_settled: Callable[[], None]) -> None:
        self.problems: dict[int, MillraceError] = {}
        self._open = events
        self._on_settled = on_settled
        self._lock = threading.Lock()

    def report(self, place: int) -> Report:
        """What to call with the delivery report of the event at this place."""
        return partial(self._report, place)

    def refuse(self, place: int, problem: MillraceError) -> None:
        """The event at this place is not sent."""
        self._settle(place, problem)

    def _report(self, place: int, error: KafkaError | None, message: Message) -> None:
        del message
        self._settle(place, None if error is None else DeliveryFailed(error.str()))

    def _settle(self, place: int, problem: MillraceError | None) -> None:
        with self._lock:
            if problem is not None:
                self.problems[place] = problem
            self._open -= 1
            last = not self._open
        if last:
            self._on_settled()


class Outbox:
    """Validates events and hands them to librdkafka. Thread-safe, and never waits except where it says so."""

    def __init__(self, kafka: KafkaSettings, linger_ms: float, queue_max: int, delivery_timeout_s: float) -> None:
        self._brokers = kafka.bootstrap_servers
        self._delivery_timeout_s = delivery_timeout_s
        self._failed: list[Undelivered] = []
        self._failed_count = 0
        self._lock = threading.Lock()
        self._closed = False
        config = producer_config(kafka) | {
            "linger.ms": linger_ms,
            "queue.buffering.max.messages": queue_max,
            "delivery.timeout.ms": max(1, round(delivery_timeout_s * 1000)),
        }
        self._producer = Producer(config, logger=kafka_logger())

    def offer(self, event: Interaction | Item, report: Report | None = None) -> bool:
        """Check an event and queue it; False where the queue is full.

        Its fate goes to ``report``; without one, a failure is raised by a later call.

        Raises
        ------
        InvalidField
            The event breaks its contract.
        DeliveryFailed
            Earlier events without a report did not reach the broker.
        """
        if isinstance(event, Interaction):
            check_interaction(event)
            # The broker's clock decides in the end; this one finds a wrong unit or zone before sending.
            check_append_time(event.occurred_at_ms, now_ms())
            return self._queue(INTERACTIONS, event.user_id, *encode(event), report)
        check_item(event)
        return self._queue(ITEMS, event.item_id, *encode(event), report)

    def take_reports(self, timeout_s: float = 0.0) -> None:
        """Take delivery reports in, waiting so long for a first one."""
        self._producer.poll(timeout_s)

    def offer_removal(self, item_id: str) -> bool:
        """Queue the removal of a catalogue entry (a tombstone); False where the queue is full."""
        return self._queue(ITEMS, item_id, None, [])

    def await_room(self) -> None:
        """Wait until the queue is shorter; DeliveryFailed after the delivery timeout."""
        give_up = time.monotonic() + self._delivery_timeout_s
        full = len(self._producer)
        while len(self._producer) >= full > 0:
            if time.monotonic() > give_up:
                raise DeliveryFailed(f"the queue to the broker at {self._brokers} stays full ({full} events)")
            self._producer.poll(0.1)

    def flush(self, timeout_s: float | None) -> None:
        """Wait until everything is acknowledged or has failed; raise DeliveryFailed where something was not."""
        # One second more than the delivery timeout: by then librdkafka has given up on whatever it could not send.
        waiting = self._producer.flush(self._delivery_timeout_s + 1 if timeout_s is None else timeout_s)
        self._raise_failures()
        if waiting:
            raise DeliveryFailed(f"{waiting} events still wait for the broker at {self._brokers}")

    def close(self) -> None:
        """Refuse further events, then flush; harmless when repeated."""
        if not self._closed:
            self._closed = True
            self.flush(None)

    def _queue(
        self, topic: Topic, key: str, value: bytes | None, headers: Headers, report: Report | None = None
    ) -> bool:
        if self._closed:
            raise DeliveryFailed("the producer is closed")
        self._producer.poll(0)  # takes in delivery reports
        if report is None:
            self._raise_failures()
        try:
            self._producer.produce(
                topic.name,
                value=value,
                key=key,
                headers=[*headers, *outgoing()],
                on_delivery=report or self._on_delivery,
            )
        except BufferError:
            return False
        except KafkaException as error:
            raise DeliveryFailed(f"{key}: {error.args[0].str()}") from error
        return True

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            return
        with self._lock:
            self._failed_count += 1
            if len(self._failed) < _FAILURES_KEPT:
                self._failed.append(_undelivered(error, message))

    def _raise_failures(self) -> None:
        if not self._failed_count:
            return
        with self._lock:
            failed, count = self._failed, self._failed_count
            self._failed, self._failed_count = [], 0
        if failed:
            raise DeliveryFailed(
                f"{count} events did not reach the broker at {self._brokers} "
                f"(the first: {failed[0].key!r}, {failed[0].reason})",
                failed,
            )


def _undelivered(error: KafkaError, message: Message) -> Undelivered:
    value, key = message.value(), message.key()
    kind = Interaction if message.topic() == INTERACTIONS.name else Item
    return Undelivered(kind.FromString(value) if value else None, key.decode() if key else "", error.str())
