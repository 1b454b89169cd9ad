"""Processes of tests: which ones belong to a folder, waiting for what they do, and a Redis to start."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from deploy.embedded.ports import free_port
from deploy.embedded.redis import Redis
from millrace.settings import StackSettings

# Long enough for a machine on which neighbours keep both cores busy: MLflow's client alone takes seconds to import.
# What has a time promised names its own.
PATIENCE_S = 120.0


def belonging_to(folder: Path) -> dict[int, str]:
    """Processes that work for a folder, by command line, working directory or environment; but not this one."""
    found = {}
    # Not what works for home14 when home1 is asked for.
    named = re.compile(re.escape(str(folder)) + r"(?![\w-])")
    for process in psutil.process_iter():
        try:
            facts = [*process.cmdline(), process.cwd(), *process.environ().values()]
            if process.pid != os.getpid() and any(map(named.search, facts)):
                found[process.pid] = process.name()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def in_time(condition: Callable[[], object], timeout_s: float = PATIENCE_S, interval_s: float = 0.1) -> None:
    """Wait for a condition that no event announces."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout_s} s")
        time.sleep(interval_s)


def a_redis(folder: Path) -> Redis:
    """A Redis at a free port, not started; MILLRACE_STACK_REDIS chooses its redis-server as it does for the stack."""
    return Redis(folder, free_port(), StackSettings().redis)
