"""Reads whole topics into memory: for mirrors (item state, model events), without a consumer group."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self, cast

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from millrace.errors import InfrastructureError
from millrace.settings import KafkaSettings, StreamSettings
from millrace.stream import logs, metrics
from millrace.stream.clients import consumer_config, memory_bound
from millrace.stream.dead_letters import NOBODY, is_for_others
from millrace.stream.decoding import Fetched, Undecodable, read_record
from millrace.stream.telemetry import prefetched_bytes
from millrace.stream.worker import Partition, Record
from millrace.topics import Topic

log = structlog.stdlib.get_logger(__name__)

# librdkafka wants a group even where none is joined; nothing is ever committed under this name.
_NO_GROUP = "millrace.reader"
# One question to a broker that is there takes milliseconds; this is for one that is busy starting.
_ASK_TIMEOUT_S = 2.0
_ASK_AGAIN_S = 0.5


@dataclass(frozen=True, slots=True)
class Newest:
    """So many records before the end, the same number of each partition."""

    records: int


class TopicReader:
    """Every record of some topics, in order within each partition, from the beginning or from now on.

    Lives through the absence of brokers and topics: :meth:`poll` answers nothing and keeps trying.

    Parameters
    ----------
    topics
        What to read.
    start
        ``"beginning"``, ``"end"`` for records that come after the reader found the broker, or an append time, Unix
        milliseconds: from the first record of that time or a later one; or the ``Newest`` records and what follows.
    partitions
        Numbers of the partitions to read; None: all of them.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        topics: Sequence[Topic],
        start: Literal["beginning", "end"] | int | Newest = "beginning",
        stream: StreamSettings | None = None,
        partitions: Collection[int] | None = None,
    ) -> None:
        stream = stream or StreamSettings()
        self._partitions = partitions
        self._topics = {topic.name: topic for topic in topics}
        self._start = start
        self._max_bytes = stream.max_value_bytes
        self._where = kafka.bootstrap_servers
        self._ask_at = 0.0
        self._waiting_for = ""
        self._names = ",".join(self._topics)
        metrics.READER_PREFETCHED_MAX_BYTES.labels(self._names).set(stream.queued_max_kib * 1_024)
        # Where each partition ended when the reader started, and the next offset to read; empty until then.
        self._ends: dict[Partition, int] = {}
        self._next: dict[Partition, int] = {}
        self._whole = False
        self._consumer = Consumer(
            consumer_config(kafka, _NO_GROUP)
            | {
                "enable.partition.eof": True,
                "statistics.interval.ms": 1_000,
                "stats_cb": self._on_stats,
                "fetch.wait.max.ms": stream.fetch_wait_ms,
            }
            | memory_bound(stream),
            logger=logs.kafka_logger(),
        )

    def poll(self, max_records: int = 500, timeout_s: float = 0.1) -> list[Record]:
        """Up to ``max_records`` records; empty when none comes in time.

        Waits only for the first record. What cannot be decoded is logged, counted and passed over.
        """
        if not self._ends and not self._find_partitions():
            # Serves librdkafka's log and waits, so that a caller's loop does not spin.
            self._consumer.poll(timeout_s)
            return []
        first = self._consumer.poll(timeout_s)
        if first is None:
            return []
        records = []
        for raw in (first, *self._consumer.consume(max_records - 1, 0)):
            error = raw.error()
            if error is not None:
                self._note(error, cast("Fetched", raw))
            elif (record := self._read(cast("Fetched", raw))) is not None:
                records.append(record)
        return records

    @property
    def caught_up(self) -> bool:
        """Whether everything has been read that stood on the broker when the reader found it."""
        return bool(self._ends) and all(self._next[at] >= end for at, end in self._ends.items())

    @property
    def whole(self) -> bool:
        """Whether it reads everything that its partitions still keep; known once the reader found the broker."""
        return self._whole

    def lag(self) -> int:
        """Records (and markers of transactions) on the broker not read yet; 0 until the broker was found."""
        lag = 0
        for (topic, partition), end in self._ends.items():
            _low, high = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
            lag += max(0, max(end, high) - self._next[topic, partition])
        return lag

    def close(self) -> None:
        """Stop reading."""
        self._consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _on_stats(self, text: str) -> None:
        metrics.READER_PREFETCHED_BYTES.labels(self._names).set(prefetched_bytes(json.loads(text)))

    def _find_partitions(self) -> bool:
        """Assign all partitions; False if the broker or a topic is not there yet."""
        now = time.monotonic()
        if now < self._ask_at:
            return False
        self._ask_at = now + _ASK_AGAIN_S
        try:
            found, bounds, starts = self._ask()
        except InfrastructureError as error:
            if str(error) != self._waiting_for:
                self._waiting_for = str(error)
                log.warning("waiting", what=self._waiting_for)
            return False
        self._waiting_for = ""
        self._whole = starts == [low for low, _high in bounds]
        for partition, (_low, high), start in zip(found, bounds, starts, strict=True):
            at = partition.topic, partition.partition
            self._ends[at] = high
            self._next[at] = start
            partition.offset = OFFSET_BEGINNING if self._start == "beginning" else start
        self._consumer.assign(found)
        return True

    def _ask(self) -> tuple[list[TopicPartition], list[tuple[int, int]], list[int]]:
        """All partitions, the first and the next offset of each, and the one to start from."""
        try:
            known = self._consumer.list_topics(timeout=_ASK_TIMEOUT_S).topics
            missing = [name for name in self._topics if name not in known or known[name].error]
            if missing:
                raise InfrastructureError("kafka", f"no {', '.join(missing)} yet; run millrace topics apply")
            found = [
                TopicPartition(name, number)
                for name in self._topics
                for number in known[name].partitions
                if self._partitions is None or number in self._partitions
            ]
            bounds = [self._bounds(partition) for partition in found]
            return found, bounds, self._starts(found, bounds)
        except KafkaException as error:
            raise InfrastructureError("kafka", f"{self._where}: {error.args[0].str()}") from error

    def _starts(self, found: Sequence[TopicPartition], bounds: Sequence[tuple[int, int]]) -> list[int]:
        if isinstance(self._start, str):
            return [low if self._start == "beginning" else high for low, high in bounds]
        if isinstance(self._start, Newest):
            most = -(-self._start.records // len(found))
            return [max(low, high - most) for low, high in bounds]
        asked = [TopicPartition(one.topic, one.partition, self._start) for one in found]
        answers = self._consumer.offsets_for_times(asked, timeout=_ASK_TIMEOUT_S)
        for answer in answers:
            if answer.error is not None:
                raise KafkaException(answer.error)
        # Negative: every record is older.
        return [
            answer.offset if answer.offset >= 0 else high for answer, (_low, high) in zip(answers, bounds, strict=True)
        ]

    def _bounds(self, partition: TopicPartition) -> tuple[int, int]:
        bounds = self._consumer.get_watermark_offsets(partition, timeout=_ASK_TIMEOUT_S)
        if bounds is None:
            raise InfrastructureError("kafka", f"{self._where}: no answer about the ends of {partition.topic}")
        return bounds

    def _note(self, error: KafkaError, raw: Fetched) -> None:
        """Take what is not data: the end of a partition, or a problem that librdkafka goes on with."""
        if error.code() == KafkaError._PARTITION_EOF:
            # The end may lie behind the last record: compaction and transactions leave gaps.
            self._next[raw.topic(), raw.partition()] = raw.offset()
        else:
            log.warning("kafka", problem=error.str())

    def _read(self, raw: Fetched) -> Record | None:
        """The record, having moved the position past it; None if it cannot be decoded, or is for a worker alone."""
        topic = self._topics[raw.topic()]
        self._next[topic.name, raw.partition()] = raw.offset() + 1
        try:
            record = read_record(raw, topic, self._max_bytes)
            return None if is_for_others(record.headers, NOBODY) else record
        except Undecodable as undecodable:
            if is_for_others(undecodable.record.headers, NOBODY):
                return None
            metrics.READER_SKIPPED.labels(topic.name).inc()
            where = {"topic": topic.name, "partition": raw.partition(), "offset": raw.offset()}
            log.warning("record passed over", **where, reason=str(undecodable))
            return None
