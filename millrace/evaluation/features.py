"""Features in memory: what the feature updater, ``item-state`` and its mirrors do together, without any of them.

    event ──► MemoryUsers ── counts, with the session's earlier items ──► MemoryItems ──► ItemTable ──► PopularItems
                   └───────────────────────────────────────────────────► SessionIndex, ContextCounts

A property test holds users and table equal to what the scripts in Redis and the mirror make of the same events. What
is different: nothing expires, and an event is in the features at once, not after the 250 ms of ``item-state``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from types import MappingProxyType

from millrace.evaluation.items import MemoryItems
from millrace.evaluation.stream import Event
from millrace.evaluation.users import MemoryUser, MemoryUsers
from millrace.features.event_intake import EventIntake, circumstances_of
from millrace.ranking.circumstances import Circumstances
from millrace.ranking.corpus import Corpus
from millrace.ranking.item_table import NO_ROW
from millrace.settings import FeatureSettings, RecommenderSettings
from millrace.v1.interaction_pb2 import InteractionType


class MemoryFeatures:
    """Users, items and the lists of popular items after the events taken so far.

    Parameters
    ----------
    labels
        Of items, where a catalogue says them before there are events (``millrace.ranking.labels``).

    Attributes
    ----------
    corpus
        As candidates and features read it; up to date for a user after ``ready(user)``.
    table, popular
        Of the corpus.
    events
        Events taken.
    circumstances
        Of each user's newest event: what a request would know.
    """

    def __init__(
        self,
        settings: FeatureSettings,
        recommender: RecommenderSettings,
        labels: Mapping[str, list[int]] = MappingProxyType({}),
    ) -> None:
        self.corpus = Corpus.empty(settings, recommender)
        self.table, self.popular = self.corpus.table, self.corpus.popular
        self.users = MemoryUsers(settings)
        self.events = 0
        self.circumstances: dict[str, Circumstances] = {}
        self._intake = EventIntake(self.corpus)
        self._backward_weight = settings.backward_weight
        self._items = MemoryItems(settings, self.table, labels)

    def take(self, event: Event) -> bool:
        """Take the next event of the log; whether it counts."""
        context = self.meet(event)
        if context is None:
            return False
        self.learn(event, context)
        return True

    def meet(self, event: Event) -> list[str] | None:
        """Take the next event into its user's state alone; answers as ``MemoryUsers.take``."""
        context = self.users.take(event, self.events)
        self.events += 1
        if event.type == InteractionType.INTERACTION_TYPE_FORGET:
            # An erasure never waits to be learned.
            self._intake.take(event)
            self.circumstances.pop(event.user_id, None)
        else:
            self.circumstances[event.user_id] = circumstances_of(event)
        return context

    def learn(self, event: Event, context: Sequence[str]) -> None:
        """Take an event that was met into the items' state, with the session's earlier items."""
        item_id, at_ms = event.item_id, event.occurred_at_ms
        self._items.count(item_id, event.type, at_ms)
        for distance, earlier in enumerate(context, start=1):
            self._items.follow(earlier, item_id, 1 / distance, at_ms)
            if self._backward_weight:
                self._items.follow(item_id, earlier, self._backward_weight / distance, at_ms)
        self._intake.take(event)

    def offer(self, item_id: str, published_ms: int, labels: Sequence[int] = ()) -> None:
        """An item is on sale, new since ``published_ms``, with these labels; to be called before any event with it."""
        self._items.publish(item_id, published_ms, labels)

    def withdraw(self, item_id: str) -> None:
        """An item is not on sale any more: nobody gets it as an answer."""
        row = self.table.row_for(item_id)
        self.table.servable[row] = False
        self.table.touched.add(row)

    def ready(self, user: MemoryUser | None) -> None:
        """Bring table and lists up to date for a request of this user."""
        self._items.write()
        if user is not None:
            row_of = self.table.rows.get
            self._items.write_neighbours(row_of(one.item_id, NO_ROW) for one in user.recent)
        self.popular.refresh()

    def ready_all(self) -> None:
        """Bring all of the table up to date."""
        self._items.write()
        self._items.write_neighbours(islice(range(self.table.rows_used), 1, None))
        self.popular.refresh()
