"""Feeds what the joiner's organic examples know of items, from ``item-state`` and ``interactions``; and their Redis."""

from __future__ import annotations

import time

from millrace.errors import InfrastructureError
from millrace.events.rules import keeps_rules
from millrace.features.store import FeatureStore
from millrace.outcomes.organic import OrganicExamples
from millrace.settings import Settings
from millrace.stream.reader import Newest, TopicReader
from millrace.topics import INTERACTIONS, ITEM_STATE
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.item_pb2 import ItemState
from millrace.warm_up import warm_up_ranking

# Records taken at a tick: about 10 ms for states, and for events 10 ms, or 30 ms if they have six circumstances each.
CHUNK_STATES, CHUNK_EVENTS = 250, 1_000
# The lists of popular items follow at this pace, as in serving.
REFRESH_S = 0.25
# How long a restore reads before it gives the runtime its turn.
READ_S = 2.0


class OrganicSource:
    """Organic examples, and the connections that they need; made when the first partition comes."""

    def __init__(self, settings: Settings) -> None:
        warm_up_ranking()
        self._kafka, self._stream = settings.kafka, settings.stream
        self._store = FeatureStore(settings.redis)
        self.examples = OrganicExamples(self._store, settings.joiner, settings.features, settings.recommender)
        self._events_read = settings.recommender.session_events_read
        self._states: TopicReader | None = None
        self._events: TopicReader | None = None
        self._refresh_at = 0.0

    def open(self) -> None:
        """Connect, read ``item-state`` to its end, and of ``interactions`` what recent sessions are known from.

        Raises
        ------
        InfrastructureError
            Redis or Kafka does not answer, or there is more to read: call again.
        """
        if not self._store.connected:
            self._store.connect()
        if self._states is None:
            self._states = TopicReader(self._kafka, [ITEM_STATE], "beginning", self._stream)
        if self._events is None:
            self._events = TopicReader(self._kafka, [INTERACTIONS], Newest(self._events_read), self._stream)
        give_up = time.monotonic() + READ_S
        for reader in (self._states, self._events):
            while not reader.caught_up:
                if time.monotonic() > give_up:
                    raise InfrastructureError("kafka", "item-state and the newest interactions are not read yet")
                self._take(reader, CHUNK_STATES)
        self.examples.refresh()

    def follow(self, now: float) -> None:
        """Take new states and events (``now``: monotonic time, seconds)."""
        if self._states is not None and self._events is not None:
            self._take(self._states, CHUNK_STATES, wait_s=0)
            self._take(self._events, CHUNK_EVENTS, wait_s=0)
            if now >= self._refresh_at:
                self._refresh_at = now + REFRESH_S
                self.examples.refresh()

    def close(self) -> None:
        """Let go."""
        self._store.close()
        for reader in (self._states, self._events):
            if reader is not None:
                reader.close()
        self._states = self._events = None

    def _take(self, reader: TopicReader, most: int, wait_s: float = 0.1) -> None:
        for record in reader.poll(most, timeout_s=wait_s):
            if isinstance(record.message, Interaction):
                if keeps_rules(record.message):
                    self.examples.take(record.message)
            else:
                state = record.message if isinstance(record.message, ItemState) else None
                self.examples.apply((record.key or b"").decode("utf-8", "replace"), state, record.append_time_ms)
