"""A record of any topic, decoded as far as it can be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from millrace.errors import InvalidField
from millrace.inspection.plain import headers_plain, plain, readable
from millrace.stream.codec import decode
from millrace.stream.decoding import Fetched
from millrace.topics import BY_NAME, DLQ_SUFFIX, Topic

# A person may look at what workers refuse: no bound but the broker's own.
_ANY_SIZE = 1 << 40


def source_of(name: str) -> Topic | None:
    """The declared topic of this name, or beside which the dead-letter topic of this name stands; None if none is."""
    return BY_NAME.get(name.removesuffix(DLQ_SUFFIX))


@dataclass(frozen=True, slots=True)
class Shown:
    """A record to look at.

    Attributes
    ----------
    append_time_ms
        When the broker appended it, Unix milliseconds.
    message
        The value decoded as the topic's message; None for a tombstone, for other topics, and where it cannot be.
    problem
        Why a value of a declared topic cannot be decoded; empty otherwise.
    """

    topic: str
    partition: int
    offset: int
    append_time_ms: int
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, bytes]
    message: Message | None
    problem: str

    def as_json(self) -> dict[str, Any]:
        """It as JSON takes it: the value only where it is no message."""
        said = {
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "appended_at_ms": self.append_time_ms,
            "key": readable(self.key),
            "headers": headers_plain(self.headers),
        }
        if self.message is not None:
            return said | {"schema": self.message.DESCRIPTOR.full_name, "message": plain(self.message)}
        return said | {"value": readable(self.value)} | ({"problem": self.problem} if self.problem else {})


def show(raw: Fetched, topic: Topic | None) -> Shown:
    """What a record holds; ``topic``: whose messages its value may be."""
    headers, value = raw.headers() or (), raw.value()
    message: Message | None = None
    problem = ""
    if topic is not None and value is not None:
        try:
            message = decode(value, headers, topic.message, _ANY_SIZE)
        except InvalidField as error:
            problem = str(error)
    at_ms = raw.timestamp()[1]
    return Shown(raw.topic(), raw.partition(), raw.offset(), at_ms, raw.key(), value, dict(headers), message, problem)
