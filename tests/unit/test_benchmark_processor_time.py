"""The benchmark of processor time, on processes that are not ours to measure."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks.processor_time import DETECTOR, WORKERS, rows_of, seconds, watch


def test_shares_add_up_and_have_intervals() -> None:
    taken = {"busy": [3.0, 2.0, 3.0], "idle": [1.0, 2.0, 1.0]}
    rows = {row.name: row for row in rows_of(taken, 24.0)}
    assert rows["processor_time.busy"].value == pytest.approx(8 / 12)
    assert rows["processor_time.idle"].value == pytest.approx(4 / 12)
    assert rows["processor_time.workers"].value == pytest.approx(0.5)
    low, high = rows["processor_time.idle"].low, rows["processor_time.idle"].high
    assert low is not None
    assert high is not None
    assert low < 4 / 12 < high


def test_a_process_is_counted_with_those_that_it_started() -> None:
    """A parent that waits, whose child computes until its pipe ends."""
    child = (
        "import sys, threading; threading.Thread(target=sys.stdin.read).start()\n"
        "while len(threading.enumerate()) > 1: pass"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE) as process:
        while seconds(process.pid) < 0.3:
            (taken,) = watch({"parent": process.pid}, 1, 0.05).values()
            assert taken[0] >= 0
        assert process.stdin is not None
        process.stdin.close()
    assert process.returncode == 0


def test_the_detector_is_one_of_the_workers() -> None:
    assert DETECTOR in WORKERS
    assert len(WORKERS) == 6
