"""The newest blocks of time of a stream, each with a sum: all that is kept, and all that is needed to go on.

Two workers that share a stream keep one each; merged, they are what one worker over the whole stream would have kept,
whoever saw what in whatever order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import Generic, Protocol, Self, TypeVar

from millrace.errors import InvalidField


class Summable(Protocol):
    """What adds up: ``Counts``, ``Block``."""

    def __add__(self, other: Self, /) -> Self: ...


Sum = TypeVar("Sum", bound=Summable)


@dataclass
class Rolling(Generic[Sum]):
    """Sums by block of time.

    Attributes
    ----------
    keep
        How many blocks, counted back from the newest.
    blocks
        Number of the block (for example the event time over its length) -> its sum. Blocks without anything are
        not there.
    """

    keep: int
    blocks: dict[int, Sum] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise InvalidField("keep", str(self.keep), "1 block and more")

    def add(self, block: int, value: Sum) -> None:
        """Take a part of a block; what is older than all that is kept is dropped."""
        self.blocks[block] = self.blocks[block] + value if block in self.blocks else value
        too_old = self.newest - self.keep
        for number in [number for number in self.blocks if number <= too_old]:
            del self.blocks[number]

    def merge(self, other: Rolling[Sum]) -> None:
        """Take what another worker saw."""
        for block, value in other.blocks.items():
            self.add(block, value)

    @property
    def newest(self) -> int:
        """The newest block, or a number below all."""
        return max(self.blocks, default=-(2**63))

    def total(self) -> Sum | None:
        """Of all blocks; None if there is none."""
        return reduce(add, self.blocks.values()) if self.blocks else None

    def in_order(self) -> Iterator[tuple[int, Sum]]:
        """The blocks, the oldest first."""
        return iter(sorted(self.blocks.items(), key=lambda each: each[0]))
