"""Labels in the order in which their answers were served, handed out when no label of that time can still come.

A click is known at once and a slot without one only when its window closes. In the order of the decisions, clicks of
now stand beside the missing clicks of half an hour ago: whenever traffic grows, the click-through seems to. So labels
are collected by the time of serving, and a block is read once it is settled.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic

from millrace.drift.rolling import Sum


@dataclass
class Settling(Generic[Sum]):
    """Sums by block of serving time, each handed out once, the oldest first.

    Those of several workers are merged before they are settled: then what is handed out is that of the whole stream.

    Attributes
    ----------
    blocks
        Number of the block (serving time over its length) -> its sum so far.
    settled
        All blocks below this number were handed out.
    """

    blocks: dict[int, Sum] = field(default_factory=dict)
    settled: int = -(2**63)

    def add(self, block: int, value: Sum) -> bool:
        """Take a part of a block; False, and nothing taken, if the block was handed out already."""
        if block < self.settled:
            return False
        self.blocks[block] = self.blocks[block] + value if block in self.blocks else value
        return True

    def merge(self, other: Settling[Sum]) -> bool:
        """Take what another worker saw; False if some of it came too late."""
        taken = [self.add(block, value) for block, value in other.blocks.items()]
        return all(taken)

    def settle(self, below: int) -> list[tuple[int, Sum]]:
        """Hand out all blocks below a number: that of the time of which every label is known, attribution and all."""
        self.settled = max(self.settled, below)
        return [(block, self.blocks.pop(block)) for block in sorted(self.blocks) if block < self.settled]
