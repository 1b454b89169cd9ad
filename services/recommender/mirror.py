"""Keeps the item table up to date from the compacted topic ``item-state``.

A thread reads the topic; the event loop applies what it read, a few states at a time, so that no request waits long
and nothing needs a lock.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import structlog

from millrace.ranking.item_table import ItemTable
from millrace.ranking.popular import PopularItems
from millrace.settings import KafkaSettings, StreamSettings
from millrace.stream.reader import TopicReader
from millrace.stream.worker import Record
from millrace.topics import ITEM_STATE
from millrace.v1.item_pb2 import ItemState
from services.recommender import metrics

log = structlog.stdlib.get_logger(__name__)

# States applied before requests get their turn: about 1 ms (40 µs each, 50 neighbours).
CHUNK_RECORDS = 25
# The lists of popular and new items follow at this pace: a tenth of a percent of the short half-life.
REFRESH_S = 0.25
# Silent items are looked for once a second, at most so many at a time, so that requests never wait long.
EXPIRE_EVERY_S = 1.0
EXPIRED_AT_ONCE = 200


class ItemMirror:
    """The item table of this process and the thread that feeds it.

    Parameters
    ----------
    item_ttl_ms
        An item without catalogue entry is dropped when no state came for so long.
    """

    def __init__(
        self, table: ItemTable, popular: PopularItems, kafka: KafkaSettings, stream: StreamSettings, item_ttl_ms: int
    ) -> None:
        self.table = table
        self.popular = popular
        self.caught_up = asyncio.Event()
        self._kafka = kafka
        self._stream = stream
        self._item_ttl_ms = item_ttl_ms
        self._loop = asyncio.get_running_loop()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, name="item-mirror", daemon=True)
        metrics.MIRROR_ITEMS_MAX.set(table.items_max)
        self._thread.start()

    async def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        await asyncio.to_thread(self._thread.join)

    def apply(self, records: Sequence[Record]) -> None:
        """Take records of ``item-state``, on the event loop."""
        for record in records:
            if record.message is None:
                self.table.drop((record.key or b"").decode("utf-8", "replace"))
                continue
            assert isinstance(record.message, ItemState)
            if not self.table.apply(record.message, record.append_time_ms):
                metrics.MIRROR_STALE.inc()

    def _read(self) -> None:
        with TopicReader(self._kafka, [ITEM_STATE], start="beginning", stream=self._stream) as reader:
            while not self._stop.is_set():
                records = reader.poll(max_records=10 * CHUNK_RECORDS, timeout_s=0.1)
                for start in range(0, len(records), CHUNK_RECORDS):
                    self._on_loop(records[start : start + CHUNK_RECORDS])
                metrics.MIRROR_LAG_RECORDS.set(reader.lag())
                if reader.caught_up and not self.caught_up.is_set():
                    self._loop.call_soon_threadsafe(self._after_catching_up)

    def _on_loop(self, records: Sequence[Record]) -> None:
        """Have the loop apply the records, and wait: at most one chunk is ahead of it."""
        applied = threading.Event()

        def apply() -> None:
            try:
                self.apply(records)
            finally:
                applied.set()

        self._loop.call_soon_threadsafe(apply)
        while not (applied.wait(0.1) or self._stop.is_set()):
            pass

    def _after_catching_up(self) -> None:
        if not self.caught_up.is_set():
            self.popular.refresh()
            self.caught_up.set()
            log.info("item state is complete", items=len(self.table))

    async def keep_up(self) -> None:
        """Refresh lists, drop silent items and set gauges, for ever."""
        expire_at = time.monotonic()
        while True:
            await asyncio.sleep(REFRESH_S)
            self.popular.refresh()
            if time.monotonic() >= expire_at:
                expire_at = time.monotonic() + EXPIRE_EVERY_S
                self.table.expire(int(time.time() * 1000) - self._item_ttl_ms, EXPIRED_AT_ONCE)
            metrics.MIRROR_ITEMS.set(len(self.table))
            metrics.MIRROR_EVICTED.set(self.table.evicted)
