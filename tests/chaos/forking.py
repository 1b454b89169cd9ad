"""Processes that are there at once: one that has imported everything forks them.

A worker imports for seconds, an orchestrator with MLflow for five, which is most of a test that kills many. What is
killed is a process of its own in any case. ``python -m tests.chaos.forking MODULE:FUNCTION``: each line of standard
input, JSON with ``log`` and ``env``, starts one that calls the function; the answer is its process id.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.embedded.member import clean_environment, log_tail
from millrace.settings import settings
from tests.conftest import ROOT
from tests.processes import PATIENCE_S

ENDED = "exit status {}\n"
"""The last line of one that was not killed: nobody waits for it who could tell."""


class Forking:
    """The process that forks. A context manager: it ends, and what it has started.

    Parameters
    ----------
    folder
        Takes the output of all.
    entry
        ``module:function``: imported before, called in each; what it returns is the exit status.
    """

    def __init__(self, folder: Path, entry: str, env: Mapping[str, str]) -> None:
        self._folder, self._started = folder, 0
        self._log = (folder / "forking.log").open("wb")
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.forking", entry],
            cwd=ROOT,
            env=clean_environment() | {"PYTHONUNBUFFERED": "1"} | dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def start(self, env: Mapping[str, str]) -> Forked:
        """One more, with these environment variables beside its own."""
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        log = self._folder / f"forked-{self._started}.log"
        self._started += 1
        self._popen.stdin.write(json.dumps({"log": str(log), "env": dict(env)}) + "\n")
        self._popen.stdin.flush()
        return Forked(int(self._popen.stdout.readline()), log)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        # Whoever was forked ends with this process (see ``fork``).
        self._popen.kill()
        self._popen.communicate()
        self._log.close()


class Forked:
    """One of them."""

    def __init__(self, pid: int, log: Path) -> None:
        self.pid, self._log = pid, log

    @property
    def alive(self) -> bool:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def output(self) -> str:
        """Everything that it and its jobs have printed so far."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def until(self, condition: Callable[[], object], interval_s: float = 0.01) -> None:
        """Wait for a condition; fails the test with the process's output when it ends or the time is over."""
        give_up = time.monotonic() + PATIENCE_S
        while not condition():
            # It may have done it and ended since.
            assert self.alive or condition(), f"it ended; the end of its output:\n{log_tail(self._log)}"
            assert time.monotonic() < give_up, f"nothing came; the end of its output:\n{log_tail(self._log)}"
            time.sleep(interval_s)

    def kill(self) -> None:
        """Kill -9, and wait until it is gone."""
        os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def terminate(self) -> None:
        """SIGTERM, and wait until it is gone. Fails the test unless it ended as it should."""
        os.kill(self.pid, signal.SIGTERM)
        self.wait()
        assert self.output().endswith(ENDED.format(0)), self.output()

    def wait(self) -> None:
        """Wait until it is gone."""
        give_up = time.monotonic() + PATIENCE_S
        while self.alive:
            assert time.monotonic() < give_up, f"{self.pid} does not end; its output:\n{log_tail(self._log)}"
            time.sleep(0.005)


def main(entry: str) -> None:
    """Import, then fork one for each line."""
    module, _, name = entry.partition(":")
    function = getattr(import_module(module), name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody has to wait for them
    ends, held = os.pipe()  # ends when this process does
    for line in sys.stdin:
        asked = json.loads(line)
        pid = os.fork()
        if not pid:
            os.close(held)
            fork(function, asked["log"], asked["env"], ends)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


def fork(function: Callable[[], int], log: str, env: Mapping[str, str], ends: int) -> None:
    """Be such a process, until the pipe ends."""
    from workers.retrain_orchestrator.jobs import end_with_stdin

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number, file in enumerate((ends, output, output)):
        os.dup2(file, number)
    os.environ.update(env)
    settings.cache_clear()
    end_with_stdin()
    try:
        status = function()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0
    os.write(1, ENDED.format(status).encode())
    os._exit(status)


if __name__ == "__main__":
    main(sys.argv[1])
