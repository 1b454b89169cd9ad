"""The output of a transactional worker: what appears, and what never does."""

from __future__ import annotations

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


def a_tester(kafka: KafkaSettings) -> TransactionalOutput:
    return TransactionalOutput(
        kafka, StreamSettings(), "tester", {}, Progress(0).sent, lambda _: None, timeout_s=PATIENCE_S
    )


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
