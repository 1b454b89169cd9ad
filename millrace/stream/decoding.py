"""From librdkafka's messages to records."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

from confluent_kafka import KafkaError
from confluent_kafka import Message as KafkaMessage

from millrace.errors import InvalidField
from millrace.stream.codec import decode
from millrace.stream.dead_letters import NOBODY, is_for_others
from millrace.stream.worker import Headers, Partition, Record
from millrace.topics import Topic


class Fetched(Protocol):
    """A ``confluent_kafka.Message`` that carries data (whose own types allow None everywhere)."""

    def topic(self) -> str: ...
    def partition(self) -> int: ...
    def offset(self) -> int: ...
    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...
    def timestamp(self) -> tuple[int, int]: ...
    def headers(self) -> Headers | None: ...


class Undecodable(Exception):
    """A record whose value is not what its topic carries.

    Attributes
    ----------
    record
        The record, with ``message`` None.
    reason
        What is wrong with it.
    """

    def __init__(self, record: Record, reason: InvalidField) -> None:
        super().__init__(str(reason))
        self.record = record
        self.reason = reason


def read_record(raw: Fetched, topic: Topic, max_bytes: int) -> Record:
    """The record in a message of the topic.

    Raises
    ------
    Undecodable
        The value is not a message of the topic. A missing value is a tombstone where the topic is compacted.
    """
    value = raw.value()
    headers = raw.headers() or ()
    record = Record(topic.name, raw.partition(), raw.offset(), raw.key(), None, raw.timestamp()[1], headers, value)
    if value is None and topic.cleanup == "compact":
        return record
    try:
        record.message = decode(value or b"", headers, topic.message, max_bytes)
    except InvalidField as reason:
        raise Undecodable(record, reason) from reason
    return record


@dataclass(slots=True)
class Batch:
    """What one poll brought.

    Attributes
    ----------
    records
        Decoded records, in order within each partition.
    refused
        Those that could not be decoded.
    counts
        Records of each partition, both kinds.
    positions
        The next offset after all of it, of each partition.
    ended
        Partitions whose end was met after the last of their records.
    problems
        What librdkafka reported in between.
    """

    records: list[Record] = field(default_factory=list)
    refused: list[Undecodable] = field(default_factory=list)
    counts: dict[Partition, int] = field(default_factory=dict)
    positions: dict[Partition, int] = field(default_factory=dict)
    ended: set[Partition] = field(default_factory=set)
    problems: list[KafkaError] = field(default_factory=list)

    @property
    def newest_ms(self) -> int:
        """Append time of the last record, Unix milliseconds."""
        newest = self.records[-1] if self.records else self.refused[-1].record
        return newest.append_time_ms


def read_batch(
    messages: Sequence[KafkaMessage],
    topics: Mapping[str, Topic],
    wanted: Container[Partition],
    max_bytes: int,
    worker: bytes = NOBODY,
) -> Batch:
    """Sort and decode messages; those of partitions that are not wanted, and replays for others, are left out.

    The innermost loop of every worker: a few microseconds per record, so no function calls that can be avoided.
    """
    batch = Batch()
    records, counts, positions, ended = batch.records, batch.counts, batch.positions, batch.ended
    for message in messages:
        error = message.error()
        fetched = cast("Fetched", message)
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            batch.problems.append(error)
            continue
        partition = fetched.topic(), fetched.partition()
        if partition not in wanted:
            # Fetched before the partition was paused or handed over.
            continue
        if error is not None:
            # The end may lie behind the last record: compaction and transactions leave gaps.
            positions[partition] = fetched.offset()
            batch.ended.add(partition)
            continue
        positions[partition] = fetched.offset() + 1
        if partition in ended:
            ended.discard(partition)
        try:
            record = read_record(fetched, topics[partition[0]], max_bytes)
        except Undecodable as undecodable:
            if is_for_others(undecodable.record.headers, worker):
                continue
            batch.refused.append(undecodable)
        else:
            # Nearly every record has one header, its schema: one comparison tells.
            if len(record.headers) > 1 and is_for_others(record.headers, worker):
                continue
            records.append(record)
        counts[partition] = counts.get(partition, 0) + 1
    return batch
