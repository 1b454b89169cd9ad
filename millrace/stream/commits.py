"""Commits: which safe positions the broker has, which it was sent, and what became of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from millrace.errors import InfrastructureError
from millrace.stream.telemetry import Telemetry
from millrace.stream.worker import Partition

log = structlog.stdlib.get_logger(__name__)

# One question to a broker that is there takes milliseconds; a coordinator that moves may need a second.
_TIMEOUT_S = 2.0


class Commits:
    """Commits of one consumer."""

    def __init__(self, consumer: Consumer, telemetry: Telemetry) -> None:
        self._consumer = consumer
        self._telemetry = telemetry
        self._requested: dict[Partition, int] = {}
        self._confirmed: dict[Partition, int] = {}

    @property
    def confirmed(self) -> Mapping[Partition, int]:
        """What the broker has, as far as this process knows."""
        return self._confirmed

    def find(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """Where to start: the committed positions, and the beginning where there is none.

        Raises
        ------
        InfrastructureError
            The broker does not answer.
        """
        asked = [TopicPartition(*partition) for partition in partitions]
        try:
            found = self._consumer.committed(asked, timeout=_TIMEOUT_S) if asked else []
        except KafkaException as error:
            raise InfrastructureError("kafka", f"committed positions: {error.args[0].str()}") from error
        positions = {}
        for at in found:
            if at.error is not None:
                raise InfrastructureError("kafka", f"committed position of {at.topic}/{at.partition}: {at.error.str()}")
            if at.offset >= 0:
                self._confirm(at)
            positions[at.topic, at.partition] = at.offset if at.offset >= 0 else OFFSET_BEGINNING
        return positions

    def send(self, safe: Mapping[Partition, int]) -> None:
        """Commit what moved since the last time; the answer comes to :meth:`answered`."""
        offsets = self._news(safe)
        if not offsets:
            return
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            self._failed(error.args[0])
            return
        self._requested.update({(at.topic, at.partition): at.offset for at in offsets})

    def send_and_wait(self, safe: Mapping[Partition, int]) -> None:
        """Commit what moved and wait for the answer. A failure costs a repetition, no more, so it is only logged."""
        offsets = self._news(safe, self._confirmed)
        if not offsets:
            return
        try:
            for at in self._consumer.commit(offsets=offsets, asynchronous=False):
                self._take(at)
        except KafkaException as error:
            self._failed(error.args[0])

    def answered(self, error: KafkaError | None, partitions: list[TopicPartition] | None) -> None:
        """The broker's answer to :meth:`send`; from inside the consumer's poll."""
        if error is not None:
            self._requested = dict(self._confirmed)
            self._failed(error)
            return
        for at in partitions or ():
            self._take(at)

    def transacted(self, positions: Mapping[Partition, int]) -> None:
        """Positions were committed by a transaction."""
        for partition, offset in positions.items():
            if offset >= 0:
                self._confirm(TopicPartition(*partition, offset))

    def release(self, partitions: Iterable[Partition]) -> None:
        """Partitions belong to this process no more."""
        for partition in partitions:
            self._requested.pop(partition, None)
            self._confirmed.pop(partition, None)

    def _news(
        self, safe: Mapping[Partition, int], known: Mapping[Partition, int] | None = None
    ) -> list[TopicPartition]:
        known = self._requested if known is None else known
        # Kafka's logical offsets (negative) say where to start and cannot be committed.
        return [
            TopicPartition(*partition, offset)
            for partition, offset in safe.items()
            if offset >= 0 and known.get(partition) != offset
        ]

    def _take(self, at: TopicPartition) -> None:
        if at.error is not None:
            self._requested.pop((at.topic, at.partition), None)
            self._failed(at.error)
        else:
            self._confirm(at)

    def _confirm(self, at: TopicPartition) -> None:
        partition = at.topic, at.partition
        self._confirmed[partition] = self._requested[partition] = at.offset
        self._telemetry.committed(partition, at.offset)

    def _failed(self, error: KafkaError) -> None:
        self._telemetry.commit_failed()
        log.warning("commit failed, will be repeated", problem=error.str())
