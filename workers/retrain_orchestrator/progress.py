"""How far a training job has come, in its log."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

log = structlog.stdlib.get_logger(__name__)

STAGES = {
    "reading outcomes": 0.7,
    "searching": 0.1,
    "fitting": 0.06,
    "measuring": 0.03,
    "counting features": 0.06,
    "storing": 0.02,
    "at the gates": 0.03,
}
"""Share of the time that each stage takes of a job with half a million slots, in their order."""
_SAY_EVERY_S = 5.0


class Progress:
    """Says at each stage, and every few seconds inside it, what share of the job is done.

    Parameters
    ----------
    check
        Called at every step; may raise.
    """

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check
        self.stage = ""
        self._before, self._work, self._done = 0.0, 1.0, 0.0
        self._say_at = 0.0

    def begin(self, stage: str, work: float = 1.0) -> None:
        """A stage begins, which is so much work in a unit of its own."""
        self._check()
        self.stage, self._work, self._done = stage, max(work, 1.0), 0.0
        self._before = sum(list(STAGES.values())[: list(STAGES).index(stage)])
        self._say()

    def did(self, work: float) -> None:
        """So much more of the stage is done."""
        self._check()
        self._done += work
        if time.monotonic() >= self._say_at:
            self._say()

    @property
    def share(self) -> float:
        """Of the whole job."""
        return self._before + STAGES[self.stage] * min(self._done / self._work, 1.0)

    def _say(self) -> None:
        self._say_at = time.monotonic() + _SAY_EVERY_S
        log.info("training", stage=self.stage, done=f"{self.share:.0%}")
