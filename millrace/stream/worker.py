"""What a worker is to the runtime: the one interface between domain code and the log.

A worker says which topics it reads and how partitions are shared out; the runtime polls, decodes, calls
``on_batch`` and commits positions only after the batch's effects are safe. See ``millrace.stream.runtime``.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from google.protobuf.message import Message

from millrace.topics import Topic

Headers = Sequence[tuple[str, bytes]]
Partition = tuple[str, int]
"""Name of a topic and number of a partition."""


class Assignment(enum.Enum):
    """How partitions are shared out among the processes of a worker."""

    SHARED = "shared"
    """Each partition goes to one process."""
    CO_PARTITIONED = "co-partitioned"
    """The same, and one number of all topics goes to one process (range assignor). Records of one number come in the
    order of their append times, whatever their topic (``millrace.stream.merge``)."""
    SINGLE = "single"
    """One process reads everything, in the order of append times; the others stand by."""


@dataclass(slots=True)
class Record:
    """A decoded record.

    Attributes
    ----------
    message
        The decoded value; None for a tombstone.
    append_time_ms
        When the broker appended it, Unix milliseconds.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    message: Message | None
    append_time_ms: int
    headers: Headers
    value: bytes | None


class Output(Protocol):
    """What a worker sends. Positions of a batch are committed only after all that it sent is on the broker."""

    def produce(self, topic: Topic, key: str, message: Message | None, partition: int | None = None) -> None:
        """Send a record (None: a tombstone), to the partition that the key says unless one is given.

        Raises InfrastructureError when the queue to the broker is full.
        """

    def reject(self, record: Record, error: Exception) -> None:
        """Send the record to its dead-letter topic with the reason; the stream goes on."""


class Worker(Protocol):
    """One kind of process of the pipeline.

    Attributes
    ----------
    name
        Consumer group, metrics label and name in dead letters, for example ``feature_updater``.
    topics
        Topics that it reads; each value is decoded as the topic's message.
    assignment
        How partitions are shared out.
    pending_since
        Monotonic time in seconds of the oldest effect that ``on_batch`` has taken but not yet sent (for example
        coalesced output); None if there is none. Positions past it are not committed.
    """

    name: str
    topics: Sequence[Topic]
    assignment: Assignment

    @property
    def pending_since(self) -> float | None: ...

    def restore(self, partitions: Sequence[Partition], topic_ids: Mapping[str, str]) -> Mapping[Partition, int]:
        """Get ready for newly assigned partitions; called again after an infrastructure failure.

        Returns positions to start from where the worker keeps its own (snapshots with positions inside);
        for partitions that it leaves out, the committed position counts. ``topic_ids`` are the broker's ids.
        Raises InfrastructureError to be called again later, MillraceError to stop the process with a message.
        """

    def on_batch(self, records: Sequence[Record], output: Output) -> None:
        """Take records (in order within each partition). Idempotent: any suffix of them may come again.

        Raises InfrastructureError to have everything since the last safe position delivered again.
        """

    def on_tick(self, now: float, output: Output) -> None:
        """Called after each batch, and every 50 ms while there is none, with the monotonic time in seconds.

        A position becomes safe at the first tick that ends well after the durability margin: a worker whose store
        may lose its last writes asks it here whether it is still the same, well within that margin.
        """

    def revoke(self, partitions: Sequence[Partition]) -> None:
        """The partitions belong to this process no more."""

    def close(self, output: Output) -> None:
        """Last call before a clean exit: send what is pending."""
