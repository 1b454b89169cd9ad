"""Sends impressions to Kafka without ever holding up an answer."""

from __future__ import annotations

import asyncio

import structlog
from confluent_kafka import KafkaError, Message, Producer

from millrace.settings import KafkaSettings
from millrace.stream import logs
from millrace.stream.clients import producer_config
from millrace.stream.codec import encode
from millrace.stream.tracing import outgoing
from millrace.topics import IMPRESSIONS
from millrace.v1.impression_pb2 import Impression
from services.recommender import metrics

log = structlog.stdlib.get_logger(__name__)

# How often failed deliveries are counted and the gauge is set.
_UPKEEP_S = 0.2
# Bounds the queue also where answers are long: 200 items make an impression of 25 kB.
PENDING_MAX_KIB = 256 * 1024


class ImpressionLog:
    """A bounded queue to the broker. What does not fit, or was not delivered in time, is dropped and counted.

    What the broker has not acknowledged when the process is killed is lost: the answers of the last ``linger_ms`` and
    of one delivery; while the broker is away up to ``pending_max``.

    Attributes
    ----------
    pending_max
        Most impressions on their way.
    dropped
        How many did not reach the broker.
    """

    def __init__(self, kafka: KafkaSettings, pending_max: int, linger_ms: int) -> None:
        self._producer = Producer(
            producer_config(kafka)
            | {
                "linger.ms": linger_ms,
                "queue.buffering.max.messages": pending_max,
                "queue.buffering.max.kbytes": PENDING_MAX_KIB,
                # A call into Python for each delivered impression would cost more than sending it.
                "delivery.report.only.error": True,
            },
            logger=logs.kafka_logger(),
        )
        self.pending_max = pending_max
        self.dropped = 0
        metrics.IMPRESSIONS_PENDING_MAX.set(pending_max)

    @property
    def pending(self) -> int:
        """Impressions on their way to the broker."""
        return len(self._producer)

    def send(self, impression: Impression) -> None:
        """Take an impression; returns at once."""
        value, headers = encode(impression)
        try:
            self._producer.produce(
                IMPRESSIONS.name,
                value=value,
                key=impression.user_id,
                headers=[*headers, *outgoing()],
                on_delivery=self._on_failure,
            )
        except BufferError:
            self._drop("queue full")

    async def close(self, timeout_s: float) -> None:
        """Send what is pending, for at most this long; the rest is dropped and counted."""
        left = await asyncio.to_thread(self._producer.flush, timeout_s)
        if left:
            self._drop("shutdown", left)
            log.warning("impressions dropped at the end: the broker did not take them in time", impressions=left)

    async def keep_up(self) -> None:
        """Count failed deliveries and set the gauge, for ever."""
        while True:
            await asyncio.sleep(_UPKEEP_S)
            self._producer.poll(0)
            metrics.IMPRESSIONS_PENDING.set(self.pending)

    def _on_failure(self, error: KafkaError | None, message: Message) -> None:
        del message
        if error is not None:
            self._drop(error.name())
            log.warning("impression not delivered", problem=error.str())

    def _drop(self, reason: str, count: int = 1) -> None:
        self.dropped += count
        metrics.IMPRESSIONS_DROPPED.labels(reason).inc(count)
