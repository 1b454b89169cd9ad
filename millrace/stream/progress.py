"""Which positions may be committed: those whose effects, and everything sent because of them, are safe.

Pure bookkeeping: no clock, no client. The runtime tells what happened and when.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from millrace.stream.worker import Partition


@dataclass(slots=True)
class Parcel:
    """Some records on their way to the broker that are accounted for together.

    One object per stretch between two batches instead of one per record: acknowledgements come in any order
    across partitions, so a single high mark would not do, and a set of all records would cost memory and time.
    """

    sent: int = 0
    acknowledged: int = 0

    @property
    def complete(self) -> bool:
        """Whether the broker has everything."""
        return self.sent == self.acknowledged


@dataclass(slots=True)
class _Batch:
    """A handled batch: the positions after it, and when it was done."""

    positions: dict[Partition, int]
    done_at: float
    # Number of parcels, counted from the start, that must be complete, and the time from which the margin counts: both
    # are known once all its output was sent.
    parcels: int = 0
    out_at: float = 0.0


class Progress:
    """Positions of the owned partitions.

    A batch becomes safe when, in this order,

    1. the worker has sent everything that it had to send because of it (``pending_since`` lies after it),
    2. the broker has acknowledged all that was sent until then, and
    3. the durability margin has passed since the first. The worker may write what a batch does long after it has
       taken it, where its store is slow; who has read what to send from there knows that it is written.

    Batches become safe in the order in which they were handled.

    Parameters
    ----------
    margin_s
        The durability margin, seconds; 0 where a store loses nothing.
    """

    def __init__(self, margin_s: float) -> None:
        self._margin_s = margin_s
        self._handled: dict[Partition, int] = {}
        self._safe: dict[Partition, int] = {}
        self._sending: deque[_Batch] = deque()
        self._flying: deque[_Batch] = deque()
        self._parcel = Parcel()
        self._closed: deque[Parcel] = deque()
        self._closed_count = 0
        self._complete_count = 0

    @property
    def handled(self) -> Mapping[Partition, int]:
        """The next offset that the worker has not taken, of each owned partition."""
        return self._handled

    @property
    def safe(self) -> Mapping[Partition, int]:
        """The position that may be committed and that a rewind goes back to, of each owned partition."""
        return self._safe

    @property
    def unsafe_batches(self) -> int:
        """Batches handled that are not safe yet."""
        return len(self._sending) + len(self._flying)

    def start(self, positions: Mapping[Partition, int]) -> None:
        """Own partitions, from these positions on (negative ones are Kafka's logical offsets)."""
        self._handled.update(positions)
        self._safe.update(positions)

    def release(self, partitions: Iterable[Partition]) -> None:
        """Own partitions no more. What was handled of them and is not safe stays uncommitted."""
        for partition in partitions:
            self._handled.pop(partition, None)
            self._safe.pop(partition, None)
            for batch in (*self._sending, *self._flying):
                batch.positions.pop(partition, None)

    def rewind(self) -> None:
        """Everything that is not safe counts as not handled; late acknowledgements of it change nothing."""
        self._handled.update(self._safe)
        self._sending.clear()
        self._flying.clear()
        self._closed.clear()
        self._complete_count = self._closed_count
        self._parcel = Parcel()

    def committed(self) -> None:
        """Everything that was handled is safe: a transaction says so, no acknowledgement is waited for."""
        self._safe.update(self._handled)
        self.rewind()

    def sent(self) -> Parcel:
        """A record goes to the broker; raise ``acknowledged`` of the parcel when it is there."""
        self._parcel.sent += 1
        return self._parcel

    def batch(self, positions: Mapping[Partition, int], done_at: float) -> None:
        """A batch was handled (its output may still be pending in the worker).

        Parameters
        ----------
        positions
            The next offset after it, of each partition in it.
        done_at
            Monotonic time when the worker was done with it, seconds.
        """
        self._handled.update(positions)
        self._sending.append(_Batch(dict(positions), done_at))

    def advance(self, now: float, pending_since: float | None, verified_at: float) -> bool:
        """Find out what has become safe by now; whether any position moved.

        Parameters
        ----------
        now
            Monotonic time, seconds.
        verified_at
            When the worker's store was still the one that it has written to: it may be another one by now.
        pending_since
            When the oldest effect was taken that the worker has not sent yet; None if there is none.
        """
        while self._sending and (pending_since is None or self._sending[0].done_at < pending_since):
            batch = self._sending.popleft()
            if self._parcel.sent:
                self._closed.append(self._parcel)
                self._closed_count += 1
                self._parcel = Parcel()
            batch.parcels, batch.out_at = self._closed_count, now
            self._flying.append(batch)
        while self._closed and self._closed[0].complete:
            self._closed.popleft()
            self._complete_count += 1
        moved = False
        while self._flying:
            batch = self._flying[0]
            if batch.parcels > self._complete_count:
                break
            if self._margin_s and batch.out_at + self._margin_s > verified_at:
                break
            self._flying.popleft()
            self._safe.update(batch.positions)
            moved = moved or bool(batch.positions)
        return moved
