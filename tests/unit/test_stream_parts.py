"""The small parts of the runtime: decoding, dead letters, back-off, a batch with a bug in it, the log's filter."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import cast

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from millrace.errors import InfrastructureError, InvalidField
from millrace.stream.backoff import Backoff
from millrace.stream.codec import encode
from millrace.stream.dead_letters import dead_letter_headers
from millrace.stream.decoding import Fetched, Undecodable, read_record
from millrace.stream.handling import handle
from millrace.stream.logs import OncePerKind, Repetition
from millrace.stream.partitioner import partition_of
from millrace.stream.worker import Assignment, Headers, Output, Partition, Record
from millrace.topics import INTERACTIONS, ITEMS, Topic
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.item_pb2 import Item

MAX_BYTES = 1_000


class FetchedRecord:
    """What librdkafka would give: a record as plain data."""

    def __init__(self, value: bytes | None, headers: Headers | None) -> None:
        self._value = value
        self._headers = headers

    def topic(self) -> str:
        return "interactions"

    def partition(self) -> int:
        return 2

    def offset(self) -> int:
        return 7

    def key(self) -> bytes | None:
        return b"u"

    def value(self) -> bytes | None:
        return self._value

    def timestamp(self) -> tuple[int, int]:
        return 2, 1_500_000_000_000

    def headers(self) -> Headers | None:
        return self._headers


def read(value: bytes | None, headers: Headers | None, topic: Topic = INTERACTIONS) -> Record:
    fetched: Fetched = FetchedRecord(value, headers)
    return read_record(fetched, topic, MAX_BYTES)


def test_a_record_is_decoded_with_its_place() -> None:
    interaction = Interaction(event_id="e", user_id="u", item_id="i")
    value, headers = encode(interaction)
    record = read(value, headers)
    assert record == Record("interactions", 2, 7, b"u", interaction, 1_500_000_000_000, headers, value)


SCHEMA = [("schema", b"millrace.v1.Interaction")]


@pytest.mark.parametrize(
    ("value", "headers", "field", "problem"),
    [
        (b"", SCHEMA, "value", "empty"),
        (None, SCHEMA, "value", "empty"),
        (b"x" * (MAX_BYTES + 1), SCHEMA, "value", "1001 bytes"),
        (b"\xff\xff\xff", SCHEMA, "value", "not protobuf"),
        (b"\x0a\x01e", None, "header schema", "missing"),
        (b"\x0a\x01e", [("other", b"")], "header schema", "missing"),
        (b"\x0a\x01e", [("schema", b"millrace.v1.Item")], "header schema", "Item"),
        (b"\x0a\x01e", [("schema", b"\xff\xfe")], "header schema", "xff"),
        (b"\x0a\x01e", cast("Headers", [("schema", None)]), "header schema", "None"),
        (b"\x0a\x01\xff", SCHEMA, "value", "not protobuf"),
    ],
)
def test_what_cannot_be_decoded_says_why(
    value: bytes | None, headers: Headers | None, field: str, problem: str
) -> None:
    with pytest.raises(Undecodable) as caught:
        read(value, headers)
    assert caught.value.reason.field == field
    assert problem in caught.value.reason.problem
    assert caught.value.record.value == value
    assert caught.value.record.message is None


@given(st.binary(min_size=1, max_size=MAX_BYTES))
def test_any_bytes_are_a_message_or_refused(value: bytes) -> None:
    try:
        record = read(value, SCHEMA)
    except Undecodable as undecodable:
        record = undecodable.record
    else:
        assert isinstance(record.message, Interaction)
    assert record.value == value


def test_a_tombstone_is_a_record_of_a_compacted_topic() -> None:
    assert read(None, None, ITEMS).message is None
    assert isinstance(read(*encode(Item(item_id="i")), ITEMS).message, Item)


def a_record(headers: Headers = ()) -> Record:
    return Record("interactions", 2, 7, b"u", None, 1_500_000_000_000, headers, b"bytes")


def test_a_dead_letter_says_where_it_stood_and_why() -> None:
    error = InvalidField("item_id", "empty", "1-256 bytes")
    headers = dead_letter_headers(a_record([("schema", b"s"), ("trace", b"t")]), error, "feature_updater", 1)
    assert headers[:2] == [("schema", b"s"), ("trace", b"t")]
    assert dict(headers[2:]) == {
        "dlq.topic": b"interactions",
        "dlq.partition": b"2",
        "dlq.offset": b"7",
        "dlq.timestamp": b"1500000000000",
        "dlq.worker": b"feature_updater",
        "dlq.reason": b"item_id: empty; allowed: 1-256 bytes",
        "dlq.field": b"item_id",
        "dlq.attempts": b"1",
    }


def test_a_dead_letter_of_a_bug_names_the_error_and_no_field() -> None:
    headers = dict(dead_letter_headers(a_record(), ValueError("x" * 10_000), "w", 2))
    assert headers["dlq.reason"].startswith(b"ValueError: xxx")
    assert len(headers["dlq.reason"]) == 2_000
    assert "dlq.field" not in headers
    assert headers["dlq.attempts"] == b"2"


def test_a_dead_letter_that_died_again_has_one_reason() -> None:
    first = dead_letter_headers(a_record([("schema", b"s")]), ValueError("first"), "w", 1)
    second = dead_letter_headers(a_record(first), ValueError("second"), "w", 1)
    assert [value for name, value in second if name == "dlq.reason"] == [b"ValueError: second"]
    assert ("schema", b"s") in second


def test_pauses_grow_up_to_their_bound_and_start_anew_after_a_success() -> None:
    longest = 5.0
    backoff = Backoff(longest)
    for attempt in range(200):
        assert 0.0 <= backoff.next() <= min(longest, 0.1 * 2**attempt)
    assert backoff.attempts == 200
    backoff.reset()
    assert backoff.attempts == 0
    assert backoff.next() <= 0.1


def test_pauses_differ_between_processes() -> None:
    pauses = set()
    for _ in range(20):
        backoff = Backoff(5.0)
        pauses.add(backoff.next())
    assert len(pauses) > 1


class BuggyWorker:
    """Breaks at some offsets."""

    name = "buggy"
    topics: Sequence[Topic] = (INTERACTIONS,)
    assignment = Assignment.SHARED
    pending_since = None

    def __init__(self, bugs: set[int], away: int | None = None) -> None:
        self.bugs = bugs
        self.away = away
        self.calls: list[list[int]] = []

    def restore(self, partitions: Sequence[Partition], topic_ids: Mapping[str, str]) -> Mapping[Partition, int]:
        return {}

    def on_batch(self, records: Sequence[Record], output: Output) -> None:
        self.calls.append([record.offset for record in records])
        for record in records:
            if record.offset in self.bugs:
                raise ZeroDivisionError
            if record.offset == self.away and len(records) == 1:
                raise InfrastructureError("redis", "away")
            if record.offset == 0:
                output.reject(record, InvalidField("user_id", "empty", "1-256 bytes"))

    def on_tick(self, now: float, output: Output) -> None: ...

    def revoke(self, partitions: Sequence[Partition]) -> None: ...

    def close(self, output: Output) -> None: ...


class Rejections:
    """Records what is rejected."""

    def __init__(self) -> None:
        self.rejected: list[tuple[int, str, int]] = []

    def produce(self, topic: Topic, key: str, message: Message | None, partition: int | None = None) -> None: ...

    def reject(self, record: Record, error: Exception, attempts: int = 1) -> None:
        self.rejected.append((record.offset, type(error).__name__, attempts))

    def discard(self) -> None:
        self.rejected.clear()


def some_records(number: int) -> list[Record]:
    return [Record("interactions", 0, offset, b"u", Interaction(), 0, (), b"") for offset in range(number)]


def test_a_bug_costs_one_record_and_keeps_the_order() -> None:
    worker, output = BuggyWorker({2}), Rejections()
    handle(worker, some_records(5), output)
    assert worker.calls == [[0, 1, 2, 3, 4], [0], [1], [2], [3], [4]]
    # Record 0 was rejected by the worker in both tries, and is a dead letter once.
    assert output.rejected == [(0, "InvalidField", 1), (2, "ZeroDivisionError", 2)]


def test_an_absent_system_is_nobodys_fault_also_one_by_one() -> None:
    worker, output = BuggyWorker({2}, away=1), Rejections()
    with pytest.raises(InfrastructureError):
        handle(worker, some_records(5), output)
    assert worker.calls == [[0, 1, 2, 3, 4], [0], [1]]


def a_line(text: str) -> logging.LogRecord:
    return logging.LogRecord("librdkafka", logging.ERROR, "", 0, "%s", (text,), None)


def test_repeated_lines_are_held_back_and_counted() -> None:
    now = 0.0
    once = OncePerKind(Repetition(repeat_after_s=30, clock=lambda: now))
    assert once.filter(a_line("consumer-1: connect to 127.0.0.1:9092 failed after 1ms"))
    for number in range(20):
        assert not once.filter(a_line(f"consumer-2: connect to 127.0.0.1:9092 failed after {number}ms"))
    assert once.filter(a_line("something else"))
    now = 31.0
    again = a_line("consumer-1: connect to 127.0.0.1:9092 failed after 5ms")
    assert once.filter(again)
    assert again.getMessage().endswith("(20 more like this left out)")


def test_the_filter_forgets_the_kind_that_came_longest_ago() -> None:
    repetition = Repetition(repeat_after_s=30, clock=lambda: 0.0)
    kinds = ["".join(chr(ord("a") + int(digit)) for digit in str(number)) for number in range(300)]
    for kind in kinds:
        assert repetition.left_out(kind) == 0
    assert repetition.left_out(kinds[0]) == 0
    assert repetition.left_out(kinds[-1]) is None


def test_the_partition_of_a_key_is_what_every_kafka_client_says() -> None:
    """Of ten partitions, by Java's default partitioner; an integration test asks librdkafka."""
    assert [partition_of(key, 10) for key in ("21", "foobar", "abc", "a-little-bit-long-string")] == [0, 6, 7, 2]
