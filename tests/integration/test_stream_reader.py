"""Mirrors: whole topics read without a group, through gaps, bad records and absent brokers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import cast

import pytest

from deploy.embedded.ports import free_port
from millrace.settings import KafkaSettings
from millrace.stream.codec import encode
from millrace.stream.reader import TopicReader
from millrace.stream.worker import Record
from millrace.topics import COMMANDS, DRIFT_SIGNALS, EXPERIMENTS, ITEM_STATE, MODEL_EVENTS
from millrace.v1.command_pb2 import Command
from millrace.v1.item_pb2 import ItemState
from millrace.v1.model_pb2 import ModelEvent
from tests.processes import PATIENCE_S
from tests.stream_support import Raw, send


def state(number: int, version: int) -> Raw:
    value, headers = encode(ItemState(item_id=f"item-{number}", version=version))
    return f"item-{number}", value, headers


def until(condition: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
    give_up = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up, f"nothing in {timeout_s} s"


def test_a_mirror_reads_everything_and_then_goes_on(topics_applied: KafkaSettings) -> None:
    bad: Raw = ("item-0", b"\xff\xff", [])
    send(topics_applied, ITEM_STATE, [*(state(number, 1) for number in range(50)), bad, ("item-0", None, [])])
    with TopicReader(topics_applied, [ITEM_STATE]) as reader:
        assert not reader.caught_up
        items: dict[bytes, int | None] = {}

        def read(condition: Callable[[], bool]) -> bool:
            for record in reader.poll(timeout_s=0.05):
                assert record.key is not None
                items[record.key] = cast("ItemState", record.message).version if record.message else None
            return condition()

        until(lambda: read(lambda: reader.caught_up))
        assert reader.lag() == 0
        assert items == {f"item-{number}".encode(): 1 for number in range(50)} | {b"item-0": None}
        send(topics_applied, ITEM_STATE, [state(7, 2)])
        until(lambda: read(lambda: items[b"item-7"] == 2))
        assert reader.lag() == 0


def test_from_the_end_only_what_comes_later(topics_applied: KafkaSettings) -> None:
    def event(name: str) -> Raw:
        value, headers = encode(ModelEvent(event_id=name))
        return "ranker", value, headers

    send(topics_applied, MODEL_EVENTS, [event("before")])
    with TopicReader(topics_applied, [MODEL_EVENTS], start="end") as reader:
        until(lambda: reader.poll(timeout_s=0.05) or reader.caught_up)
        send(topics_applied, MODEL_EVENTS, [event("after")])
        found: list[Record] = []
        until(lambda: found or found.__iadd__(reader.poll()))
        assert [cast("ModelEvent", record.message).event_id for record in found] == ["after"]


def test_from_a_time_on(topics_applied: KafkaSettings) -> None:
    def event(name: str) -> Raw:
        value, headers = encode(Command(command_id=name))
        return "ranker", value, headers

    send(topics_applied, COMMANDS, [event("before")])
    with TopicReader(topics_applied, [COMMANDS]) as reader:
        [before] = read_to_end(reader)
    # Append times are of milliseconds: the next record gets another one.
    until(lambda: time.time_ns() // 1_000_000 > before.append_time_ms)
    send(topics_applied, COMMANDS, [event("after"), event("later")])
    for since_ms, expected in ((before.append_time_ms, 3), (before.append_time_ms + 1, 2), (2**42, 0)):
        with TopicReader(topics_applied, [COMMANDS], since_ms) as reader:
            assert len(read_to_end(reader)) == expected
            assert reader.whole == (expected == 3)
            assert reader.lag() == 0


def read_to_end(reader: TopicReader) -> list[Record]:
    found: list[Record] = []
    until(lambda: found.__iadd__(reader.poll(timeout_s=0.05)) is found and reader.caught_up)
    return found


def test_empty_topics_are_caught_up_at_once(topics_applied: KafkaSettings) -> None:
    with TopicReader(topics_applied, [EXPERIMENTS, DRIFT_SIGNALS]) as reader:
        until(lambda: reader.poll(timeout_s=0.05) or reader.caught_up)


def test_a_reader_waits_for_a_broker_that_is_not_there() -> None:
    with TopicReader(KafkaSettings(bootstrap_servers=f"127.0.0.1:{free_port()}"), [ITEM_STATE]) as reader:
        began = time.monotonic()
        while time.monotonic() < began + 1:
            assert reader.poll(timeout_s=0.05) == []
        assert not reader.caught_up
        assert reader.lag() == 0


@pytest.mark.parametrize("most", [1, 3])
def test_no_more_records_than_asked_for(topics_applied: KafkaSettings, most: int) -> None:
    with TopicReader(topics_applied, [ITEM_STATE]) as reader:
        sizes = []
        while not reader.caught_up:
            sizes.append(len(reader.poll(most, 0.05)))
        assert max(sizes) == most
