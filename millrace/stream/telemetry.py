"""What the runtime measures of itself, with the worker's name on it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from millrace.settings import StreamSettings
from millrace.stream import metrics
from millrace.stream.output import MAX_RECORDS
from millrace.stream.worker import Partition

_KIB = 1024


def prefetched_bytes(stats: Mapping[str, Any]) -> int:
    """Data that a consumer has fetched and not handed out, of librdkafka's statistics."""
    return sum(
        partition["fetchq_size"] for topic in stats["topics"].values() for partition in topic["partitions"].values()
    )


class Telemetry:
    """Metrics of one worker.

    Parameters
    ----------
    topics
        Names of what it reads: dead letters are counted from 0, so that the first one is seen as a change.
    wall
        The clock, Unix seconds.

    Attributes
    ----------
    kafka_up
        Whether any broker is connected, as of librdkafka's last statistics; None before the first.
    """

    def __init__(self, worker: str, topics: Iterable[str], stream: StreamSettings, wall: Callable[[], float]) -> None:
        self._worker = worker
        self._wall = wall
        self._newest_s: float | None = None
        self.kafka_up: bool | None = None
        self._batch_records = metrics.BATCH_RECORDS.labels(worker)
        self._batch_seconds = metrics.BATCH_SECONDS.labels(worker)
        self._delay_seconds = metrics.DELAY_SECONDS.labels(worker)
        metrics.NEWEST_AGE_SECONDS.labels(worker).set_function(self._newest_age)
        for topic in topics:
            metrics.DEAD_LETTERS.labels(worker, topic)
        metrics.PAUSED.labels(worker).set(0)
        metrics.ASSIGNED_PARTITIONS.labels(worker).set(0)
        metrics.PREFETCHED_MAX_BYTES.labels(worker).set(stream.queued_max_kib * _KIB)
        metrics.OUTPUT_PENDING_MAX_RECORDS.labels(worker).set(MAX_RECORDS)
        metrics.OUTPUT_PENDING_MAX_BYTES.labels(worker).set(stream.output_max_kib * _KIB)

    def batch(self, records: Mapping[Partition, int], seconds: float, newest_ms: int) -> None:
        """A batch was handled.

        Parameters
        ----------
        records
            How many of each partition.
        seconds
            Time of the worker on it.
        newest_ms
            Append time of its newest record, Unix milliseconds.
        """
        total = 0
        for (topic, partition), count in records.items():
            metrics.RECORDS.labels(self._worker, topic, partition).inc(count)
            total += count
        self._batch_records.observe(total)
        self._batch_seconds.observe(seconds)
        self._newest_s = newest_ms / 1_000
        self._delay_seconds.observe(max(0.0, self._wall() - self._newest_s))

    def failed(self, system: str) -> None:
        """A system is away; the worker waits."""
        metrics.INFRASTRUCTURE_FAILURES.labels(self._worker, system).inc()
        metrics.PAUSED.labels(self._worker).set(1)

    def recovered(self) -> None:
        """The worker goes on."""
        metrics.PAUSED.labels(self._worker).set(0)

    def commit_failed(self) -> None:
        """A commit was refused or got no answer."""
        metrics.COMMIT_FAILURES.labels(self._worker).inc()

    def committed(self, partition: Partition, offset: int) -> None:
        """The broker has a position."""
        metrics.COMMITTED_OFFSET.labels(self._worker, *partition).set(offset)

    def lag(self, partition: Partition, records: int) -> None:
        """Records that are not handled yet."""
        metrics.LAG_RECORDS.labels(self._worker, *partition).set(records)

    def owns(self, partitions: int, unsafe_batches: int) -> None:
        """How much this process holds."""
        metrics.ASSIGNED_PARTITIONS.labels(self._worker).set(partitions)
        metrics.UNCOMMITTED_BATCHES.labels(self._worker).set(unsafe_batches)

    def released(self, partitions: Iterable[Partition]) -> None:
        """Partitions went to somebody else, who reports their lag from now on."""
        for partition in partitions:
            for gauge in (metrics.LAG_RECORDS, metrics.COMMITTED_OFFSET):
                gauge.remove(self._worker, *partition)

    def consumer_stats(self, text: str) -> None:
        """librdkafka's statistics of the consumer (JSON, see its STATISTICS.md)."""
        stats: dict[str, Any] = json.loads(text)
        self.kafka_up = any(broker["state"] == "UP" for broker in stats["brokers"].values())
        metrics.PREFETCHED_BYTES.labels(self._worker).set(prefetched_bytes(stats))

    def producer_stats(self, text: str) -> None:
        """librdkafka's statistics of the producer."""
        stats: dict[str, Any] = json.loads(text)
        metrics.OUTPUT_PENDING_RECORDS.labels(self._worker).set(stats["msg_cnt"])
        metrics.OUTPUT_PENDING_BYTES.labels(self._worker).set(stats["msg_size"])

    def _newest_age(self) -> float:
        return float("nan") if self._newest_s is None else max(0.0, self._wall() - self._newest_s)
