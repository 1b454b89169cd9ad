"""Orchestrators that are there at once: a process that has imported everything forks them.

An orchestrator imports for five seconds, MLflow included, which is most of a test that kills many. What is killed is a
process of its own in any case. ``python -m tests.chaos.forking``: each line of standard input, JSON with ``log`` and
``env``, starts one; the answer is its process id.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.embedded.member import clean_environment
from millrace.settings import settings
from tests.conftest import ROOT
from tests.processes import PATIENCE_S


class Forking:
    """The process that forks. A context manager: it ends, and what it has started.

    Parameters
    ----------
    folder
        Takes the output of all.
    """

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self._folder, self._started = folder, 0
        self._log = (folder / "forking.log").open("wb")
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.forking"],
            cwd=ROOT,
            env=clean_environment() | {"PYTHONUNBUFFERED": "1"} | dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def start(self, env: Mapping[str, str]) -> Orchestrator:
        """One more, with these environment variables beside its own."""
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        log = self._folder / f"orchestrator-{self._started}.log"
        self._started += 1
        self._popen.stdin.write(json.dumps({"log": str(log), "env": dict(env)}) + "\n")
        self._popen.stdin.flush()
        return Orchestrator(int(self._popen.stdout.readline()), log)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        # Whoever was forked ends with this process (see ``fork``).
        self._popen.kill()
        self._popen.communicate()
        self._log.close()


class Orchestrator:
    """One of them."""

    def __init__(self, pid: int, log: Path) -> None:
        self.pid, self._log = pid, log

    def output(self) -> str:
        """Everything that it and its jobs have printed so far."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def kill(self) -> None:
        """Kill -9, and wait until it is gone."""
        os.kill(self.pid, signal.SIGKILL)
        give_up = time.monotonic() + PATIENCE_S
        while _is_there(self.pid):
            assert time.monotonic() < give_up, f"{self.pid} outlives kill -9"
            time.sleep(0.005)


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def main() -> None:
    """Import, then fork one for each line."""
    import mlflow  # noqa: F401  (for the time it takes)

    import workers.retrain_orchestrator.__main__  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody has to wait for them
    ends, held = os.pipe()  # ends when this process does
    for line in sys.stdin:
        asked = json.loads(line)
        pid = os.fork()
        if not pid:
            os.close(held)
            fork(asked["log"], asked["env"], ends)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


def fork(log: str, env: Mapping[str, str], ends: int) -> None:
    """Be an orchestrator, until the pipe ends."""
    from workers.retrain_orchestrator.jobs import end_with_stdin

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number, file in enumerate((ends, output, output)):
        os.dup2(file, number)
    os.environ.update(env)
    settings.cache_clear()
    end_with_stdin()
    from tests.quick_training import orchestrate

    os._exit(orchestrate())


if __name__ == "__main__":
    main()
