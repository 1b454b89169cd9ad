"""A topic from given offsets on, in the order in which the broker appended it: the same order at every reading."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self

import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition

from millrace.errors import InfrastructureError
from millrace.settings import KafkaSettings, StreamSettings
from millrace.stream import logs
from millrace.stream.clients import consumer_config, memory_bound
from millrace.stream.decoding import read_batch
from millrace.stream.merge import Merge
from millrace.stream.worker import Assignment, Partition, Record
from millrace.topics import Topic

log = structlog.stdlib.get_logger(__name__)

# librdkafka wants a group even where none is joined; nothing is ever committed under this name.
_NO_GROUP = "millrace.ordered"
# A partition that is far ahead of the others waits for them.
_WAITING_BATCHES = 4


class OrderedReader:
    """Reads all partitions side by side. A context manager.

    Parameters
    ----------
    starts
        Partition -> the first offset. The broker has to hold it (``millrace.stream.window.check_starts``).
    """

    def __init__(self, kafka: KafkaSettings, topic: Topic, starts: Mapping[int, int], stream: StreamSettings) -> None:
        self._where, self._topics, self._stream = kafka.bootstrap_servers, {topic.name: topic}, stream
        self._merge = Merge([topic.name], Assignment.SINGLE, _WAITING_BATCHES * stream.batch_size)
        self._wanted = {(topic.name, number) for number in starts}
        config = consumer_config(kafka, _NO_GROUP) | {"enable.partition.eof": True} | memory_bound(stream)
        self._consumer = Consumer(config, logger=logs.kafka_logger())
        self._consumer.assign([TopicPartition(topic.name, number, offset) for number, offset in starts.items()])
        for number, offset in starts.items():
            self._merge.start((topic.name, number), offset)

    def poll(self, timeout_s: float) -> list[Record]:
        """What comes next; empty if nothing comes in time. What cannot be decoded is logged and passed over.

        Raises
        ------
        InfrastructureError
            The broker refuses.
        """
        try:
            first = self._consumer.poll(timeout_s)
            messages = [] if first is None else [first, *self._consumer.consume(self._stream.batch_size, 0)]
            polled = read_batch(messages, self._topics, self._wanted, self._stream.max_value_bytes)
            for problem in polled.problems:
                log.warning("kafka", problem=problem.str())
            self._merge.add(polled)
            batch = self._merge.take(self._at_end)
            pause, resume = self._merge.flow()
            if pause:
                self._consumer.pause([TopicPartition(*partition) for partition in pause])
            if resume:
                self._consumer.resume([TopicPartition(*partition) for partition in resume])
        except KafkaException as error:
            raise InfrastructureError("kafka", f"{self._where}: {error.args[0].str()}") from error
        for refused in batch.refused:
            where = {"partition": refused.record.partition, "offset": refused.record.offset}
            log.warning("record passed over", topic=refused.record.topic, **where, reason=str(refused.reason))
        return batch.records

    def close(self) -> None:
        """Stop reading."""
        self._consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _at_end(self, partition: Partition, offset: int) -> bool:
        _low, high = self._consumer.get_watermark_offsets(TopicPartition(*partition), cached=True)
        return 0 <= high <= offset
