"""How much later everything is learned: at once, or all that came since the last boundary in one go at the next."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from millrace.errors import MillraceError
from millrace.settings import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS

_UNITS_MS = {"s": SECOND_MS, "m": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS}
_TIME = re.compile(r"(\d+)([smhd])")
_SESSIONS = re.compile(r"(\d+)sessions")


@dataclass(frozen=True, slots=True)
class Lag:
    """A learning lag.

    Attributes
    ----------
    text
        As it was given.
    kind, every
        What ends at a boundary, and how much of it: milliseconds of event time (boundaries as of Unix time, so that
        hours and days are UTC's), sessions begun, or one period.
    """

    text: str
    kind: Literal["none", "time", "sessions", "period"]
    every: int = 0


def parse_lag(text: str) -> Lag:
    """A lag as ``0``, ``30s``, ``1m``, ``6h``, ``7d``, ``500sessions`` or ``period``. Raises MillraceError."""
    if text == "0":
        return Lag(text, "none")
    if text == "period":
        return Lag(text, "period")
    if (found := _TIME.fullmatch(text)) and int(found[1]):
        return Lag(text, "time", int(found[1]) * _UNITS_MS[found[2]])
    if (found := _SESSIONS.fullmatch(text)) and int(found[1]):
        return Lag(text, "sessions", int(found[1]))
    raise MillraceError(
        f"--lag: {text!r} is none of 0, a time (30s, 1m, 6h, 7d), a number of sessions (500sessions), period"
    )


class Boundaries:
    """Tells when a boundary has been reached."""

    def __init__(self, lag: Lag) -> None:
        self._lag = lag
        self._now: int | None = None
        self._sessions = 0

    def waits(self, period: int) -> bool:
        """Whether an event of this period waits for a boundary; else it is learned at once."""
        # The first period is there to begin with: it is learned as it comes.
        return self._lag.kind != "none" and not (self._lag.kind == "period" and period == 0)

    def reached(self, at_ms: int, period: int, new_session: bool) -> bool:
        """Whether a boundary lies between the event before this one and this one. Called once for each event."""
        kind, every = self._lag.kind, self._lag.every
        self._sessions += new_session
        now = {"none": 0, "time": at_ms // max(every, 1), "sessions": self._sessions // max(every, 1), "period": period}
        before = now[kind] if self._now is None else self._now
        self._now = max(before, now[kind])
        return self._now > before
