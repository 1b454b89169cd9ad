"""The output of a transactional worker: what appears, and what never does."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
from confluent_kafka import Consumer

from millrace.errors import InfrastructureError
from millrace.settings import KafkaSettings, StreamSettings
from millrace.stream import logs
from millrace.stream.clients import consumer_config
from millrace.stream.progress import Progress
from millrace.stream.transactions import TransactionalOutput
from millrace.topics import ITEM_STATE
from millrace.v1.item_pb2 import ItemState
from tests.processes import PATIENCE_S, in_time
from tests.stream_support import read_all

# Brokers of tests look every second for what takes too long.
TAKES_S = 2.5


@pytest.fixture
def output(topics_applied: KafkaSettings) -> TransactionalOutput:
    made = a_tester(topics_applied)
    # The coordinator of a broker that has just started, on a busy machine, is not there at once.
    in_time(lambda: recovered(made))
    return made


def recovered(output: TransactionalOutput) -> bool:
    with suppress(InfrastructureError):
        output.recover()
        return True
    return False


def a_tester(kafka: KafkaSettings, timeout_s: float = PATIENCE_S) -> TransactionalOutput:
    return TransactionalOutput(kafka, StreamSettings(), "tester", {}, Progress(0).sent, lambda _: None, timeout_s)


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


def test_a_producer_that_was_fenced_is_made_anew(
    topics_applied: KafkaSettings, output: TransactionalOutput, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker fences also who was stopped for longer than its transaction may be open."""
    with monkeypatch.context() as same:
        same.setattr("uuid.uuid4", lambda: "the same")
        fenced, by = (a_tester(topics_applied) for _ in range(2))
    in_time(lambda: recovered(fenced))
    fenced.produce(ITEM_STATE, "begun", ItemState(item_id="begun"), partition=0)
    assert fenced.flush(PATIENCE_S)
    by.recover()
    fenced.produce(ITEM_STATE, "fenced", ItemState(item_id="fenced"), partition=0)

    def go_on() -> None:
        fenced.serve()
        fenced.settle()

    with pytest.raises(InfrastructureError, match="old epoch"):
        in_time(go_on)
    # Not the record's fault: it is no dead letter.
    with pytest.raises(InfrastructureError):
        fenced.produce(ITEM_STATE, "fenced", ItemState(item_id="fenced"), partition=0)
    fenced.rewind()
    fenced.recover()
    fenced.produce(ITEM_STATE, "again", ItemState(item_id="again"), partition=0)
    commit(topics_applied, fenced)
    assert [committed(topics_applied, key) for key in ("begun", "fenced", "again")] == [0, 0, 1]


def test_work_that_takes_longer_than_a_transaction_may_is_given_more_time(topics_applied: KafkaSettings) -> None:
    """The windows of everything that is open may end at once; a broker that ends it each time would end it for ever."""
    output, failures = a_tester(topics_applied, timeout_s=1.0), 0
    in_time(lambda: recovered(output))

    def done() -> bool:
        nonlocal failures
        try:
            output.produce(ITEM_STATE, "large", ItemState(item_id="large"), partition=0)
            assert output.flush(PATIENCE_S)
            time.sleep(TAKES_S)  # the work
            output.settle()
            commit(topics_applied, output)
        except InfrastructureError:
            failures += 1
            output.rewind()
            in_time(lambda: recovered(output))
            return False
        return True

    in_time(done)
    assert failures > 0
    assert committed(topics_applied, "large") == 1
