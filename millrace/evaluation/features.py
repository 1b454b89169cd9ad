"""Features in memory: what the feature updater, ``item-state`` and its mirrors do together, without any of them.

    event ──► MemoryUsers ── counts, with the session's earlier items ──► MemoryItems ──► ItemTable ──► PopularItems

A property test holds users and table equal to what the scripts in Redis and the mirror make of the same events. What
is different: nothing expires, and an event is in the features at once, not after the 250 ms of ``item-state``.
"""

from __future__ import annotations

from itertools import islice

from millrace.evaluation.items import MemoryItems
from millrace.evaluation.users import MemoryUser, MemoryUsers
from millrace.ranking.features import HalfLives
from millrace.ranking.item_table import ItemTable
from millrace.ranking.popular import PopularItems
from millrace.settings import FeatureSettings
from millrace.v1.interaction_pb2 import Interaction

ITEMS_MAX = 1_000_000
"""Most items of a stream. The table's memory is committed as it fills."""


class MemoryFeatures:
    """Users, items and the lists of popular items after the events taken so far.

    Attributes
    ----------
    table, popular
        As candidates and features read them; up to date for a user after ``ready(user)``.
    events
        Events taken.
    """

    def __init__(self, settings: FeatureSettings, items_max: int = ITEMS_MAX) -> None:
        half_lives = HalfLives(settings.half_life_short_ms, settings.half_life_long_ms)
        self.table = ItemTable(items_max, settings.neighbours_kept, half_lives)
        self.popular = PopularItems(self.table)
        self.users = MemoryUsers(settings)
        self.events = 0
        self._items = MemoryItems(settings, self.table)

    def take(self, event: Interaction) -> bool:
        """Take the next event of the log; whether it counts."""
        context = self.users.take(event, self.events)
        self.events += 1
        if context is None:
            return False
        item_id, at_ms = event.item_id, event.occurred_at_ms
        self._items.count(item_id, event.type, at_ms)
        for distance, earlier in enumerate(context, start=1):
            self._items.follow(earlier, item_id, 1 / distance, at_ms)
        return True

    def ready(self, user: MemoryUser | None) -> None:
        """Bring table and lists up to date for a request of this user."""
        self._items.write()
        if user is not None:
            row_of = self.table.rows
            self._items.write_neighbours(row_of[one.item_id] for one in user.recent)
        self.popular.refresh()

    def ready_all(self) -> None:
        """Bring all of the table up to date."""
        self._items.write()
        self._items.write_neighbours(islice(range(self.table.rows_used), 1, None))
        self.popular.refresh()
