"""Which settings the topics get."""

from __future__ import annotations

from millrace.settings import HOUR_MS, KafkaSettings
from millrace.stream.wanted import wanted_topics
from millrace.topics import ALL, DLQ_MAX_BYTES

WANTED = {topic.name: topic for topic in wanted_topics(KafkaSettings(partitions=4))}


def test_every_topic_and_its_dead_letters() -> None:
    assert set(WANTED) == {topic.name for topic in ALL} | {topic.dlq for topic in ALL if topic.dead_letters}


def test_topics_that_must_meet_have_the_same_count() -> None:
    """interactions, impressions and outcomes of a user meet in one partition number."""
    assert {WANTED[name].partitions for name in ("interactions", "impressions", "outcomes")} == {4}
    assert {WANTED[name].partitions for name in ("commands", "model-events", "interactions.dlq")} == {1}


def test_the_brokers_clock_stamps_every_record() -> None:
    assert {topic.config["message.timestamp.type"] for topic in WANTED.values()} == {"LogAppendTime"}


def test_dead_letters_take_what_the_source_took() -> None:
    assert WANTED["interactions.dlq"].config["max.message.bytes"] == str(DLQ_MAX_BYTES)


def test_little_more_is_kept_than_asked_for() -> None:
    updates = WANTED["model-updates"].config
    assert updates["retention.ms"] == str(6 * HOUR_MS)
    assert int(updates["segment.ms"]) <= 6 * HOUR_MS // 8
    assert "segment.ms" not in WANTED["model-events"].config  # kept for ever
    assert WANTED["item-state"].config["cleanup.policy"] == "compact"


def test_replicas_that_must_have_a_record() -> None:
    for replicas, in_sync in ((1, "1"), (2, "1"), (3, "2")):
        wanted = wanted_topics(KafkaSettings(replication_factor=replicas))
        assert {topic.config["min.insync.replicas"] for topic in wanted} == {in_sync}
