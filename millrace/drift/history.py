"""The blocks since the last alarm in bounded memory: the newest singly, older ones put together, the older the more."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from millrace.drift.block import Block

LIMIT = 128
NOTHING = Block(0, 0.0, 0.0)


@dataclass(slots=True)
class History:
    """Blocks in the order of time.

    Attributes
    ----------
    blocks
        At most ``LIMIT``. When they are more, the older half of them is put together in pairs, so that the length of
        a block grows with its age: as in the exponential histogram of M. Datar et al. (SIAM Journal on Computing 31,
        2002).
    begins
        When each of them began, as whoever gave it said, Unix milliseconds; 0 if nobody did.
    """

    blocks: list[Block] = field(default_factory=list)
    begins: list[int] = field(default_factory=list)

    def append(self, block: Block, begins_ms: int = 0) -> None:
        """Take the newest block."""
        self.blocks.append(block)
        self.begins.append(begins_ms)
        if len(self.blocks) > LIMIT:
            old = self.blocks[: LIMIT // 2]
            self.blocks = [
                *(one + two for one, two in zip(old[::2], old[1::2], strict=True)),
                *self.blocks[LIMIT // 2 :],
            ]
            self.begins = [*self.begins[: LIMIT // 2 : 2], *self.begins[LIMIT // 2 :]]

    def split(self) -> tuple[Block, Block]:
        """All before and all after the place where the total so far is furthest from its share of the whole.

        A. N. Pettitt, "A simple cumulative sum type statistic for the change-point problem with zero-one observations"
        (Biometrika 67, 1980). With one block, the first part is empty.
        """
        whole = sum(self.blocks, NOTHING)
        before, found, furthest = NOTHING, NOTHING, -1.0
        for block in self.blocks[:-1]:
            before = before + block
            away = abs(before.total * whole.expected - whole.total * before.expected)
            if away > furthest:
                furthest, found = away, before
        return found, Block(whole.count - found.count, whole.total - found.total, whole.expected - found.expected)

    def since_change(self, gain: float, loss: float) -> tuple[Block, int]:
        """All since the most likely beginning of a change, and when that was.

        That of E. S. Page (Biometrika 41, 1954), where ``gain`` times the total less ``loss`` times the expected of all
        that came since is largest.
        """
        found, since, at_ms = NOTHING, NOTHING, 0
        best = -math.inf
        for block, begins_ms in zip(reversed(self.blocks), reversed(self.begins), strict=True):
            since = since + block
            score = gain * since.total - loss * since.expected
            if score > best:
                best, found, at_ms = score, since, begins_ms
        return found, at_ms
