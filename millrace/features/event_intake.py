"""What is taken of ``interactions`` into what ranking knows: recent sessions, and counts by circumstances."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from millrace.features.user_state import ENGAGEMENT_TYPES, session_number
from millrace.ranking.circumstances import Circumstances, circumstances
from millrace.ranking.context_counts import item_key
from millrace.ranking.corpus import Corpus
from millrace.v1.common_pb2 import Context
from millrace.v1.interaction_pb2 import InteractionType

# A producer repeats within seconds, a replay within minutes.
_IDS_KEPT = 100_000


class TakenEvent(Protocol):
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
    @property
    def context(self) -> Context | Circumstances: ...


class EventIntake:
    """Feeds one corpus. An event whose id came before counts once, as long as the id is among the last 100,000."""

    def __init__(self, corpus: Corpus) -> None:
        self._sessions, self._contexts = corpus.sessions, corpus.contexts
        self._ids: dict[tuple[str, str], None] = {}

    def take(self, event: TakenEvent) -> None:
        """Take an event that breaks no rule. Without an id it is like no other.

        FORGET takes a user's items out of sessions. Counts by circumstances do not say whose clicks they hold, and are
        gone after some half-lives.
        """
        if event.type == InteractionType.INTERACTION_TYPE_FORGET:
            self._sessions.forget(event.user_id)
        elif self._is_new(event) and event.type in ENGAGEMENT_TYPES:
            self._sessions.add(event.user_id, session_number(event.session_id), event.item_id, event.occurred_at_ms)
            self._count(event, 1.0)

    @contextmanager
    def without(self, event: TakenEvent) -> Iterator[None]:
        """Meanwhile counts are without an event that may have been taken: as they were before it."""
        taken = (event.user_id, event.event_id) in self._ids and event.type in ENGAGEMENT_TYPES
        if taken:
            self._count(event, -1.0)
        try:
            yield
        finally:
            if taken:
                self._count(event, 1.0)

    def _count(self, event: TakenEvent, times: float) -> None:
        self._contexts.add(circumstances_of(event), item_key(event.item_id), event.occurred_at_ms, times)

    def _is_new(self, event: TakenEvent) -> bool:
        if not event.event_id:
            return True
        key = event.user_id, event.event_id
        if key in self._ids:
            return False
        self._ids[key] = None
        if len(self._ids) > _IDS_KEPT:
            del self._ids[next(iter(self._ids))]
        return True


def circumstances_of(event: TakenEvent) -> Circumstances:
    """The circumstances of an event."""
    context = event.context
    return context if isinstance(context, tuple) else circumstances(context)
