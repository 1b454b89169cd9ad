"""What chaos tests found, a line each for ``docs/reliability.md``: see ``benchmarks.reliability_document``."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.reliability_document import FAULTS

FILE = "CHAOS_RESULTS"
"""Environment variable: the file that takes the lines (``make chaos`` names one)."""
TIMES = "CHAOS_TIMES"
"""Environment variable: how many times as many faults as in ``make test``."""


def times() -> int:
    """How many times as many faults as in ``make test``."""
    return int(os.environ.get(TIMES, "1"))


@dataclass(slots=True)
class Found:
    """What was counted, against a ledger."""

    events: int
    lost: int = 0
    doubled: int = 0

    def compare(self, expected: int, found: int) -> None:
        """Take one counter into the sums."""
        self.lost += max(0, expected - found)
        self.doubled += max(0, found - expected)


def report(fault: str, faults: int, found: Found, recovered_s: Sequence[float] = ()) -> None:
    """Write a line, if somebody wants it.

    Parameters
    ----------
    fault
        One of ``benchmarks.reliability_document.FAULTS``.
    faults
        How often it was caused.
    recovered_s
        Time from a fault until work went on; empty where it was not measured.
    """
    assert fault in FAULTS
    if file := os.environ.get(FILE):
        row = {"fault": fault, "faults": faults, **asdict(found), "recovered_s": list(recovered_s)}
        with Path(file).open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")
