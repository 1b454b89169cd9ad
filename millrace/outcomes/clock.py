"""The joiner's clock: event time, moved on by the wall while nothing happens."""

from __future__ import annotations


class EventClock:
    """The newest plausible event time of one partition.

    An event time after its own append time is not plausible: one producer whose clock is ahead would close
    everybody's windows. In a replay of an old log the clock is the log's.

    Parameters
    ----------
    now_ms
        Where it stands, Unix milliseconds; 0 before the first event.
    """

    def __init__(self, now_ms: int = 0) -> None:
        self.now_ms = now_ms
        self._at_s: float | None = None

    def event(self, at_ms: int, append_time_ms: int) -> None:
        """An event happened."""
        self._at_s = None
        self.now_ms = max(self.now_ms, min(at_ms, append_time_ms))

    def idle(self, monotonic_s: float) -> None:
        """Nothing is left to read: time goes on by itself.

        ``monotonic_s``: monotonic time, seconds.
        """
        if self._at_s is not None and self.now_ms:
            passed_ms = int((monotonic_s - self._at_s) * 1_000)
            self.now_ms += passed_ms
            self._at_s += passed_ms / 1_000
        else:
            self._at_s = monotonic_s
