"""What is taken of ``interactions`` into an index of recent sessions."""

from __future__ import annotations

from typing import Protocol

from millrace.features.user_state import ENGAGEMENT_TYPES, session_number
from millrace.ranking.session_index import SessionIndex
from millrace.v1.interaction_pb2 import InteractionType

# A producer repeats within seconds, a replay within minutes.
_IDS_KEPT = 100_000


class SessionEvent(Protocol):
    """What is read of an event: an ``Interaction`` has it."""

    @property
    def event_id(self) -> str: ...
    @property
    def user_id(self) -> str: ...
    @property
    def item_id(self) -> str: ...
    @property
    def type(self) -> int: ...
    @property
    def occurred_at_ms(self) -> int: ...
    @property
    def session_id(self) -> str: ...


class SessionIntake:
    """Feeds one index. An event whose id came before counts once, as long as the id is among the last 100,000."""

    def __init__(self, index: SessionIndex) -> None:
        self._index = index
        self._ids: dict[tuple[str, str], None] = {}

    def take(self, event: SessionEvent) -> None:
        """Take an event that breaks no rule. Without an id it is like no other."""
        if event.type == InteractionType.INTERACTION_TYPE_FORGET:
            self._index.forget(event.user_id)
        elif self._is_new(event) and event.type in ENGAGEMENT_TYPES:
            self._index.add(event.user_id, session_number(event.session_id), event.item_id, event.occurred_at_ms)

    def _is_new(self, event: SessionEvent) -> bool:
        if not event.event_id:
            return True
        key = event.user_id, event.event_id
        if key in self._ids:
            return False
        self._ids[key] = None
        if len(self._ids) > _IDS_KEPT:
            del self._ids[next(iter(self._ids))]
        return True
