"""Publishes the state of items that changed to ``item-state``, and the end of those that expired.

One click touches several items, and a popular item is touched all the time: an item's changes of an interval are
published as one. What is published is read from Redis at that moment, so that several updaters may share an item.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from millrace.features.item_state import CATALOGUE_FIELDS, ITEM_FIELDS, decode_item
from millrace.features.metrics import EXPIRED_ITEMS, PENDING_ITEMS, PENDING_MAX_ITEMS, PUBLISHED
from millrace.features.store import Command, FeatureStore
from millrace.settings import FeatureSettings
from millrace.stream.worker import Output
from millrace.topics import ITEM_STATE
from millrace.v1.item_pb2 import ItemState

EXPIRY_KEY = "meta:item-expiry"
"""Sorted set: items with statistics, by the Unix milliseconds at which these are gone unless written again."""

_STATES, _TOMBSTONES = PUBLISHED.labels("state"), PUBLISHED.labels("tombstone")

# Items of one round trip. Some 80 µs each: clicks that come meanwhile wait for one slice, not for all that is due.
SLICE = 100
# An item may stay up to this long after it expired; its TTL is weeks.
SWEEP_INTERVAL_S = 10.0
# Most expired items of one sweep; the rest follow in the next.
SWEEP_MAX = 500


class ItemStatePublisher:
    """Keeps which items changed and publishes them in time.

    Every method that takes an output raises InfrastructureError when Redis or Kafka fails; what was not published
    by then is still pending.
    """

    def __init__(self, store: FeatureStore, settings: FeatureSettings, wall: Callable[[], float] = time.time) -> None:
        self._store = store
        self._settings = settings
        self._wall = wall
        # Item -> monotonic time of its oldest change that is not published; in the order of these times.
        self._pending: dict[bytes, float] = {}
        # Expired items that are looked at once more -> whether a tombstone was sent.
        self._expired: dict[bytes, bool] = {}
        self._sweep_at = self._round_at = 0.0
        PENDING_MAX_ITEMS.set(settings.pending_items_max)

    @property
    def pending_since(self) -> float | None:
        """Monotonic time of the oldest change that is not published; None if all are."""
        return next(iter(self._pending.values()), None)

    def mark(self, items: Iterable[bytes], now: float) -> None:
        """Note that the items' state may have changed."""
        pending = self._pending
        for item in items:
            pending.setdefault(item, now)

    def publish_due(self, now: float, output: Output, behind: bool) -> None:
        """Publish items whose interval is over, and what exceeds the bound on pending items.

        One slice at a time, so that clicks do not wait for long. While the worker is behind nobody waits for the
        effect of the next event: then all pending items at once, at longer intervals.
        """
        if behind:
            if now >= self._round_at or len(self._pending) > self._settings.pending_items_max:
                self._round_at = now + self._settings.publish_interval_behind_ms / 1000
                self.publish_all(output)
            return
        marked_until = now - self._settings.publish_interval_ms / 1000
        while due := self._due(marked_until):
            self._publish(due, output)
            if len(self._pending) <= self._settings.pending_items_max:
                break
        PENDING_ITEMS.set(len(self._pending))

    def publish_all(self, output: Output) -> None:
        """Publish everything that is pending."""
        while due := list(islice(self._pending, SLICE)):
            self._publish(due, output)
        PENDING_ITEMS.set(0)

    def sweep(self, now: float, output: Output) -> None:
        """From time to time, publish the end of items whose statistics expired.

        An item may come back while its end is on the way, written by another updater whose record then stands before
        ours: so it is looked at once more, and published again if it lives.
        """
        if now < self._sweep_at:
            return
        self._sweep_at = now + SWEEP_INTERVAL_S
        due: list[bytes] = self._store.ask("ZRANGEBYSCORE", EXPIRY_KEY, "-inf", self._wall_ms(), "LIMIT", 0, SWEEP_MAX)
        alive = []
        for item, has_statistics, state in self._read(due):
            if has_statistics:
                alive.append(item)
                continue
            self._send(item, state, output)
            EXPIRED_ITEMS.inc()
            self._expired[item] = state is None
            self._pending.setdefault(item, now)
        self._note_expiry(alive)

    def _due(self, marked_until: float) -> list[bytes]:
        surplus = len(self._pending) - self._settings.pending_items_max
        return [
            item
            for place, (item, marked_at) in enumerate(islice(self._pending.items(), SLICE))
            if marked_at <= marked_until or place < surplus
        ]

    def _publish(self, items: Sequence[bytes], output: Output) -> None:
        living, gone = [], []
        for item, has_statistics, state in self._read(items):
            if has_statistics:
                living.append(item)
            elif item in self._expired:
                gone.append(item)
            if state is not None or not self._expired.get(item, False):
                self._send(item, state, output)
        self._note_expiry(living)
        if gone:
            self._store.ask("ZREM", EXPIRY_KEY, *gone)
        for item in items:
            self._expired.pop(item, None)
            del self._pending[item]

    def _read(self, items: Sequence[bytes]) -> Iterator[tuple[bytes, bool, ItemState | None]]:
        """Each item, whether it has statistics, and its state (None: it is not in the catalogue either)."""

        def commands() -> Iterator[Command]:
            for item in items:
                yield "HMGET", b"i:" + item, *ITEM_FIELDS
                yield "HMGET", b"c:" + item, *CATALOGUE_FIELDS

        replies = iter(self._store.ask_all(commands()))
        for item, statistics, entry in zip(items, replies, replies, strict=True):
            # The first field, the packed numbers, is always there.
            yield item, statistics[0] is not None, decode_item(item.decode(), statistics, entry, self._settings)

    @staticmethod
    def _send(item: bytes, state: ItemState | None, output: Output) -> None:
        output.produce(ITEM_STATE, item.decode(), state)
        (_TOMBSTONES if state is None else _STATES).inc()

    def _note_expiry(self, items: Sequence[bytes]) -> None:
        """Note when the statistics of these items, written a moment ago at the latest, will be gone."""
        if items:
            at_ms = self._wall_ms() + self._settings.item_ttl_ms
            self._store.ask("ZADD", EXPIRY_KEY, *(part for item in items for part in (at_ms, item)))

    def _wall_ms(self) -> int:
        return int(self._wall() * 1000)
