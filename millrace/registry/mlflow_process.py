"""Commands that talk to MLflow, each in a process of its own: ``import mlflow`` takes seconds of the interpreter."""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import IO

from millrace.errors import InfrastructureError
from millrace.settings import MlflowSettings

# `import mlflow` takes 2-6 s of it on a busy small machine, 50 MB of parameters (the most there may be) a few more.
TIMEOUT_S = 60.0

_running: set[MlflowProcess] = set()


class MlflowProcess:
    """``python -m MODULE ARGUMENTS``, under way. It does not outlive this process (but for kill -9), nor its time.

    Parameters
    ----------
    what
        What it does, for errors: "fetching version 3 of ranker".
    mlflow
        Where MLflow is; None: as this process's environment says.
    timeout_s
        Longest time, seconds.
    """

    def __init__(
        self,
        what: str,
        module: str,
        arguments: Sequence[str],
        mlflow: MlflowSettings | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._what = what
        self._timeout_s = timeout_s
        self._give_up = time.monotonic() + timeout_s
        environment = dict(os.environ)
        if mlflow is not None:
            environment["MLFLOW_TRACKING_URI"] = mlflow.tracking_uri
            environment["MLFLOW_TIMEOUT_MS"] = str(mlflow.timeout_ms)
        # Files, not pipes: nobody reads while it runs.
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  (closed when it is done)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._popen = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._errors,
        )
        _running.add(self)

    def poll(self) -> str | None:
        """What it printed, once it is done; None before.

        Raises
        ------
        InfrastructureError
            It failed, with the last line of its standard error, or its time is over.
        """
        status = self._popen.poll()
        if status is None:
            if time.monotonic() < self._give_up:
                return None
            self.kill()
            raise InfrastructureError("mlflow", f"{self._what} took longer than {self._timeout_s:g} s")
        output, errors = _content(self._output), _content(self._errors)
        self._close()
        if status:
            lines = errors.strip().splitlines()
            reason = lines[-1].removeprefix("mlflow: ") if lines else f"exit status {status}"
            raise InfrastructureError("mlflow", f"{self._what} failed: {reason}")
        return output

    def wait(self) -> str:
        """What it printed. Raises InfrastructureError as :meth:`poll`."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(max(self._give_up - time.monotonic(), 0))
        output = self.poll()
        assert output is not None
        return output

    def kill(self) -> None:
        """End it; harmless when it is done."""
        if self in _running:
            self._popen.kill()
            self._popen.wait()
            self._close()

    def _close(self) -> None:
        _running.discard(self)
        self._output.close()
        self._errors.close()


def _content(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")


@atexit.register
def _end_all() -> None:
    for process in list(_running):
        process.kill()
