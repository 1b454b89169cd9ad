"""Whether new versions get experiments: as somebody chose, or as long as an experiment tracker is there."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from millrace.errors import InfrastructureError
from millrace.settings import RetrainSettings

log = structlog.stdlib.get_logger(__name__)

# The broker knows of a tracker that died for the length of its session: most of a minute.
_ASK_EVERY_S = 10.0


class Tracking:
    """Asks for the tracker now and then; for one thread at a time.

    Parameters
    ----------
    is_led
        Whether a tracker is there; may raise InfrastructureError.
    """

    def __init__(
        self,
        settings: RetrainSettings,
        is_led: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._is_led, self._clock = settings, is_led, clock
        self._ask_at = self._seen_at = clock()
        self._there = False

    def __call__(self) -> bool | None:
        """True: there are experiments. False: there are none. None: the tracker is away, and waited for."""
        if self._settings.experiments != "auto":
            return self._settings.experiments == "on"
        now = self._clock()
        if now >= self._ask_at:
            self._ask_at = now + _ASK_EVERY_S
            try:
                there = self._is_led()
            except InfrastructureError as error:
                # Not known: nothing changes, and time without an answer is no time without a tracker.
                log.warning("is there a tracker?", problem=str(error))
                self._seen_at = now
                return True if self._there else None
            if there != self._there:
                log.info("experiment tracker", there=there)
            self._there = there
        if self._there:
            self._seen_at = now
            return True
        return False if now - self._seen_at > self._settings.tracker_wait_ms / 1_000 else None
