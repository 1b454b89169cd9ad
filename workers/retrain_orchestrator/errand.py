"""A job that is begun again until it has an answer, or has failed for good: one at a time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import structlog

from millrace.errors import MillraceError
from millrace.stream.backoff import Backoff
from workers.retrain_orchestrator.jobs import CANCELLED, NOT_ENOUGH, UNUSABLE, Job

log = structlog.stdlib.get_logger(__name__)

TRIES = 3
"""A job that was killed, or whose servers were away, is started so often by one process; then it has failed."""
_AGAIN_MAX_S = 60.0

_ENDING = {
    NOT_ENOUGH: "there is too little to learn from",
    UNUSABLE: "what there is cannot be learned from",
    CANCELLED: "the job was told to end",
}


class Errand:
    """The job that is under way, and how often it has failed."""

    def __init__(self) -> None:
        self._job: Job | None = None
        # Failures of the job of this name, and when it may be tried again.
        self._failed, self._failures, self._again_at = "", 0, 0.0
        self._backoff = Backoff(_AGAIN_MAX_S)

    def answer(self, name: str, arguments: Sequence[str]) -> dict[str, Any] | None:
        """What the job of this name says, which is begun unless it is there; None while it works.

        With ``problem`` if it has failed often enough; ``final`` says that it would say so again.

        Raises
        ------
        MillraceError
            This machine starts no process.
        """
        if self._job is not None and self._job.name != name:
            self.stop()
        if self._job is None:
            if time.monotonic() < self._again_at:
                return None
            log.info("begins", job=name)
            try:
                self._job = Job(name, arguments)
            except OSError as error:
                raise MillraceError(f"no job can be started on this machine: {error}") from error
        if self._job.name != name or self._job.status is None:
            return None
        status, answer = self._job.status, self._job.answer()
        if status == 0 and answer:
            self._failures = 0
            self._backoff.reset()
            return answer
        problem = answer.get("problem") or _ENDING.get(status, f"the job ended with status {status}")
        self._failures = self._failures + 1 if self._failed == name else 1
        self._failed = name
        self._again_at = time.monotonic() + self._backoff.next()
        self.stop()
        if status in _ENDING or self._failures >= TRIES:
            self._failures = 0
            return {"problem": problem, "final": status in _ENDING}
        log.warning("failed, is begun again", job=name, problem=problem)
        return None

    def stop(self) -> bool:
        """No job is wanted here, now; whether none works any more."""
        if self._job is not None and self._job.end():
            self._job = None
        return self._job is None
