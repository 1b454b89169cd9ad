"""Reads a piece of a topic: from an offset, from a time, or the newest; some milliseconds, in a thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from millrace.errors import InfrastructureError
from millrace.settings import Settings
from millrace.stream.clients import consumer_config, memory_bound
from millrace.stream.decoding import Fetched, Undecodable, read_record
from millrace.stream.logs import kafka_logger
from millrace.stream.partitioner import partition_of
from millrace.stream.worker import Record
from millrace.topics import Topic

_NO_GROUP = "millrace.console"
_TIMEOUT_S = 2.0
SCANNED_MAX = 20_000
"""Records that one look decodes at most."""
# Passing over a record of another key takes a microsecond or two.
_PASSED_MAX = 500_000
_PATIENCE_S = 5.0
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Found:
    """A record, and what is wrong with it if it is not what its topic carries."""

    record: Record
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where to begin: at offsets of partitions (others at their ends), at an append time (Unix ms), or ``newest``
    records before the end; one of them.
    """

    offsets: Mapping[int, int] | None = None
    time_ms: int | None = None
    newest: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """What was found.

    Attributes
    ----------
    found
        In the order of append times.
    whole
        Whether everything up to the end was looked at.
    goes_on
        Where to begin to find what comes next, by partition.
    """

    found: Sequence[Found]
    scanned: int
    whole: bool
    goes_on: Mapping[int, int]


def read_piece(
    settings: Settings,
    topic: Topic,
    place: Place,
    most: int,
    wanted: Callable[[Found], bool],
    partition: int | None = None,
    key: bytes | None = None,
    dead_letters: bool = False,
) -> Piece:
    """Up to ``most`` records that are wanted, from a place of one partition (None: of all).

    Parameters
    ----------
    key
        Of the records: only its partition is read, and others are passed over without being decoded.
    dead_letters
        Whether to read the topic's dead letters instead.

    Raises
    ------
    InfrastructureError
        The broker does not answer, or has no such topic.
    """
    try:
        with _consumer(settings) as consumer:
            return _read(consumer, settings, topic, place, most, wanted, partition, key, dead_letters)
    except KafkaException as error:
        raise InfrastructureError("kafka", f"{settings.kafka.bootstrap_servers}: {error.args[0].str()}") from error


@contextmanager
def _consumer(settings: Settings) -> Iterator[Consumer]:
    config = consumer_config(settings.kafka, _NO_GROUP) | memory_bound(settings.stream) | {"enable.partition.eof": True}
    consumer = Consumer(config, logger=kafka_logger())
    try:
        yield consumer
    finally:
        consumer.close()


def _read(
    consumer: Consumer,
    settings: Settings,
    topic: Topic,
    place: Place,
    most: int,
    wanted: Callable[[Found], bool],
    partition: int | None,
    key: bytes | None,
    dead_letters: bool,
) -> Piece:
    name = topic.dlq if dead_letters else topic.name
    starts = _starts(consumer, settings, name, place, partition, key)
    goes_on = {one.partition: one.offset for one in starts}
    if not starts:
        return Piece((), 0, True, goes_on)
    consumer.assign(starts)
    left, found, scanned = set(goes_on), [], 0
    reached = dict(goes_on)
    give_up, scanned_max = time.monotonic() + _PATIENCE_S, SCANNED_MAX if key is None else _PASSED_MAX
    while left and scanned < scanned_max and time.monotonic() < give_up:
        for message in consumer.consume(_AT_ONCE, 0.2):
            error = message.error()
            if error is not None:
                if error.code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(error)
                left.discard(cast(int, message.partition()))
                continue
            raw = cast("Fetched", message)
            scanned += 1
            reached[raw.partition()] = raw.offset() + 1
            if key is not None and raw.key() != key:
                continue
            one = _decoded(raw, topic, settings)
            if wanted(one):
                found.append(one)
        # Of the newest, the last count; of a place, the first.
        if not place.newest and len(found) >= most:
            break
    found.sort(key=lambda one: (one.record.append_time_ms, one.record.partition, one.record.offset))
    whole = not left and len(found) <= most
    shown = found[-most:] if place.newest else found[:most]
    if len(found) <= most:
        goes_on = reached
    for one in shown:
        at = one.record.partition
        goes_on[at] = max(goes_on[at], one.record.offset + 1)
    return Piece(shown, scanned, whole, goes_on)


def _starts(
    consumer: Consumer, settings: Settings, name: str, place: Place, partition: int | None, key: bytes | None
) -> list[TopicPartition]:
    """Where to begin in each partition that holds something from there on."""
    known = consumer.list_topics(name, timeout=_TIMEOUT_S).topics[name]
    if known.error is not None:
        raise InfrastructureError("kafka", f"{settings.kafka.bootstrap_servers}: no topic {name} ({known.error.str()})")
    if partition is None and key is not None:
        partition = partition_of(key.decode(), len(known.partitions))
    numbers = [number for number in sorted(known.partitions) if partition is None or number == partition]
    found = []
    for number in numbers:
        bounds = consumer.get_watermark_offsets(TopicPartition(name, number), timeout=_TIMEOUT_S)
        if bounds is None:
            raise InfrastructureError("kafka", f"no answer about the ends of {name}")
        low, high = bounds
        start = low
        if place.offsets is not None:
            start = max(low, place.offsets.get(number, high))
        elif place.time_ms is not None:
            [answer] = consumer.offsets_for_times([TopicPartition(name, number, place.time_ms)], timeout=_TIMEOUT_S)
            start = answer.offset if answer.offset >= 0 else high
        elif place.newest:
            start = max(low, high - place.newest)
        if start < high:
            found.append(TopicPartition(name, number, start))
    return found


def _decoded(raw: Fetched, topic: Topic, settings: Settings) -> Found:
    try:
        return Found(read_record(raw, topic, settings.stream.max_value_bytes))
    except Undecodable as undecodable:
        return Found(undecodable.record, str(undecodable))
