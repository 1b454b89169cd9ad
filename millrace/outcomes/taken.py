"""Ids that were taken already: the same one again counts once, within a window of so many."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b

from millrace.v1.joiner_pb2 import TakenIds

PIECES = 128
"""The window is kept in so many pieces: the newest is rewritten at each commit, the oldest is dropped as a whole."""
HASH_BYTES = 8


def hashed(*parts: str) -> bytes:
    """A hash of some ids together (64 bits: one false duplicate in 10^14 pairs of a window of 100,000)."""
    return blake2b("\0".join(parts).encode(), digest_size=HASH_BYTES).digest()


class TakenWindow:
    """The newest ids of one partition.

    Parameters
    ----------
    window
        How many there are at least, once there were so many.
    """

    def __init__(self, window: int) -> None:
        self._piece_max = max(1, -(-window // (PIECES - 1)))
        self._pieces: dict[int, list[bytes]] = {0: []}
        self._newest = 0
        self._ids: set[bytes] = set()
        self._changed: set[int] = set()

    def __contains__(self, key: bytes) -> bool:
        return key in self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, key: bytes) -> None:
        """Take an id that is not in the window."""
        piece = self._pieces[self._newest]
        if len(piece) >= self._piece_max:
            self._newest += 1
            piece = self._pieces[self._newest] = []
            if (gone := self._pieces.pop(self._newest - PIECES, None)) is not None:
                self._ids.difference_update(gone)
        piece.append(key)
        self._ids.add(key)
        self._changed.add(self._newest)

    def changes(self) -> Iterator[tuple[int, TakenIds]]:
        """Pieces that changed since the last time, each with its place among the pieces kept."""
        for number in sorted(self._changed):
            if number in self._pieces:
                yield number % PIECES, TakenIds(piece=number, hashes=b"".join(self._pieces[number]))
        self._changed.clear()

    def load(self, taken: TakenIds) -> None:
        """Take a piece that was kept, in any order."""
        if taken.piece <= self._newest - PIECES:
            return
        hashes = taken.hashes
        keys = [hashes[start : start + HASH_BYTES] for start in range(0, len(hashes), HASH_BYTES)]
        self._ids.difference_update(self._pieces.get(taken.piece, ()))
        self._pieces[taken.piece] = keys
        self._ids.update(keys)
        if taken.piece > self._newest:
            self._newest = taken.piece
            for number in [number for number in self._pieces if number <= self._newest - PIECES]:
                self._ids.difference_update(self._pieces.pop(number))
