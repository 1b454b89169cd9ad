"""Which topics should stand on the broker, with which settings: ``millrace.topics`` in the broker's own words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from millrace.settings import DAY_MS, MINUTE_MS, KafkaSettings
from millrace.topics import ALL, DLQ_MAX_BYTES

DLQ_RETENTION_MS = 28 * DAY_MS
"""Dead letters wait for a person, who may be on holiday."""
SEGMENTS_PER_RETENTION = 8
"""Kafka drops whole segments: with eight of them at most 1/8 more is kept than asked for."""
SEGMENT_MIN_MS = 10 * MINUTE_MS
COMPACT_SEGMENT_BYTES = 64 * 1024 * 1024
"""The newest segment is never compacted; at the default of 1 GiB a mirror would read that much at every start."""


@dataclass(frozen=True, slots=True)
class WantedTopic:
    """A topic as it should stand; ``config`` holds the broker's names of the settings, ``key`` is for people."""

    name: str
    partitions: int
    config: Mapping[str, str]
    key: str


def wanted_topics(kafka: KafkaSettings) -> list[WantedTopic]:
    """Every declared topic, each followed by its dead-letter topic if it has one."""
    wanted = []
    for topic in ALL:
        config = {**_config(topic.cleanup, topic.retention_ms, kafka), **topic.config}
        wanted.append(WantedTopic(topic.name, topic.partitions(kafka), config, topic.key))
        if topic.dead_letters:
            # One partition: dead letters are few, and a person reads them in the order in which they came.
            config = _config("delete", DLQ_RETENTION_MS, kafka) | {"max.message.bytes": str(DLQ_MAX_BYTES)}
            wanted.append(WantedTopic(topic.dlq, 1, config, topic.key))
    return wanted


def _config(cleanup: str, retention_ms: int, kafka: KafkaSettings) -> dict[str, str]:
    config = {
        "cleanup.policy": cleanup,
        "retention.ms": str(retention_ms),
        # The broker's clock is the one that "too far in the future" is judged by.
        "message.timestamp.type": "LogAppendTime",
        # Acknowledged means: on more than one broker, where there are more than two.
        "min.insync.replicas": str(max(1, kafka.replication_factor - 1)),
    }
    if cleanup == "compact":
        config["segment.bytes"] = str(COMPACT_SEGMENT_BYTES)
    elif retention_ms > 0:
        config["segment.ms"] = str(max(SEGMENT_MIN_MS, retention_ms // SEGMENTS_PER_RETENTION))
    return config
