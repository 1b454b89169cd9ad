"""Reads any topic as it stands, from anywhere: every record with its bytes, whether it can be decoded or not."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from types import TracebackType
from typing import Self, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from millrace.errors import InfrastructureError, InvalidField, MillraceError
from millrace.inspection.start import Beginning, End, Newest, Since, Start
from millrace.settings import KafkaSettings, StreamSettings
from millrace.stream import logs
from millrace.stream.clients import consumer_config, memory_bound
from millrace.stream.decoding import Fetched

# librdkafka wants a group even where none is joined; nothing is ever committed under this name.
_NO_GROUP = "millrace.inspection"
# An answer takes milliseconds, the election of a controller seconds.
_ASK_TIMEOUT_S = 6.0
_BATCH = 500
# An end behind a marker of a transaction is told by a fetch that found nothing: it waits this long (default: 500 ms).
_FETCH_WAIT_MS = 50
SILENCE_S = 20.0
"""A broker that brings nothing for so long, before the end that it told, is away."""
# Each time that gaps (compaction, markers of transactions) left too few records, so much further back.
_FURTHER = 8
_FINAL = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_AUTHORIZATION_FAILED})
"""What librdkafka reports while it goes on, though nothing will come any more."""


class RawReader:
    """Records of one topic, in order within each partition. Open from the beginning: the broker was asked.

    Parameters
    ----------
    partitions
        Numbers of the partitions to read; empty: all of them.

    Raises
    ------
    MillraceError
        There is no such topic, or no such partition.
    InfrastructureError
        The broker does not answer.
    """

    def __init__(self, kafka: KafkaSettings, topic: str, start: Start, partitions: Collection[int] = ()) -> None:
        self._where = kafka.bootstrap_servers
        self._topic = topic
        stream = StreamSettings()
        self._consumer = Consumer(
            consumer_config(kafka, _NO_GROUP)
            | {"enable.partition.eof": True, "fetch.wait.max.ms": _FETCH_WAIT_MS}
            | memory_bound(stream),
            logger=logs.kafka_logger(),
        )
        try:
            self._bounds = {number: self._ends(number) for number in self._found(partitions)}
            # The next offset to come of each partition.
            self._next: dict[int, int] = {}
            self._ahead: deque[Fetched] = deque()
            if isinstance(start, Newest):
                self._read_newest(start.records)
            else:
                self._assign(self._starts(start))
        except BaseException as error:
            self._consumer.close()
            if isinstance(error, KafkaException):
                raise self._absent(error) from error
            raise

    def poll(self, timeout_s: float) -> list[Fetched]:
        """What came; waits only for the first record. Raises InfrastructureError."""
        if self._ahead:
            found = list(self._ahead)
            self._ahead.clear()
            return found
        first = self._consumer.poll(timeout_s)
        if first is None:
            return []
        return [
            fetched
            for raw in (first, *self._consumer.consume(_BATCH - 1, 0))
            if (fetched := self._taken(raw.error(), cast("Fetched", raw))) is not None
        ]

    @property
    def at_end(self) -> bool:
        """Whether everything was handed out that stood there when the reader was made."""
        return not self._ahead and all(self._next[number] >= end for number, (_low, end) in self._bounds.items())

    def rest(self) -> Sequence[Fetched]:
        """The next records before the end; empty when there are none. Raises InfrastructureError.

        What was appended since the reader was made is not among them.
        """
        while found := self._up_to_end():
            if inside := [one for one in found if one.offset() < self._bounds[one.partition()][1]]:
                return inside
        return ()

    def again(self) -> None:
        """Go back to the first record that the topic kept when the reader was made."""
        self._ahead.clear()
        self._assign({number: low for number, (low, _end) in self._bounds.items()})

    def close(self) -> None:
        """Stop reading."""
        self._consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _up_to_end(self) -> Sequence[Fetched]:
        """The same with what came together with them from behind the end."""
        heard_at = time.monotonic()
        while not self.at_end:
            before = dict(self._next)
            if found := self.poll(0.2):
                return found
            if self._next != before:
                heard_at = time.monotonic()
            elif time.monotonic() - heard_at > SILENCE_S:
                raise InfrastructureError("kafka", f"nothing of {self._topic} for {SILENCE_S:g} s, before its end")
        return ()

    def _found(self, wanted: Collection[int]) -> list[int]:
        known = self._consumer.list_topics(timeout=_ASK_TIMEOUT_S).topics
        topic = known.get(self._topic)
        if topic is None or not topic.partitions:
            near = get_close_matches(self._topic, known, n=3, cutoff=0.5)
            hint = f"near: {', '.join(near)}" if near else "`millrace topics list` shows those of Millrace"
            raise MillraceError(f"no topic {self._topic} on {self._where}; {hint}")
        if beyond := sorted(set(wanted) - topic.partitions.keys()):
            raise InvalidField("partition", f"{beyond[0]} of {self._topic}", f"0 to {len(topic.partitions) - 1}")
        return sorted(wanted or topic.partitions)

    def _ends(self, number: int) -> tuple[int, int]:
        bounds = self._consumer.get_watermark_offsets(TopicPartition(self._topic, number), timeout=_ASK_TIMEOUT_S)
        if bounds is None:
            raise InfrastructureError("kafka", f"{self._where}: no answer about the ends of {self._topic}")
        return bounds

    def _starts(self, start: Start) -> dict[int, int]:
        if isinstance(start, Beginning):
            return {number: low for number, (low, _end) in self._bounds.items()}
        if isinstance(start, End):
            return {number: end for number, (_low, end) in self._bounds.items()}
        if isinstance(start, Since):
            asked = [TopicPartition(self._topic, number, start.at_ms) for number in self._bounds]
            answers = self._consumer.offsets_for_times(asked, timeout=_ASK_TIMEOUT_S)
            # Negative: every record is older.
            return {one.partition: one.offset if one.offset >= 0 else self._bounds[one.partition][1] for one in answers}
        assert not isinstance(start, Newest)
        return {number: min(max(low, start.offset), end) for number, (low, end) in self._bounds.items()}

    def _assign(self, starts: Mapping[int, int]) -> None:
        self._next = dict(starts)
        self._consumer.assign([TopicPartition(self._topic, number, at) for number, at in starts.items()])

    def _read_newest(self, records: int) -> None:
        """Hold the newest records, by append time; what comes after them follows from :meth:`poll`."""
        back = records
        while True:
            starts = {number: max(low, end - back) for number, (low, end) in self._bounds.items()}
            self._assign(starts)
            kept: dict[int, deque[Fetched]] = {number: deque(maxlen=records) for number in self._bounds}
            while found := self._up_to_end():
                for one in found:
                    kept[one.partition()].append(one)
            whole = all(starts[number] == low for number, (low, _end) in self._bounds.items())
            if whole or sum(map(len, kept.values())) >= records:
                break
            back *= _FURTHER
        newest = sorted((one for some in kept.values() for one in some), key=lambda one: one.timestamp()[1])
        self._ahead.extend(newest[-records:] if records else ())

    def _taken(self, error: KafkaError | None, raw: Fetched) -> Fetched | None:
        """The record; None for what is not data. The position moves past either."""
        if error is None:
            self._next[raw.partition()] = raw.offset() + 1
            return raw
        if error.code() == KafkaError._PARTITION_EOF:
            # The end may lie behind the last record: compaction and transactions leave gaps.
            self._next[raw.partition()] = raw.offset()
        elif error.fatal() or error.code() in _FINAL:
            raise InfrastructureError("kafka", f"{self._where}: {error.str()}")
        return None

    def _absent(self, error: KafkaException) -> InfrastructureError:
        reason = error.args[0].str()
        return InfrastructureError(
            "kafka", f"no answer from {self._where} ({reason}); is it running? `millrace stack up` starts one here"
        )
