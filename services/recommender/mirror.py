"""Keeps what is known of items up to date: their state from ``item-state``, what people do from ``interactions``.

A thread reads each topic; the event loop applies what it read, a few records at a time, so that no request waits long
and nothing needs a lock.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import structlog

from millrace.events.rules import keeps_rules
from millrace.features.event_intake import EventIntake
from millrace.ranking.corpus import Corpus
from millrace.settings import Settings
from millrace.stream.feed import Feed
from millrace.stream.reader import Newest, TopicReader
from millrace.stream.worker import Record
from millrace.topics import INTERACTIONS, ITEM_STATE
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.item_pb2 import ItemState
from services.recommender import metrics

log = structlog.stdlib.get_logger(__name__)

# Records applied before requests get their turn: about 1 ms (states with 50 neighbours take 40 µs each, events
# 10 µs, and those with six circumstances 20 µs more).
CHUNK_STATES, CHUNK_EVENTS = 25, 40
# The lists of popular and new items follow at this pace: a tenth of a percent of the short half-life.
REFRESH_S = 0.25
# Silent items are looked for once a second, at most so many at a time, so that requests never wait long.
EXPIRE_EVERY_S = 1.0
EXPIRED_AT_ONCE = 200


class ItemMirror:
    """The corpus of this process and the threads that feed it.

    Attributes
    ----------
    caught_up
        Set once the state of all items was read.
    events_read
        Events of ``interactions`` that were taken, or passed over.
    """

    def __init__(self, corpus: Corpus, settings: Settings) -> None:
        kafka, stream = settings.kafka, settings.stream
        self.corpus = corpus
        self.table, self.popular = corpus.table, corpus.popular
        self._item_ttl_ms = settings.features.item_ttl_ms
        self._intake = EventIntake(corpus)
        newest = Newest(settings.recommender.session_events_read)
        self._states = Feed(
            "item-mirror", lambda: TopicReader(kafka, [ITEM_STATE], "beginning", stream), CHUNK_STATES, self.apply
        )
        self._events = Feed(
            "session-mirror", lambda: TopicReader(kafka, [INTERACTIONS], newest, stream), CHUNK_EVENTS, self.take
        )
        self.caught_up = asyncio.Event()
        self.events_read = 0
        metrics.MIRROR_ITEMS_MAX.set(self.table.items_max)
        metrics.SESSIONS_MAX.set(settings.recommender.session_runs_max)
        self._states.start()
        self._events.start()

    @property
    def sessions_known(self) -> bool:
        """Whether the newest events at the time of the start were read."""
        return self._events.caught_up.is_set()

    async def close(self) -> None:
        """Stop reading."""
        await self._states.close()
        await self._events.close()

    def apply(self, records: Sequence[Record]) -> None:
        """Take records of ``item-state``, on the event loop."""
        for record in records:
            if record.message is None:
                self.table.drop((record.key or b"").decode("utf-8", "replace"))
                continue
            assert isinstance(record.message, ItemState)
            if not self.table.apply(record.message, record.append_time_ms):
                metrics.MIRROR_STALE.inc()

    def take(self, records: Sequence[Record]) -> None:
        """Take records of ``interactions``, on the event loop."""
        for record in records:
            if isinstance(record.message, Interaction) and keeps_rules(record.message):
                self._intake.take(record.message)
        self.events_read += len(records)

    async def keep_up(self) -> None:
        """Refresh lists, drop silent items and set gauges, for ever."""
        expire_at = time.monotonic()
        while True:
            await asyncio.sleep(REFRESH_S)
            self.popular.refresh()
            if self._states.caught_up.is_set() and not self.caught_up.is_set():
                self.caught_up.set()
                log.info("item state is complete", items=len(self.table))
            if time.monotonic() >= expire_at:
                expire_at = time.monotonic() + EXPIRE_EVERY_S
                self.table.expire(int(time.time() * 1000) - self._item_ttl_ms, EXPIRED_AT_ONCE)
            metrics.MIRROR_ITEMS.set(len(self.table))
            metrics.MIRROR_EVICTED.set(self.table.evicted)
            metrics.MIRROR_LAG_RECORDS.set(self._states.lag)
            metrics.SESSIONS.set(len(self.corpus.sessions))
            metrics.SESSIONS_LAG_RECORDS.set(self._events.lag)
