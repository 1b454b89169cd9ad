"""Until when the log holds what was said of a person."""

from __future__ import annotations

from collections.abc import Mapping

from millrace.settings import KafkaSettings
from millrace.stream.wanted import wanted_topics

CHECK_MS = 5 * 60_000
"""A broker looks for what is too old this often, by default."""


def logs_end(kafka: KafkaSettings, now_ms: int) -> Mapping[str, int]:
    """Topic -> when the last record of a person of whom nothing comes any more is gone, Unix milliseconds.

    Of all topics whose key is the person's id, with their dead letters, as `millrace topics apply` makes them: a broker
    deletes whole segments, so that a record stays for its retention and the time that a segment is open.
    """
    return {
        topic.name: now_ms + int(topic.config["retention.ms"]) + int(topic.config["segment.ms"]) + CHECK_MS
        for topic in wanted_topics(kafka)
        if topic.key == "user_id" and topic.config["cleanup.policy"] == "delete"
    }
