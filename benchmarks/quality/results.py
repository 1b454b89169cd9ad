"""``quality.json``: a row for each run, and differences between rows over the same events.

The sums of blocks that differences are computed from lie beside it, a line for each row.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.measuring import Measured
from benchmarks.quality.runs import Run, all_runs, pairs
from millrace.evaluation.paired import Blocks, difference

QUALITY = Path(__file__).parents[1] / "results" / "quality.json"
METRICS = ("hr", "mrr")
_DIGITS = 9

Row = dict[str, Any]


@dataclass
class Results:
    """What was measured so far, by name of the row."""

    rows: dict[str, Row]
    blocks: dict[str, Blocks]

    def measured(self, run: Run, code: str, settings: dict[str, Any]) -> bool:
        """Whether a row was measured by this code with these settings in force."""
        row = self.rows.get(run.name)
        if row is None or (row["command"], row["code"]) != (run.command, code):
            return False
        return bool(run.tune) or row["settings"] == settings

    def take(self, measured: Measured) -> None:
        """A new row, instead of an earlier one of its name."""
        name = measured.row["name"]
        self.rows[name], self.blocks[name] = measured.row, measured.blocks

    def comparable(self, better: str, worse: str) -> bool:
        """Whether two rows were measured, by the same code and before the same events."""
        if not {better, worse} <= self.rows.keys() & self.blocks.keys():
            return False
        return (
            self.rows[better]["code"] == self.rows[worse]["code"]
            and self.blocks[better].events == self.blocks[worse].events
        )

    def differences(self) -> list[Row]:
        """What a row has above another, for each declared pair that can be compared."""
        return [
            _difference(better, worse, metric, self)
            for better, worse in pairs()
            if self.comparable(better, worse)
            for metric in METRICS
        ]


def read(file: Path = QUALITY) -> Results:
    """What was measured; nothing if the file is not there."""
    if not file.exists():
        return Results({}, {})
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    beside = _blocks_file(file)
    kept = json.loads(beside.read_text(encoding="utf-8")) if beside.exists() else {}
    blocks = {name: Blocks.from_words(words) for name, words in kept.items()}
    return Results({row["name"]: row for row in rows}, blocks)


def write(results: Results, file: Path = QUALITY) -> None:
    """Keep the rows in the order of their declaration; rows that are not declared any more go."""
    names = [run.name for run in all_runs() if run.name in results.rows]
    lines = [
        json.dumps(name) + ": " + json.dumps(results.blocks[name].words(METRICS, _DIGITS))
        for name in names
        if name in results.blocks
    ]
    _replace(_blocks_file(file), "{\n" + ",\n".join(lines) + "\n}\n")
    content = {"rows": [results.rows[name] for name in names], "differences": results.differences()}
    _replace(file, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def add(measured: Measured, file: Path = QUALITY) -> None:
    """Put a new row beside those that are kept by now: others may be measuring too, on another core."""
    with _alone(file):
        found = read(file)
        found.take(measured)
        write(found, file)


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """No other process adds rows meanwhile. The folder is what is locked: no file stays behind."""
    file.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _difference(better: str, worse: str, metric: str, results: Results) -> Row:
    found = difference(results.blocks[better], results.blocks[worse], metric)

    def ends(rate: tuple[float, float, float]) -> list[float] | None:
        return list(rate[1:]) if np.isfinite(rate).all() else None

    return {
        "better": better,
        "worse": worse,
        "metric": metric,
        "k": results.rows[better]["k"],
        "n": results.rows[better]["n"],
        "absolute": found.absolute[0],
        "absolute_ci95": ends(found.absolute),
        "relative": found.relative[0] if np.isfinite(found.relative[0]) else None,
        "relative_ci95": ends(found.relative),
        "seed": 0,
    }


def _blocks_file(file: Path) -> Path:
    return file.with_name(f"{file.stem}-blocks.json")


def _replace(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(file)
