"""Merge: the order of append times, whatever the order of arrival."""

from __future__ import annotations

import random

import pytest

from millrace.errors import InvalidField
from millrace.stream.decoding import Batch, Undecodable
from millrace.stream.merge import Merge
from millrace.stream.worker import Assignment, Partition, Record

TOPICS = ["impressions", "interactions"]


def record(topic: str, partition: int, offset: int, at_ms: int) -> Record:
    return Record(topic, partition, offset, None, None, at_ms, (), None)


def polled(*records: Record, ended: set[Partition] | None = None, **_: object) -> Batch:
    batch = Batch(records=list(records), ended=ended or set())
    for one in records:
        batch.positions[one.topic, one.partition] = one.offset + 1
    return batch


def never(partition: Partition, offset: int) -> bool:
    return False


def test_waits_for_the_other_topic_of_the_same_number_only() -> None:
    merge = Merge(TOPICS, Assignment.CO_PARTITIONED, 100)
    for topic in TOPICS:
        for number in (0, 1):
            merge.start((topic, number), 0)
    merge.add(polled(record("interactions", 0, 0, 10), record("interactions", 1, 0, 5)))
    assert not merge.take(never).records
    merge.add(polled(record("impressions", 0, 0, 8), record("impressions", 0, 1, 12)))
    batch = merge.take(never)
    assert [(one.topic, one.append_time_ms) for one in batch.records] == [("impressions", 8), ("interactions", 10)]
    assert batch.positions == {("impressions", 0): 1, ("interactions", 0): 1}
    assert merge.waiting == 2


def test_the_end_of_a_partition_holds_nothing_up_until_it_grows() -> None:
    merge = Merge(TOPICS, Assignment.CO_PARTITIONED, 100)
    for topic in TOPICS:
        merge.start((topic, 0), 0)
    end = Batch(positions={("impressions", 0): 7}, ended={("impressions", 0)})
    merge.add(end)
    merge.add(polled(record("interactions", 0, 0, 10)))
    batch = merge.take(never)
    assert [one.append_time_ms for one in batch.records] == [10]
    # Also the gap before the end is passed.
    assert batch.positions == {("impressions", 0): 7, ("interactions", 0): 1}
    assert merge.take(never) == Batch()
    merge.add(polled(record("impressions", 0, 7, 11)))
    merge.add(polled(record("interactions", 0, 1, 12)))
    assert [one.append_time_ms for one in merge.take(never).records] == [11]
    assert [one.append_time_ms for one in merge.take(lambda *_: True).records] == [12]


@pytest.mark.parametrize("seed", range(20))
def test_the_order_is_a_matter_of_the_log(seed: int) -> None:
    """However the records are fetched, and however often one looks, the same order comes out; nothing is lost."""
    log_random = random.Random(99)
    partitions = [(topic, number) for topic in TOPICS for number in range(2)]
    logs: dict[Partition, list[Record]] = {}
    for topic, number in partitions:
        at_ms = 0
        logs[topic, number] = []
        for offset in range(50):
            at_ms += log_random.choice((0, 0, 1, 3))
            logs[topic, number].append(record(topic, number, offset, at_ms))
    chance = random.Random(seed)
    merge = Merge(TOPICS, Assignment.SINGLE, 20)
    fetched = dict.fromkeys(partitions, 0)
    for partition in partitions:
        merge.start(partition, 0)
    taken: list[Record] = []
    paused: set[Partition] = set()

    def at_end(partition: Partition, offset: int) -> bool:
        return offset == 50

    while len(taken) < 200:
        for partition in chance.sample(partitions, 4):
            if partition in paused:
                continue
            start = fetched[partition]
            fetched[partition] = min(50, start + chance.randrange(10))
            if fetched[partition] > start:
                merge.add(polled(*logs[partition][start : fetched[partition]]))
        taken += merge.take(at_end).records
        pause, resume = merge.flow()
        paused = (paused | set(pause)) - set(resume)
        assert merge.waiting <= 4 * 30
    expected = sorted(
        (one for log in logs.values() for one in log),
        key=lambda one: (one.append_time_ms, TOPICS.index(one.topic), one.partition, one.offset),
    )
    assert taken == expected


def test_undecodable_records_keep_their_place() -> None:
    merge = Merge(TOPICS, Assignment.CO_PARTITIONED, 100)
    for topic in TOPICS:
        merge.start((topic, 0), 0)
    broken = Undecodable(record("interactions", 0, 1, 11), InvalidField("value", "broken", "a whole one"))
    batch = polled(record("interactions", 0, 0, 10), record("interactions", 0, 2, 30))
    batch.refused.append(broken)
    batch.positions["interactions", 0] = 3
    merge.add(batch)
    merge.add(polled(record("impressions", 0, 0, 20)))
    first = merge.take(never)
    assert [one.offset for one in first.records] == [0, 0]
    assert first.refused == [broken]
    assert first.positions == {("interactions", 0): 2, ("impressions", 0): 1}


def test_a_partition_that_starts_anew_forgets_what_waited() -> None:
    merge = Merge(TOPICS, Assignment.CO_PARTITIONED, 2)
    for topic in TOPICS:
        merge.start((topic, 0), 0)
    merge.add(polled(record("interactions", 0, 0, 10), record("interactions", 0, 1, 10)))
    assert merge.flow() == ([("interactions", 0)], [])
    merge.start(("interactions", 0), 1)
    assert merge.waiting == 0
    assert merge.flow() == ([], [])
    merge.forget([("interactions", 0), ("impressions", 0)])
    assert merge.take(never) == Batch()
