"""The runtime's state for ``/readyz``: written by its loop, read by the health server's thread."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from confluent_kafka import Consumer, TopicPartition

from millrace.stream.http import Readiness
from millrace.stream.telemetry import Telemetry
from millrace.stream.worker import Partition


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """Progress of one partition.

    Attributes
    ----------
    position
        Next offset that the worker has not taken.
    committed
        What a restart would start from; None until something was committed or found.
    lag
        Records on the broker from the position on.
    moved_at
        Monotonic time when the position moved last, or the lag was last 0, seconds.
    """

    position: int
    committed: int | None
    lag: int
    moved_at: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that ``/readyz`` says, as of one moment. Immutable, so that threads can share it.

    Attributes
    ----------
    at
        Monotonic time, seconds.
    problem
        Why the worker cannot work; empty if it can.
    """

    at: float
    role: str
    standing_by: bool
    problem: str
    partitions: Mapping[Partition, PartitionStatus]


class Watch:
    """Looks at partitions from time to time: how far behind they are, and since when they have not moved.

    Parameters
    ----------
    committed
        Positions that the broker has; looked up at each look.
    """

    def __init__(
        self,
        consumer: Consumer,
        committed: Mapping[Partition, int],
        telemetry: Telemetry,
        monotonic: Callable[[], float],
    ) -> None:
        self._consumer = consumer
        self._committed = committed
        self._telemetry = telemetry
        self._monotonic = monotonic
        self._last: dict[Partition, PartitionStatus] = {}

    def look(self, positions: Mapping[Partition, int]) -> Mapping[Partition, PartitionStatus]:
        """The state of the partitions that have a position; others are forgotten."""
        now = self._monotonic()
        found = {}
        for partition, position in positions.items():
            lag = self._lag(partition, position)
            last = self._last.get(partition)
            unmoved = last is not None and last.position == position and lag > 0
            moved_at = last.moved_at if last is not None and unmoved else now
            found[partition] = PartitionStatus(position, self._committed.get(partition), lag, moved_at)
            self._telemetry.lag(partition, lag)
        self._last = found
        return found

    def _lag(self, partition: Partition, position: int) -> int:
        """Records from the position to the end of the partition, as of the last fetch."""
        low, high = self._consumer.get_watermark_offsets(TopicPartition(*partition), cached=True)
        return max(0, high - (position if position >= 0 else max(low, 0)))


class Status:
    """The newest snapshot, and what it means.

    Parameters
    ----------
    stalled_after_s
        A partition with lag that has not moved for so long makes the process not ready; so does a loop that has
        not come round for so long.
    """

    def __init__(self, stalled_after_s: float, monotonic: Callable[[], float]) -> None:
        self._stalled_after_s = stalled_after_s
        self._monotonic = monotonic
        self._snapshot = Snapshot(monotonic(), "starting", False, "starting", {})
        self._in_hand: Collection[Partition] = ()

    @property
    def snapshot(self) -> Snapshot:
        """The newest one."""
        return self._snapshot

    def publish(self, snapshot: Snapshot) -> None:
        """Called by the loop."""
        self._snapshot = snapshot

    def in_hand(self, partitions: Collection[Partition]) -> None:
        """Whose records the worker has in hand; called by the loop before a batch, and with none after it."""
        self._in_hand = partitions

    def readiness(self) -> Readiness:
        """Called by the health server's thread."""
        snapshot, now = self._snapshot, self._monotonic()
        problem = snapshot.problem or self._stalled(snapshot, now)
        if not problem and not snapshot.partitions and not snapshot.standing_by:
            problem = "no partitions assigned"
        return Readiness(
            not problem,
            [problem] if problem else [],
            {
                "role": snapshot.role,
                "partitions": {
                    f"{topic}/{number}": {
                        "position": partition.position,
                        "committed": partition.committed,
                        "lag": partition.lag,
                        "unmoved_s": round(now - partition.moved_at, 1) if partition.lag else 0.0,
                    }
                    for (topic, number), partition in sorted(snapshot.partitions.items())
                },
            },
        )

    def _stalled(self, snapshot: Snapshot, now: float) -> str:
        silent_s = now - snapshot.at
        if silent_s > self._stalled_after_s:
            stuck = [f"{topic}/{number}" for topic, number in sorted(self._in_hand)]
            what = f"batch of {', '.join(stuck)}" if stuck else "turn"
            return f"one {what} takes longer than {self._stalled_after_s:g} s ({silent_s:.0f} s so far)"
        stuck = [
            f"{topic}/{number} ({now - partition.moved_at:.0f} s)"
            for (topic, number), partition in sorted(snapshot.partitions.items())
            if partition.lag and now - partition.moved_at > self._stalled_after_s
        ]
        return f"no progress for more than {self._stalled_after_s:g} s in {', '.join(stuck)}" if stuck else ""
