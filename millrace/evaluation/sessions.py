"""Which events have an earlier one in their session: those that a next-in-session protocol asks for."""

from __future__ import annotations

from millrace.evaluation.stream import Event


class Sessions:
    """Sessions so far: by their id where it is given, else a user's events with gaps below ``gap_ms``."""

    def __init__(self, gap_ms: int) -> None:
        self._gap_ms = gap_ms
        self._known: set[tuple[str, str]] = set()
        self._last_ms: dict[str, int] = {}

    def continues(self, event: Event) -> bool:
        """Whether the session of this event, which is taken, had one before it."""
        user_id, at_ms = event.user_id, event.occurred_at_ms
        if event.session_id:
            session = user_id, event.session_id
            known = session in self._known
            self._known.add(session)
            return known
        last_ms = self._last_ms.get(user_id)
        self._last_ms[user_id] = at_ms
        return last_ms is not None and abs(at_ms - last_ms) < self._gap_ms
