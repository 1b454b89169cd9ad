"""How stale a user's features are: what of the user stands on the log that they do not include yet."""

from __future__ import annotations

import threading
import time

from confluent_kafka import Consumer, KafkaException, TopicPartition

from millrace.errors import InfrastructureError
from millrace.features.user_state import KnownPosition
from millrace.settings import KafkaSettings
from millrace.stream.clients import consumer_config
from millrace.stream.logs import kafka_logger
from millrace.stream.partitioner import partition_of
from millrace.topics import INTERACTIONS

# What the feature updater calls itself, and so its group. Features include everything below its committed positions.
_GROUP = "feature_updater"
_TIMEOUT_S = 2.0
# What is read of a partition to answer: more means that the feature updater stands still.
SCANNED_MAX = 20_000
_AT_ONCE = 1_000


class Backlog:
    """Looks for a user's interactions behind those that the features include. One look at a time."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._where = kafka.bootstrap_servers
        # Joins no group and commits nothing: it asks what the group has committed.
        self._consumer = Consumer(consumer_config(kafka, _GROUP), logger=kafka_logger())
        self._lock = threading.Lock()
        self._partitions = 0

    def oldest_ms(self, user_id: str, included: KnownPosition) -> int | None:
        """When the broker took the oldest interaction of the user that the features do not include, Unix ms.

        None: they include all. Takes some milliseconds, not on an event loop.

        Raises
        ------
        InfrastructureError
            The broker does not answer, or so much waits that it is not looked through.
        """
        with self._lock:
            try:
                return self._oldest_ms(user_id, included)
            except KafkaException as error:
                raise InfrastructureError("kafka", f"{self._where}: {error.args[0].str()}") from error

    def close(self) -> None:
        """Let go of the broker."""
        with self._lock:
            self._consumer.close()

    def _oldest_ms(self, user_id: str, included: KnownPosition) -> int | None:
        number = partition_of(user_id, self._partition_count())
        place = TopicPartition(INTERACTIONS.name, number)
        bounds = self._consumer.get_watermark_offsets(place, timeout=_TIMEOUT_S)
        if bounds is None:
            raise InfrastructureError("kafka", f"{self._where}: no answer about the end of {INTERACTIONS.name}")
        low, high = bounds
        committed = self._consumer.committed([place], timeout=_TIMEOUT_S)[0].offset
        known = included.offset + 1 if included.partition == number else 0
        start = max(low, committed, known)
        if start >= high:
            return None
        if high - start > SCANNED_MAX:
            raise InfrastructureError(
                "kafka", f"{high - start} records of the user's partition wait for the feature updater"
            )
        return self._first(user_id.encode(), number, start, high)

    def _first(self, key: bytes, number: int, start: int, high: int) -> int | None:
        """Append time of the key's first record from ``start`` to before ``high``."""
        give_up = time.monotonic() + _TIMEOUT_S
        self._consumer.assign([TopicPartition(INTERACTIONS.name, number, start)])
        try:
            while time.monotonic() < give_up:
                for message in self._consumer.consume(_AT_ONCE, 0.1):
                    if message.error() is not None:
                        raise KafkaException(message.error())
                    offset = message.offset()
                    if offset is not None and offset < high and message.key() == key:
                        return int(message.timestamp()[1])
                    if offset is not None and offset >= high - 1:
                        return None
        finally:
            self._consumer.unassign()
        raise InfrastructureError("kafka", f"{self._where}: the log could not be read within {_TIMEOUT_S:g} s")

    def _partition_count(self) -> int:
        if not self._partitions:
            found = self._consumer.list_topics(INTERACTIONS.name, timeout=_TIMEOUT_S).topics[INTERACTIONS.name]
            if found.error is not None:
                raise KafkaException(found.error)
            self._partitions = len(found.partitions)
        return self._partitions
