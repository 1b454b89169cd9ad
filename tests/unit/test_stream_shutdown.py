"""A process that is told to end, wherever the signal finds it."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator

import psutil
import pytest

from millrace.flag import Flag
from tests.conftest import ROOT
from tests.processes import PATIENCE_S, in_time

# A pipe holds 64 KiB; the next line does not fit.
FULL = 60_000
BUSY_WRITER = """
import structlog
from millrace.settings import ObservabilitySettings
from millrace.stream import logs
from millrace.stream.shutdown import Shutdown

logs.configure(ObservabilitySettings(), "writer")
log, over = structlog.stdlib.get_logger("writer"), []
with Shutdown(lambda: over.append(True), 60):
    print("ready", flush=True)
    while not over:
        log.info("a line")
"""
STUBBORN = """
import sys, time
from millrace.settings import ObservabilitySettings
from millrace.stream import logs
from millrace.stream.shutdown import Shutdown

logs.configure(ObservabilitySettings(), "stubborn")
with Shutdown(lambda: None, float(sys.argv[1])):
    print("ready", flush=True)
    # As our processes do: a signal that comes just before a thread sleeps is looked at when it wakes.
    while True:
        time.sleep(0.05)
"""


def started(program: str, *arguments: str) -> subprocess.Popen[bytes]:
    """The program, once it is ready. It writes its log through a buffer, as processes do whose output is a file."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def is_writing(process: subprocess.Popen[bytes]) -> bool:
    """Whether it is inside of a write, which nobody reads."""
    assert process.stderr is not None
    (waiting,) = struct.unpack("i", fcntl.ioctl(process.stderr, termios.FIONREAD, b"\0" * 4))
    return bool(waiting > FULL) and psutil.Process(process.pid).status() == psutil.STATUS_SLEEPING


def test_a_signal_in_the_middle_of_a_line_of_the_log_counts() -> None:
    process = started(BUSY_WRITER)
    try:
        in_time(lambda: is_writing(process))
        process.terminate()
        log = process.communicate(timeout=PATIENCE_S)[1].decode()
    finally:
        process.kill()
    assert process.returncode == 0, log[-2_000:]
    assert "draining" in log


def test_the_second_signal_ends_it_at_once() -> None:
    process = started(STUBBORN, "600")
    try:
        process.terminate()
        assert process.stderr is not None
        assert b"draining" in process.stderr.readline()
        process.terminate()
        process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM


def test_a_drain_that_takes_too_long_is_ended() -> None:
    process = started(STUBBORN, "0.1")
    process.terminate()
    assert b"drain took too long" in process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == 1


@pytest.fixture
def flags() -> Iterator[list[Flag]]:
    """A signal comes every millisecond, and sets the newest of these flags."""
    made = [Flag()]
    before = signal.signal(signal.SIGALRM, lambda *_: made[-1].set())
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    yield made
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_a_handler_may_set_the_flag_that_it_keeps_waiting(flags: list[Flag]) -> None:
    for _ in range(300):
        flags.append(Flag())
        while not flags[-1].wait(0.0001):
            pass
        assert flags[-1].is_set()
        assert flags[-1].wait()
