"""A part of a topic with a beginning and an end: what a training job reads, the same ever again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka import Message as KafkaMessage

from millrace.errors import InfrastructureError, MillraceError
from millrace.settings import KafkaSettings, StreamSettings
from millrace.stream import logs
from millrace.stream.admin import topic_ids
from millrace.stream.clients import consumer_config, memory_bound
from millrace.stream.decoding import Batch, Fetched, read_batch
from millrace.topics import Topic
from millrace.v1.common_pb2 import Position

log = structlog.stdlib.get_logger(__name__)

# librdkafka wants a group even where none is joined; nothing is ever committed under this name.
_NO_GROUP = "millrace.window"
_ASK_TIMEOUT_S = 10.0
_POLL_S = 0.2
SILENCE_S = 60.0
"""A broker that brings nothing for so long, before the end of the window, is away."""


@dataclass(frozen=True, slots=True)
class Window:
    """Which records.

    Attributes
    ----------
    topic_id
        The broker's id of the topic: another one under the same name has other records at the same offsets.
    bounds
        Partition -> its first offset, and the one after the last.
    """

    topic_id: str
    bounds: Mapping[int, tuple[int, int]]

    @property
    def offsets(self) -> int:
        """How many there are; records are fewer, for markers of transactions have offsets too."""
        return sum(end - start for start, end in self.bounds.values())

    def words(self) -> dict[str, Any]:
        """It as JSON takes it."""
        return {"topic_id": self.topic_id, "bounds": {str(at): list(both) for at, both in sorted(self.bounds.items())}}

    @classmethod
    def from_words(cls, words: Mapping[str, Any]) -> Window:
        """What ``words`` gave. Raises MillraceError if it is something else."""
        try:
            bounds = {int(at): (int(start), int(end)) for at, (start, end) in words["bounds"].items()}
            if any(not 0 <= start <= end for start, end in bounds.values()):
                raise ValueError("an end before its start")
            return cls(str(words["topic_id"]), bounds)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise MillraceError(f"no window of a topic: {type(error).__name__}: {error}") from error


def find_window(kafka: KafkaSettings, topic: Topic, since_ms: int) -> Window:
    """Everything that was appended since a time, Unix milliseconds, and is committed now. Raises InfrastructureError.

    Records of a transaction that is open now, and what comes after them in their partition, are not in it.
    """
    with _errors(kafka), _closing(_consumer(kafka, StreamSettings())) as consumer:
        lows, ends = _ends(consumer, topic)
        asked = [TopicPartition(topic.name, number, since_ms) for number in ends]
        starts = {}
        for answer in consumer.offsets_for_times(asked, timeout=_ASK_TIMEOUT_S):
            if answer.error is not None:
                raise KafkaException(answer.error)
            # Negative: every record is older.
            starts[answer.partition] = answer.offset if answer.offset >= 0 else ends[answer.partition]
    bounds = {at: (min(max(starts[at], lows[at]), end), end) for at, end in ends.items()}
    return Window(topic_ids(kafka, [topic.name])[topic.name], bounds)


def find_ends(kafka: KafkaSettings, topic: Topic) -> list[Position]:
    """Where the next committed record of each partition will stand. Raises InfrastructureError."""
    with _errors(kafka), _closing(_consumer(kafka, StreamSettings())) as consumer:
        _, ends = _ends(consumer, topic)
    at = {"topic": topic.name, "topic_id": topic_ids(kafka, [topic.name])[topic.name]}
    return [Position(**at, partition=number, offset=end) for number, end in sorted(ends.items())]


def check_window(kafka: KafkaSettings, topic: Topic, window: Window) -> None:
    """Raises MillraceError unless the broker still holds all of a window; InfrastructureError if it does not answer."""
    present = topic_ids(kafka, [topic.name])[topic.name]
    if present != window.topic_id:
        raise MillraceError(
            f"topic {topic.name} was made anew: its id is {present}, that of the input {window.topic_id}"
        )
    with _errors(kafka), _closing(_consumer(kafka, StreamSettings())) as consumer:
        lows, ends = _ends(consumer, topic)
    for number, (start, end) in window.bounds.items():
        if number not in ends or (start < end and not lows[number] <= start <= end <= ends[number]):
            held = f"{lows[number]} to {ends[number]}" if number in ends else "none"
            raise MillraceError(
                f"offsets {start} to {end} of partition {number} of {topic.name} are not on the broker: {held} are"
            )


def check_starts(kafka: KafkaSettings, topic: Topic, topic_id: str, starts: Mapping[int, int]) -> None:
    """Raises MillraceError unless the broker still holds a topic from these offsets on; as ``check_window``."""
    check_window(kafka, topic, Window(topic_id, {number: (start, start) for number, start in starts.items()}))
    with _errors(kafka), _closing(_consumer(kafka, StreamSettings())) as consumer:
        lows, _ = _ends(consumer, topic)
    gone = {number: start for number, start in starts.items() if start < lows[number]}
    if gone:
        raise MillraceError(f"{topic.name} is not kept from {gone} (partition: offset) on any more")


class WindowReader:
    """Reads a window, a batch at a time; what is fetched ahead is bounded by the settings of the stream.

    Attributes
    ----------
    done
        Offsets passed so far.
    """

    def __init__(
        self, kafka: KafkaSettings, topic: Topic, window: Window, stream: StreamSettings | None = None
    ) -> None:
        self._kafka, self._topic, self._window = kafka, topic, window
        self._stream = stream or StreamSettings()
        self._ends = {(topic.name, at): end for at, (start, end) in window.bounds.items() if start < end}
        self._open = set(self._ends)
        self.done = 0

    def batches(self) -> Iterator[Batch]:
        """Records, and those that cannot be decoded, in order within each partition.

        Raises
        ------
        InfrastructureError
            The broker is silent.
        """
        stream, topics = self._stream, {self._topic.name: self._topic}
        with _errors(self._kafka), _closing(_consumer(self._kafka, stream)) as consumer:
            positions = {(name, at): self._window.bounds[at][0] for name, at in self._ends}
            consumer.assign([TopicPartition(name, at, offset) for (name, at), offset in positions.items()])
            heard_at = time.monotonic()
            while self._open:
                first = consumer.poll(_POLL_S)
                messages = [first, *consumer.consume(stream.batch_size, 0)] if first is not None else []
                batch = read_batch(self._inside(messages), topics, self._ends, stream.max_value_bytes)
                for problem in batch.problems:
                    log.warning("kafka", problem=problem.str())
                # The end of a partition that has grown meanwhile lies behind that of the window.
                positions |= {at: min(offset, self._ends[at]) for at, offset in batch.positions.items()}
                self._open -= {at for at in self._open if positions[at] >= self._ends[at]}
                self.done = sum(offset - self._window.bounds[number][0] for (_, number), offset in positions.items())
                if batch.records or batch.refused:
                    yield batch
                if batch.positions:
                    heard_at = time.monotonic()
                elif time.monotonic() - heard_at > SILENCE_S:
                    raise InfrastructureError(
                        "kafka", f"nothing of {self._topic.name} for {SILENCE_S:g} s, before the end of the window"
                    )

    def _inside(self, messages: list[KafkaMessage]) -> list[KafkaMessage]:
        """The messages before the end of the window; one behind it says that its partition is done."""
        inside = []
        for message in messages:
            fetched = cast("Fetched", message)
            at = (fetched.topic(), fetched.partition()) if message.error() is None else None
            if at is not None and fetched.offset() >= self._ends[at]:
                self._open.discard(at)
            else:
                inside.append(message)
        return inside


def _ends(consumer: Consumer, topic: Topic) -> tuple[dict[int, int], dict[int, int]]:
    """The first offset of each partition, and the one after the last that is committed."""
    known = consumer.list_topics(topic.name, timeout=_ASK_TIMEOUT_S).topics[topic.name]
    if known.error is not None:
        raise InfrastructureError("kafka", f"no topic {topic.name} yet; run millrace topics apply")
    lows, ends = {}, {}
    for number in sorted(known.partitions):
        found = consumer.get_watermark_offsets(TopicPartition(topic.name, number), timeout=_ASK_TIMEOUT_S)
        if found is None:
            raise InfrastructureError("kafka", f"no answer about the ends of {topic.name}")
        lows[number], ends[number] = found
    return lows, ends


def _consumer(kafka: KafkaSettings, stream: StreamSettings) -> Consumer:
    config = consumer_config(kafka, _NO_GROUP) | {"enable.partition.eof": True} | memory_bound(stream)
    return Consumer(config, logger=logs.kafka_logger())


@contextlib.contextmanager
def _closing(consumer: Consumer) -> Iterator[Consumer]:
    try:
        yield consumer
    finally:
        consumer.close()


@contextlib.contextmanager
def _errors(kafka: KafkaSettings) -> Iterator[None]:
    try:
        yield
    except KafkaException as error:
        raise InfrastructureError("kafka", f"{kafka.bootstrap_servers}: {error.args[0].str()}") from error
