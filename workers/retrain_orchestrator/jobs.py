"""Processes that work for the orchestrator, and end with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import Any

KILLED_AFTER_S = 40.0
"""After being told to end. A training job closes its run in MLflow and deletes files, in half a minute at most."""
FAILURE, NOT_ENOUGH, UNUSABLE, CANCELLED = 1, 3, 4, 5
"""How a training job ends that makes no version (see ``train``)."""
END_WITH_STDIN = "--end-with-stdin"


class Job:
    """A process of our own interpreter; it prints one JSON object when it is done.

    Its standard input is a pipe that ends when this process does, whatever ends it: so nothing works on for nobody.

    Parameters
    ----------
    name
        What it is for: a job of another name is another job.
    arguments
        Those of the interpreter.
    """

    def __init__(self, name: str, arguments: Sequence[str]) -> None:
        self.name = name
        # Deleted when it is closed. A pipe that nobody empties would hold the job up.
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  (it lives as long as the job)
        self._process = subprocess.Popen(
            [sys.executable, *arguments, END_WITH_STDIN],
            stdin=subprocess.PIPE,
            stdout=self._output,
            # Ctrl-C is for the orchestrator, which tells its jobs.
            start_new_session=True,
        )
        self._kill_at: float | None = None

    @property
    def status(self) -> int | None:
        """The exit status; negative for the signal that ended it, None while it works."""
        return self._process.poll()

    def answer(self) -> dict[str, Any]:
        """What it printed; empty if that was nothing, or no JSON."""
        self._output.seek(0)
        try:
            answer = json.loads(self._output.read() or b"{}")
        except ValueError:
            return {}
        return answer if isinstance(answer, dict) else {}

    def end(self) -> bool:
        """Have it end, by force if it was told a while ago; whether it has."""
        if self.status is None:
            now = time.monotonic()
            if self._kill_at is None:
                self._kill_at = now + KILLED_AFTER_S
                self._process.terminate()
            elif now > self._kill_at:
                self._process.kill()
            return False
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._output.close()
        return True


def end_with_stdin() -> None:
    """Be told to end, as by SIGTERM, when standard input ends: whoever started this process is gone."""

    def wait() -> None:
        while os.read(0, 1_024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="stdin", daemon=True).start()
