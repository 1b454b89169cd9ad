"""Slots of a window on disk, in the order of the log: read as often as need be, a block at a time.

A window of four weeks does not fit into memory, and the log is read once: several passes over a topic would fetch and
decode everything again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from millrace.errors import InvalidField
from millrace.features.segments import SEGMENTS
from millrace.learning.examples import read_examples
from millrace.v1.outcome_pb2 import ImpressionOrigin, Label, Outcome

Slots = npt.NDArray[Any]
"""Structured array: ``features`` float32[d], ``label``, ``segment``, ``served``, ``appended_ms``, ``served_ms``."""

CLICKED, SKIPPED, UNSEEN = 1, 0, -1
"""Labels. What was probably not seen is no example, but it was served: the reference of features counts it."""
NO_SEGMENT = len(SEGMENTS)
"""Code of a slot without a segment of ours: a click without an answer. The others are places in ``SEGMENTS``."""

ALWAYS = 2**63 - 1
"""A time, Unix milliseconds, that is after every other."""

BLOCK = 20_000
"""Slots in memory at once: 3 MB of our features, and 6 MB more while they are learned."""
_BUFFERED = 256
"""Outcomes that are written at once."""

_LABELS = {Label.LABEL_POSITIVE: CLICKED, Label.LABEL_NEGATIVE: SKIPPED, Label.LABEL_UNSEEN: UNSEEN}
_SEGMENTS = {name: code for code, name in enumerate(SEGMENTS)}


def slot_type(features: int) -> np.dtype[Any]:
    """What a slot is on disk: 4 bytes for each feature, and 19."""
    return np.dtype(
        [
            ("features", "<f4", (features,)),
            ("label", "i1"),
            ("segment", "u1"),
            ("served", "?"),
            ("appended_ms", "<i8"),
            ("served_ms", "<i8"),
        ]
    )


def read_slots(outcome: Outcome, feature_schema: str, features: int, appended_ms: int) -> Slots:
    """The slots of an outcome, in order; those of a click without an answer are not ``served``.

    Parameters
    ----------
    appended_ms
        When the broker appended it, Unix milliseconds.

    Raises
    ------
    InvalidField
        As ``millrace.learning.examples.read_examples``: what the learner refuses teaches nothing here either.
    """
    rows, _ = read_examples(outcome, feature_schema, features)
    for place, decided in enumerate(outcome.slots):
        if len(decided.slot.features) != features:
            given = f"{len(decided.slot.features)} numbers"
            raise InvalidField(f"slots[{place}].slot.features", given, f"{features} numbers")
    slots = np.empty(len(outcome.slots), slot_type(features))
    whole = len(rows) == len(slots)
    slots["features"] = rows if whole else [list(decided.slot.features) for decided in outcome.slots]
    slots["label"] = [_LABELS[decided.label] for decided in outcome.slots]
    slots["segment"] = _SEGMENTS.get(outcome.impression.segment, NO_SEGMENT)
    slots["served"] = outcome.origin == ImpressionOrigin.IMPRESSION_ORIGIN_SERVED
    slots["appended_ms"] = appended_ms
    slots["served_ms"] = outcome.impression.served_at_ms or outcome.decided_at_ms
    return slots


class SlotFile:
    """Slots in a file, appended and then read. A context manager: the file is gone at the end.

    Parameters
    ----------
    path
        Of the file; it must not exist.
    features
        How many a slot has.
    """

    def __init__(self, path: Path, features: int) -> None:
        self.features = features
        self._type = slot_type(features)
        self._path = path
        self._file = path.open("x+b")
        self._buffer: list[Slots] = []
        self._written = 0

    def __len__(self) -> int:
        return self._written + sum(map(len, self._buffer))

    def append(self, slots: Slots) -> None:
        """Take the next slots. Raises OSError, for example when the disk is full."""
        if slots.dtype != self._type:
            raise ValueError(f"slots of {slots.dtype}, not {self._type}")
        self._buffer.append(slots)
        if len(self._buffer) >= _BUFFERED:
            self._write()

    def blocks(self, start: int = 0, stop: int | None = None, size: int = BLOCK) -> Iterator[Slots]:
        """The slots from ``start`` up to ``stop``, a block after the other."""
        self._write()
        stop = self._written if stop is None else stop
        for at in range(start, stop, size):
            self._file.seek(at * self._type.itemsize)
            yield np.fromfile(self._file, self._type, min(size, stop - at))

    def close(self) -> None:
        """Delete the file."""
        self._file.close()
        self._path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _write(self) -> None:
        if self._buffer:
            whole = np.concatenate(self._buffer)
            self._file.seek(0, 2)
            self._file.write(whole.tobytes())
            self._file.flush()
            self._written += len(whole)
            self._buffer = []


def merge(parts: Sequence[SlotFile], into: SlotFile, size: int = BLOCK) -> None:
    """Bring the slots of several partitions into the order of append time, and of the parts where that is the same.

    In each part append times must not fall. So the order is a matter of the log, and not of how it was fetched; so many
    slots of each part are in memory at once.
    """
    readers = [part.blocks(size=size) for part in parts]
    heads: list[Slots | None] = [next(reader, None) for reader in readers]
    while open_ := [(place, head) for place, head in enumerate(heads) if head is not None]:
        # Nothing before this can come any more.
        bound = min((int(head["appended_ms"][-1]), place) for place, head in open_)
        turn = []
        for place, head in open_:
            side: Literal["left", "right"] = "right" if place <= bound[1] else "left"
            count = int(np.searchsorted(head["appended_ms"], bound[0], side=side))
            turn.append(head[:count])
            heads[place] = head[count:] if count < len(head) else next(readers[place], None)
        whole = np.concatenate(turn)
        into.append(whole[np.argsort(whole["appended_ms"], kind="stable")])


def examples(slots: Slots) -> Slots:
    """Those that teach: seen, with a label."""
    seen: Slots = slots[slots["label"] != UNSEEN]
    return seen


def served_until(slots: Slots) -> int:
    """The newest serving time, Unix milliseconds, of what had been served when it was appended; 0 if there is none."""
    return int(np.minimum(slots["served_ms"], slots["appended_ms"]).max(initial=0))
