"""Traps of Kafka and of librdkafka in which events were lost or came twice: each was met, and none may come back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from millrace.settings import KafkaSettings
from millrace.stream import logs
from millrace.stream.assignment import assign_paused
from millrace.stream.clients import consumer_config, producer_config
from millrace.topics import INTERACTIONS, OUTCOMES
from tests.chaos.impatient import Brokers
from tests.processes import PATIENCE_S, in_time

WRITTEN, FROM = 20, 15
GOES_BACK_S = 2.0
# Over before the broker is back, which therefore ends it by itself, and before its partitions have leaders.
OPEN_MAX_MS = 1_000


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory, kafka_jars: tuple[Path, ...]) -> Iterator[Brokers]:
    with Brokers(tmp_path_factory.mktemp("kafka"), kafka_jars) as brokers:
        yield brokers


def reader(kafka: KafkaSettings, isolation: str = "read_committed") -> Consumer:
    return Consumer(
        consumer_config(kafka, "reader") | {"isolation.level": isolation, "group.protocol": "classic"},
        logger=logs.kafka_logger(),
    )


def test_who_seeks_before_a_slow_broker_has_answered_reads_from_there(brokers: Brokers) -> None:
    """librdkafka 2.16.1 asks where the beginning is, and half a second after a late answer goes there, seek or not."""
    writer = Producer(producer_config(brokers.kafka), logger=logs.kafka_logger())
    for _ in range(WRITTEN):
        writer.produce(INTERACTIONS.name, b"", partition=0)
    assert writer.flush(PATIENCE_S) == 0
    partition, consumer = TopicPartition(INTERACTIONS.name, 0, 0), reader(brokers.kafka)
    # It knows the leader and is connected then, but not where the log begins.
    consumer.get_watermark_offsets(partition, timeout=PATIENCE_S)

    with brokers.silent(1):
        assign_paused(consumer, brokers.kafka.model_copy(update={"group_protocol": "classic"}), [partition])
        consumer.seek(TopicPartition(INTERACTIONS.name, 0, FROM))
        consumer.resume([partition])
    read: list[int | None] = []
    in_time(lambda: read_on(consumer, read) >= WRITTEN - FROM)
    until = time.monotonic() + GOES_BACK_S
    while time.monotonic() < until:
        read_on(consumer, read)
    consumer.close()
    assert read == [*range(FROM, WRITTEN)]


def read_on(consumer: Consumer, read: list[int | None]) -> int:
    """How many records were read so far, with what comes next."""
    message = consumer.poll(0.1)
    if message is not None and message.error() is None:
        read.append(message.offset())
    return len(read)


def ends(kafka: KafkaSettings, isolation: str) -> list[int]:
    """Offsets up to which a reader of this kind sees the partitions of outcomes; empty while they have no leader."""
    consumer = reader(kafka, isolation)
    try:
        return [
            consumer.get_watermark_offsets(TopicPartition(OUTCOMES.name, place), timeout=PATIENCE_S)[1]
            for place in range(kafka.partitions)
        ]
    except KafkaException:
        return []
    finally:
        consumer.close()


def test_a_transaction_that_was_open_when_the_broker_died_is_ended_in_every_partition(brokers: Brokers) -> None:
    """KAFKA-20734: brokers 4.3.0 to 4.4.0 forget partitions that have no leader yet, and never end it there."""
    writer = Producer(
        producer_config(brokers.kafka) | {"transactional.id": "writer", "transaction.timeout.ms": OPEN_MAX_MS},
        logger=logs.kafka_logger(),
    )
    writer.init_transactions(PATIENCE_S)
    writer.begin_transaction()
    for place in range(brokers.kafka.partitions):
        writer.produce(OUTCOMES.name, b"", partition=place)
    assert writer.flush(PATIENCE_S) == 0
    written = ends(brokers.kafka, "read_uncommitted")
    assert ends(brokers.kafka, "read_committed") == [0] * brokers.kafka.partitions

    brokers.kill(1)
    brokers.start(1)

    def ended() -> bool:
        # The marker that ends it is a record as well; one that was not acknowledged before the kill comes twice.
        seen = ends(brokers.kafka, "read_committed")
        return bool(seen) and all(now > before for now, before in zip(seen, written, strict=True))

    in_time(ended)
