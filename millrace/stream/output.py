"""What a worker sends: records to topics, and records that it cannot handle to their dead-letter topics."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as KafkaMessage
from google.protobuf.message import Message

from millrace.errors import InfrastructureError
from millrace.settings import KafkaSettings, StreamSettings
from millrace.stream import logs, metrics
from millrace.stream.clients import producer_config
from millrace.stream.codec import encode
from millrace.stream.dead_letters import dead_letter_headers
from millrace.stream.progress import Parcel
from millrace.stream.tracing import TRACES
from millrace.stream.worker import Headers, Record
from millrace.topics import Topic

log = structlog.stdlib.get_logger(__name__)

# librdkafka's own bound on the number, stated because the metric shows it.
MAX_RECORDS = 100_000
# How long a full queue to the broker may take to get room before that counts as a failure of Kafka: a broker
# that is there empties the whole queue in less.
_ROOM_TIMEOUT_S = 5.0
# What a producer answers that has failed before: its own failure, or that of its transaction, and not the record's.
_FAILED = (KafkaError._FATAL, KafkaError._FENCED, KafkaError._STATE)


class KafkaOutput:
    """The runtime's :class:`millrace.stream.worker.Output`.

    Rejected records are held until the batch is through: a batch that is tried again leaves one dead letter of
    each, not two.

    Parameters
    ----------
    topics
        Topics by name, for the dead letters.
    sent
        Called for each record on its way; answers the parcel that counts its acknowledgement.
    on_stats
        Gets librdkafka's statistics, JSON, once a second.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        stream: StreamSettings,
        worker: str,
        topics: dict[str, Topic],
        sent: Callable[[], Parcel],
        on_stats: Callable[[str], None],
    ) -> None:
        self._worker = worker
        self._topics = topics
        self._sent = sent
        self._config: dict[str, Any] = producer_config(kafka) | {
            "queue.buffering.max.messages": MAX_RECORDS,
            "queue.buffering.max.kbytes": stream.output_max_kib,
            "statistics.interval.ms": 1_000,
            "stats_cb": on_stats,
        }
        self._rejected: list[tuple[Record, Exception, int]] = []
        self._failure = ""
        self._repetition = logs.Repetition()
        self._producer = self._connect()

    def produce(self, topic: Topic, key: str, message: Message | None, partition: int | None = None) -> None:
        """Send a record (None: a tombstone), to the partition that the key says unless one is given.

        Raises
        ------
        InfrastructureError
            The queue to the broker is full and stays so, or the producer has failed.
        """
        value, headers = (None, []) if message is None else encode(message)
        if message is not None:
            headers += TRACES.made(topic.name, message)
        self._send(topic.name, key.encode(), value, headers, -1 if partition is None else partition)

    def reject(self, record: Record, error: Exception, attempts: int = 1) -> None:
        """Send the record to its dead-letter topic with the reason, once the batch is through."""
        TRACES.rejected(record, error)
        self._rejected.append((record, error, attempts))

    def settle(self) -> None:
        """The batch is through: send its dead letters, take acknowledgements.

        Raises
        ------
        InfrastructureError
            A record that was sent, now or before, did not come to the broker.
        """
        for record, error, attempts in self._rejected:
            self._bury(record, error, attempts)
        self._rejected.clear()
        self._take_answers()
        if self._failure:
            raise InfrastructureError("kafka", self._failure)

    def discard(self) -> None:
        """The batch was not handled: forget its dead letters."""
        self._rejected.clear()

    def rewind(self) -> None:
        """A system is away: what was sent since the last safe position will be sent again."""
        self.discard()

    def recover(self) -> None:
        """Make a producer that has failed anew. Whatever it had not delivered will be sent again."""
        if self._failure:
            self._producer.purge()
            self._take_answers()
            self._failure = ""
            self._producer = self._connect()

    def flush(self, timeout_s: float) -> bool:
        """Wait for the broker to acknowledge everything; whether it did so in time."""
        try:
            return self._producer.flush(max(0.0, timeout_s)) == 0
        except KafkaException as error:
            self._failed(error)
            return False

    @property
    def pending(self) -> int:
        """Records on their way to the broker."""
        return len(self._producer)

    def serve(self) -> None:
        """Take acknowledgements and librdkafka's log while nothing is sent; ``settle`` tells of failures."""
        self._take_answers()

    def _take_answers(self, timeout_s: float = 0.0) -> None:
        """A producer that has failed for good (it was fenced, or its transaction ended without it) says so here."""
        try:
            self._producer.poll(timeout_s)
        except KafkaException as error:
            self._failed(error)

    def _failed(self, error: KafkaException) -> None:
        self._failure = f"the producer has failed: {error.args[0].str()}"

    def _connect(self) -> Producer:
        return Producer(self._config, logger=logs.kafka_logger())

    def _send(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers, partition: int = -1) -> None:
        parcel = self._sent()
        arrived = partial(self._arrived, parcel)
        give_up: float | None = None
        while True:
            try:
                self._producer.produce(topic, value, key, partition, headers=headers, on_delivery=arrived)  # type: ignore[arg-type]
                return
            except BufferError:
                give_up = give_up or time.monotonic() + _ROOM_TIMEOUT_S
                if time.monotonic() > give_up:
                    raise InfrastructureError("kafka", "no room in the queue to the broker") from None
                self._take_answers(0.01)
            except KafkaException as error:
                if error.args[0].fatal() or error.args[0].code() in _FAILED:
                    self._failed(error)
                    raise InfrastructureError("kafka", self._failure) from error
                # Never on its way, so nothing to wait for: a record that no broker would take.
                parcel.sent -= 1
                raise

    def _arrived(self, parcel: Parcel, error: KafkaError | None, message: KafkaMessage) -> None:
        if error is None:
            parcel.acknowledged += 1
        elif error.code() not in (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT):
            self._failure = f"a record for {message.topic()} did not arrive: {error.str()}"

    def _bury(self, record: Record, error: Exception, attempts: int) -> None:
        topic = self._topics[record.topic]
        metrics.DEAD_LETTERS.labels(self._worker, topic.name).inc()
        where = {"topic": topic.name, "partition": record.partition, "offset": record.offset}
        # A producer gone wrong sends thousands a second with the same fault; all of them are in the metric.
        left_out = self._repetition.left_out(f"{topic.name} {error}")
        if left_out is not None:
            what = "dead letter" if topic.dead_letters else "record dropped"
            log.warning(what, **where, reason=str(error), left_out_before=left_out)
        if not topic.dead_letters:
            return
        headers = dead_letter_headers(record, error, self._worker, attempts)
        try:
            self._send(topic.dlq, record.key, record.value, headers)
        except KafkaException as refused:
            # Larger than any record that our own topics take; it remains where it stands.
            log.error("dead letter refused", **where, problem=refused.args[0].str())
