"""Brings records of several partitions into the order in which the broker appended them.

A consumer hands out partitions in any order: after an hour's pause it may bring an hour of one topic before the first
record of another. Whoever joins two topics by time needs them side by side. A record is handed on only when no
earlier one can come: every other partition of its group has a later one in hand, or was read to its end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from millrace.stream.decoding import Batch, Undecodable
from millrace.stream.worker import Assignment, Partition, Record

AtEnd = Callable[[Partition, int], bool]
"""Whether nothing stands at or after an offset of a partition, as far as the consumer knows."""


class _Queue:
    """Records of one partition that wait for their turn."""

    __slots__ = ("eof", "next", "order", "said", "waiting")

    def __init__(self, order: tuple[int, int], start: int) -> None:
        self.order = order
        # The next offset to come, negative while it is not known; and where the end was seen.
        self.next = start
        self.eof = -1
        # The position after what was handed on.
        self.said = start
        self.waiting: deque[Record | Undecodable] = deque()


class Merge:
    """Pure bookkeeping over what was polled.

    Ties of append time (milliseconds) go by the order of the worker's topics, then by partition number, so that
    the order is a matter of the log and not of how it was fetched.

    Parameters
    ----------
    topics
        Names, in the order that breaks ties.
    assignment
        Co-partitioned: partitions with the same number are one group. Else all of them are.
    most
        Records that may wait in one partition; beyond, it has to be paused.
    """

    def __init__(self, topics: Sequence[str], assignment: Assignment, most: int) -> None:
        self._places = {name: place for place, name in enumerate(topics)}
        self._by_number = assignment is Assignment.CO_PARTITIONED
        self._most = most
        self._queues: dict[Partition, _Queue] = {}
        self._groups: dict[int, list[Partition]] = {}
        self._paused: set[Partition] = set()

    def start(self, partition: Partition, offset: int) -> None:
        """The partition is read from an offset on (a negative one is Kafka's logical offset)."""
        self.forget([partition])
        self._queues[partition] = _Queue((self._places[partition[0]], partition[1]), offset)
        group = self._groups.setdefault(self._group(partition), [])
        group.append(partition)
        group.sort(key=lambda member: self._queues[member].order)

    def forget(self, partitions: Iterable[Partition]) -> None:
        """The partitions are not read any more, or from somewhere else."""
        for partition in partitions:
            if self._queues.pop(partition, None) is not None:
                self._groups[self._group(partition)].remove(partition)
            self._paused.discard(partition)

    @property
    def waiting(self) -> int:
        """Records that wait for their turn."""
        return sum(len(queue.waiting) for queue in self._queues.values())

    def add(self, polled: Batch) -> None:
        """Take what one poll brought."""
        queues = self._queues
        for record in polled.records:
            queues[record.topic, record.partition].waiting.append(record)
        if polled.refused:
            for undecodable in polled.refused:
                record = undecodable.record
                queues[record.topic, record.partition].waiting.append(undecodable)
            # Offsets put the two kinds of a partition in order again.
            for partition in {(one.record.topic, one.record.partition) for one in polled.refused}:
                queue = queues[partition]
                queue.waiting = deque(sorted(queue.waiting, key=lambda one: _record(one).offset))
        for partition, offset in polled.positions.items():
            queues[partition].next = offset
        for partition in polled.ended:
            queues[partition].eof = queues[partition].next

    def take(self, at_end: AtEnd) -> Batch:
        """Everything whose turn it is, in order within each group; problems are left to the caller."""
        batch = Batch()
        for group in self._groups.values():
            self._take_group(group, at_end, batch)
        return batch

    def flow(self) -> tuple[list[Partition], list[Partition]]:
        """Partitions to pause and to resume now."""
        full = {partition for partition, queue in self._queues.items() if len(queue.waiting) >= self._most}
        low = {partition for partition in self._paused if len(self._queues[partition].waiting) < self._most // 2}
        pause = full - self._paused
        self._paused = (self._paused | pause) - low
        return sorted(pause), sorted(low)

    def _take_group(self, group: Sequence[Partition], at_end: AtEnd, batch: Batch) -> None:
        queues = [(partition, self._queues[partition]) for partition in group]
        # Nothing before this can come any more.
        bound: tuple[int, tuple[int, int]] | None = None
        for partition, queue in queues:
            if queue.next >= 0 and (queue.eof == queue.next or at_end(partition, queue.next)):
                continue
            if not queue.waiting:
                return
            least = _record(queue.waiting[-1]).append_time_ms, queue.order
            bound = least if bound is None else min(bound, least)
        taken: list[Record | Undecodable] = []
        for partition, queue in queues:
            waiting, order = queue.waiting, queue.order
            count = 0
            while waiting and (bound is None or (_record(waiting[0]).append_time_ms, order) <= bound):
                taken.append(waiting.popleft())
                count += 1
            if count:
                batch.counts[partition] = count
                batch.positions[partition] = queue.said = _record(taken[-1]).offset + 1
            if not waiting and queue.next > queue.said:
                # The end lies behind the last record: compaction and transactions leave gaps.
                batch.positions[partition] = queue.said = queue.next
        # Stable: within a millisecond partitions stay in the group's order.
        taken.sort(key=lambda one: _record(one).append_time_ms)
        for one in taken:
            if isinstance(one, Undecodable):
                batch.refused.append(one)
            else:
                batch.records.append(one)

    def _group(self, partition: Partition) -> int:
        return partition[1] if self._by_number else 0


def _record(one: Record | Undecodable) -> Record:
    return one.record if isinstance(one, Undecodable) else one
