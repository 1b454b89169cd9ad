"""A message and where it stands on the log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message

from millrace.stream.worker import Record

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Entry(Generic[M]):
    """A message of some topic.

    Attributes
    ----------
    append_time_ms
        When the broker appended it, Unix milliseconds.
    """

    message: M
    topic: str
    partition: int
    offset: int
    append_time_ms: int

    @classmethod
    def of(cls, record: Record, message: M) -> Entry[M]:
        """The entry of a record that carries the message."""
        return cls(message, record.topic, record.partition, record.offset, record.append_time_ms)
