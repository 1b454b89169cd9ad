"""What a worker sends, its state's changelog and the positions of its input, in one atomic write.

A process has one producer at a time, and one id for all of them: each ends what the one before left open. Who was
replaced in the group is refused by the broker when it adds its positions (KIP-447), and whoever follows waits for
positions that a transaction still holds: so no process can commit on an old state.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol, runtime_checkable

import structlog
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from millrace.errors import InfrastructureError
from millrace.settings import MINUTE_MS, KafkaSettings, StreamSettings
from millrace.stream import logs
from millrace.stream.output import KafkaOutput
from millrace.stream.progress import Parcel
from millrace.stream.threads import in_time
from millrace.stream.worker import Headers, Output, Partition
from millrace.topics import Topic

log = structlog.stdlib.get_logger(__name__)

# A commit takes milliseconds; the rest is for a broker that restarts or is under load.
_TIMEOUT_S = 10.0
# librdkafka keeps to the time that it is given, but may never come back when the coordinator of positions has died.
_HANGS_AFTER_S = _TIMEOUT_S + 1.0
# What is sent in one transaction is bounded by the worker's state, not by time: where it takes longer than it may, more
# time is given, but less than after which a group gives up on a member that does not poll (max.poll.interval.ms).
_LONGER = 4
_LONGEST_MS = 4 * MINUTE_MS


@runtime_checkable
class TransactionalWorker(Protocol):
    """A worker whose output, state and positions are committed together.

    Its ``restore`` rebuilds everything of the partitions from what was committed (and is called again after any
    failure), ``pending_since`` and ``close`` have nothing to say.

    Attributes
    ----------
    transaction_interval_s
        Time between two commits, seconds.
    transaction_timeout_s
        The broker aborts a transaction that is open for so long, seconds. One that takes longer is given more time when
        it is done again.
    """

    transaction_interval_s: float
    transaction_timeout_s: float

    def before_commit(self, output: Output) -> None:
        """Send what the state has become: the last records of the transaction."""


class TransactionalOutput(KafkaOutput):
    """An output whose records appear when :meth:`commit` returns, or never."""

    def __init__(
        self,
        kafka: KafkaSettings,
        stream: StreamSettings,
        worker: str,
        topics: dict[str, Topic],
        sent: Callable[[], Parcel],
        on_stats: Callable[[str], None],
        timeout_s: float,
    ) -> None:
        self._id = f"millrace.{worker}.{uuid.uuid4()}"
        self._usual_ms = self._longest_ms = round(timeout_s * 1_000)
        self._began_at = 0.0
        self._fresh = True
        self._doomed = False
        self.open = False
        super().__init__(kafka, stream, worker, topics, sent, on_stats)

    def commit(self, positions: Mapping[Partition, int], consumer: Consumer) -> None:
        """Commit everything that was sent, and the positions.

        Raises
        ------
        InfrastructureError
            It was not committed, or nobody knows: what the broker has committed tells.
        """
        self._begin()
        offsets = [TopicPartition(*partition, offset) for partition, offset in positions.items() if offset >= 0]
        try:
            if offsets:
                self._add_positions(offsets, consumer)
            self._producer.commit_transaction(max(_TIMEOUT_S, self._longest_ms / 1_000))
        except KafkaException as error:
            self._doomed = True
            raise InfrastructureError("kafka", f"transaction: {error.args[0].str()}") from error
        self.open = False
        self._longest_ms = self._usual_ms

    def rewind(self) -> None:
        """Nothing of the open transaction may appear: all of it will be done again."""
        super().rewind()
        self._doomed = True
        if self.open and (time.monotonic() - self._began_at) * 1_000 > self._longest_ms:
            # The broker has ended it, and would end the same work again and again.
            self._began_at = math.inf
            self._longest_ms = min(_LONGER * self._longest_ms, _LONGEST_MS)
            self._failure = self._failure or "the transaction took too long"
            log.info("more time for a transaction", longest_s=self._longest_ms / 1_000)

    def recover(self) -> None:
        """Abort what is open, with a producer made anew where that fails.

        Raises
        ------
        InfrastructureError
            The broker does not answer.
        """
        if self._doomed and self.open and not self._failure:
            try:
                self._producer.abort_transaction(_TIMEOUT_S)
            except KafkaException as error:
                log.info("a producer is made anew", reason=error.args[0].str())
                self._failure = error.args[0].str()
        if self._failure:
            self._fresh = True
            super().recover()
        if self._doomed or self._fresh:
            # Else partitions were added to others whose transaction goes on.
            self._doomed = self.open = False
        if self._fresh:
            try:
                self._producer.init_transactions(_TIMEOUT_S)
            except KafkaException as error:
                raise InfrastructureError("kafka", f"transactions: {error.args[0].str()}") from error
            self._fresh = False

    def _begin(self) -> None:
        if not self.open:
            try:
                self._producer.begin_transaction()
            except KafkaException as error:
                self._failure = f"transaction: {error.args[0].str()}"
                raise InfrastructureError("kafka", self._failure) from error
            self.open, self._began_at = True, time.monotonic()

    def _connect(self) -> Producer:
        ours = {"transactional.id": self._id, "transaction.timeout.ms": self._longest_ms}
        return Producer(self._config | ours, logger=logs.kafka_logger())

    def _add_positions(self, positions: list[TopicPartition], consumer: Consumer) -> None:
        """Add them to the transaction. A producer that hangs is left behind, and the next one ends what it began."""
        add = partial(
            self._producer.send_offsets_to_transaction, positions, consumer.consumer_group_metadata(), _TIMEOUT_S
        )
        try:
            in_time(add, _HANGS_AFTER_S)
        except TimeoutError as error:
            self._failure, self._doomed = "the producer hangs", True
            raise InfrastructureError("kafka", f"transaction: no answer within {_HANGS_AFTER_S:g} s") from error

    def _send(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers, partition: int = -1) -> None:
        self._begin()
        super()._send(topic, key, value, headers, partition)
