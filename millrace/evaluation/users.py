"""Users in memory: what ``lua/users.lua`` keeps of them in Redis, event by event, for one process and one log."""

from __future__ import annotations

from collections import deque

from millrace.evaluation.stream import Event
from millrace.features.decay import DecayedSum
from millrace.features.user_state import (
    ENGAGEMENT_TYPES,
    Engagement,
    KnownPosition,
    UserState,
    engagements,
    session_number,
)
from millrace.features.writer import DISLIKED_KEPT
from millrace.settings import FeatureSettings
from millrace.v1.interaction_pb2 import InteractionType

_PURCHASE = InteractionType.INTERACTION_TYPE_PURCHASE
_DISLIKE = InteractionType.INTERACTION_TYPE_DISLIKE
_FORGET = InteractionType.INTERACTION_TYPE_FORGET


class MemoryUser:
    """One user. ``recent`` holds the engagements, newest first."""

    __slots__ = ("counts", "decayed", "disliked", "first_ms", "known", "last_ms", "paid", "recent", "seen")

    def __init__(self, dedup_window: int) -> None:
        self.counts: dict[int, int] = {}
        self.decayed: dict[int, DecayedSum] = {}
        self.first_ms = self.last_ms = 0
        self.paid = 0.0
        self.recent: list[Engagement] = []
        self.disliked: list[str] = []
        self.seen: deque[str] = deque(maxlen=dedup_window)
        self.known = KnownPosition(0, -1)

    def engagements(self, now_ms: int, half_life_ms: float) -> float:
        """Engagements decayed to ``now_ms``."""
        return engagements(self.decayed, now_ms, half_life_ms)

    def state(self) -> UserState | None:
        """What a recommender would read; None if nothing is known."""
        if not self.counts:
            return None
        return UserState(
            counts=self.counts,
            decayed=self.decayed,
            first_seen_ms=self.first_ms,
            last_seen_ms=self.last_ms,
            purchase_value=self.paid,
            # Copied by who keeps it: the next event of this user changes it.
            recent=tuple(self.recent),
            disliked=frozenset(self.disliked),
            known=self.known,
        )


class MemoryUsers:
    """All users."""

    def __init__(self, settings: FeatureSettings) -> None:
        self._settings = settings
        # How far back the walk for the session's items goes: as far as the script's (see writer.py).
        self._walk = settings.recent_kept - settings.user_batch_max
        self._users: dict[str, MemoryUser] = {}

    def __len__(self) -> int:
        return len(self._users)

    def get(self, user_id: str) -> MemoryUser | None:
        """What is kept of a user; None if nobody of this name was met."""
        return self._users.get(user_id)

    def take(self, event: Event, offset: int) -> list[str] | None:
        """Take the next event of the log.

        Returns
        -------
        The session's earlier items, nearest first (none for views and dislikes); None if the event does not count: a
        duplicate, or the user's erasure.
        """
        settings, event_id, kind, at_ms = self._settings, event.event_id, event.type, event.occurred_at_ms
        user = self._users.get(event.user_id)
        if user is None:
            user = self._users[event.user_id] = MemoryUser(settings.dedup_window)
        user.known = KnownPosition(0, offset)
        if kind == _FORGET:
            self._users[event.user_id] = forgotten = MemoryUser(settings.dedup_window)
            forgotten.known = user.known
            return None
        if event_id:
            if event_id in user.seen:
                return None
            user.seen.append(event_id)
        user.first_ms = min(user.first_ms or at_ms, at_ms)
        user.last_ms = max(user.last_ms, at_ms)
        user.counts[kind] = user.counts.get(kind, 0) + 1
        total = user.decayed.get(kind)
        user.decayed[kind] = (
            DecayedSum(1.0, at_ms) if total is None else total.plus(1.0, at_ms, settings.user_half_life_ms)
        )
        if kind in ENGAGEMENT_TYPES:
            return self._engage(user, event, offset)
        if kind == _DISLIKE and event.item_id not in user.disliked:
            user.disliked = [event.item_id, *user.disliked][:DISLIKED_KEPT]
        return []

    def _engage(self, user: MemoryUser, event: Event, offset: int) -> list[str]:
        session_id, item_id, at_ms = event.session_id, event.item_id, event.occurred_at_ms
        session = session_number(session_id)
        context = self._context(user.recent, item_id, at_ms, session)
        user.recent.insert(0, Engagement(item_id, event.type, at_ms, 0, offset, session))
        if len(user.recent) > self._settings.recent_kept:
            user.recent.pop()
        if event.type == _PURCHASE:
            user.paid += event.value
        return context

    def _context(self, recent: list[Engagement], item_id: str, at_ms: int, session: int) -> list[str]:
        """Earlier distinct items of the session."""
        items: list[str] = []
        most, gap_ms = self._settings.session_context, self._settings.session_gap_ms
        for earlier in recent[: self._walk]:
            if len(items) == most:
                break
            if earlier.session != session:
                continue
            if not session:
                if abs(at_ms - earlier.at_ms) >= gap_ms:
                    break
                at_ms = earlier.at_ms
            if earlier.item_id != item_id and earlier.item_id not in items:
                items.append(earlier.item_id)
        return items
