"""Asks whether enough of a changed world has come, now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from workers.retrain_orchestrator.errand import Errand

COLLECTED = ("-m", "workers.retrain_orchestrator.collected")
AGAIN_S = 60.0
"""Until the next count at least; counting reads what has come so far, a second or a few of a core."""
_AGAIN_SHARE = 0.1
"""Later, after so large a part of the time since the change: outcomes are not counted hundreds of times."""


class Collecting:
    """What came since the change, counted by a job; for one thread at a time.

    Parameters
    ----------
    job
        How the interpreter starts it; its own arguments follow.
    note
        Says why nothing happens.
    """

    def __init__(self, job: Sequence[str], note: Callable[[str], None]) -> None:
        self._job, self._note = job, note
        self._errand = Errand()
        self._again_at = 0.0

    def is_enough(self, since_ms: int) -> bool:
        """Whether what came since is known to be enough; does not wait. Raises MillraceError, as ``Errand.answer``."""
        if time.monotonic() < self._again_at:
            return False
        answer = self._errand.answer(f"count what came since {since_ms}", [*self._job, f"--since={since_ms}"])
        if answer is None:
            return False
        self._errand.stop()
        waited_s = time.time() - since_ms / 1_000
        self._again_at = time.monotonic() + max(AGAIN_S, _AGAIN_SHARE * waited_s)
        if answer.get("enough"):
            return True
        self._note(str(answer.get("problem") or f"too little has come so far: {answer.get('reason')}"))
        return False

    def stop(self) -> bool:
        """No job is wanted here, now; whether none works any more."""
        self._again_at = 0.0
        return self._errand.stop()
