"""The output of a transactional worker: what appears, and what never does."""

from __future__ import annotations

import pytest
from confluent_kafka import Consumer

from millrace.settings import KafkaSettings, StreamSettings
from millrace.stream import logs
from millrace.stream.clients import consumer_config
from millrace.stream.progress import Progress
from millrace.stream.transactions import TransactionalOutput
from millrace.topics import ITEM_STATE
from millrace.v1.item_pb2 import ItemState
from tests.processes import PATIENCE_S
from tests.stream_support import read_all


@pytest.fixture
def output(topics_applied: KafkaSettings) -> TransactionalOutput:
    made = TransactionalOutput(
        topics_applied, StreamSettings(), "tester", {}, Progress(0).sent, lambda _: None, timeout_s=PATIENCE_S
    )
    made.recover()
    return made


def committed(kafka: KafkaSettings, key: str) -> int:
    return sum(message.key() == key.encode() for message in read_all(kafka, ITEM_STATE.name))


def commit(kafka: KafkaSettings, output: TransactionalOutput) -> None:
    consumer = Consumer(consumer_config(kafka, "tester"), logger=logs.kafka_logger())
    output.commit({}, consumer)
    consumer.close()


def test_a_bug_and_new_partitions_do_not_abort_what_is_under_way(
    topics_applied: KafkaSettings, output: TransactionalOutput
) -> None:
    output.produce(ITEM_STATE, "kept", ItemState(item_id="kept"), partition=0)
    # A record broke the worker's code: its batch is given again, one by one, in the same transaction.
    output.discard()
    # Partitions are added to those whose transaction is open.
    output.recover()
    assert committed(topics_applied, "kept") == 0
    commit(topics_applied, output)
    assert committed(topics_applied, "kept") == 1


def test_after_a_rewind_nothing_of_it_appears(topics_applied: KafkaSettings, output: TransactionalOutput) -> None:
    output.produce(ITEM_STATE, "gone", ItemState(item_id="gone"), partition=0)
    output.rewind()
    output.recover()
    output.produce(ITEM_STATE, "next", ItemState(item_id="next"), partition=0)
    commit(topics_applied, output)
    assert (committed(topics_applied, "gone"), committed(topics_applied, "next")) == (0, 1)
