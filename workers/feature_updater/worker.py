"""The feature updater: what users do and what the catalogue says, as features.

    interactions ──► u:<user_id> ──┐ accepted, with the session's earlier items
                                   └──► i:<item_id> ──┐
    items ─────────────────────────────► c:<item_id> ──┴──► item-state

A batch is checked (what breaks a rule becomes a dead letter), then written: users first, whose state says which
events are new and what the session held, then items. Every key keeps the newest offset that it includes, in the same
atomic write as its features, so that any part of the stream may come again. The state of items that changed is
published a moment later, the changes of that moment as one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from millrace.errors import InvalidField
from millrace.features.catalogue import CatalogueWriter
from millrace.features.intake import CatalogueEntry, Event, read_entry, read_interaction
from millrace.features.limits import check_ttls
from millrace.features.metrics import INTERACTIONS as INTERACTIONS_METRIC
from millrace.features.publisher import ItemStatePublisher
from millrace.features.store import FeatureStore
from millrace.features.topic_guard import check_topics
from millrace.features.writer import FeatureWriter
from millrace.settings import FeatureSettings, RedisSettings
from millrace.stream.worker import Assignment, Output, Partition, Record
from millrace.topics import INTERACTIONS, ITEMS, Topic

# How often a Redis that nobody writes to is asked whether it is still the same one: with the second that it may
# lose, well inside the durability margin of two.
VERIFY_INTERVAL_S = 0.5


class FeatureUpdater:
    """Keeps features in Redis and publishes the state of items. See ``millrace.stream.worker.Worker``."""

    name = "feature_updater"
    topics: Sequence[Topic] = (INTERACTIONS, ITEMS)
    assignment = Assignment.SHARED

    def __init__(self, redis: RedisSettings, features: FeatureSettings) -> None:
        check_ttls(features)
        self._behind_ms = features.publish_interval_behind_ms
        self._store = FeatureStore(redis)
        self._features = FeatureWriter(self._store, features)
        self._catalogue = CatalogueWriter(self._store, features)
        self._publisher = ItemStatePublisher(self._store, features)
        # Whether the last batch was an old one, and whether it came since the last tick.
        self._behind = self._busy = False
        self._verify_at = self._heard_at = 0.0
        self._begun_at: float | None = None

    @property
    def pending_since(self) -> float | None:
        """Monotonic time of the oldest event whose items are not written, or not published."""
        return min((at for at in (self._begun_at, self._publisher.pending_since) if at is not None), default=None)

    def restore(self, partitions: Sequence[Partition], topic_ids: Mapping[str, str]) -> Mapping[Partition, int]:
        """Connect to Redis. After a failure everything since the last safe position comes again: see ``store``."""
        del partitions
        if self._store.connected:
            # Partitions were added to others that are under way. A connection made anew here would hide from those
            # that something may be lost.
            self._store.verify()
        else:
            self._store.connect()
            self._features.drop()
            self._begun_at = None
        check_topics(self._store, topic_ids)
        return {}

    def on_batch(self, records: Sequence[Record], output: Output) -> None:
        """Take interactions and catalogue entries into the features."""
        events, entries = self._checked(records, output)
        self._finish()
        if self._behind:
            self._publisher.publish_due(time.monotonic(), output, behind=True)
        self._begun_at = time.monotonic()
        self._features.begin(events)
        self._publisher.mark(self._catalogue.take(entries), self._begun_at)
        self._behind = self._busy = time.time() * 1000 - records[-1].append_time_ms > self._behind_ms

    def on_tick(self, now: float, output: Output) -> None:
        """Publish what is due, and the end of items that expired; notice a Redis that went away meanwhile."""
        if self._busy and now < self._heard_at + VERIFY_INTERVAL_S:
            # A batch has just begun and there are more: to wait for it here would let Redis and this process wait
            # for each other in turns. The answers to the one before it say that Redis was there.
            self._busy = False
            return
        self._finish()
        self._publisher.publish_due(now, output, self._behind)
        self._publisher.sweep(now, output)
        if now >= self._verify_at:
            self._verify_at = now + VERIFY_INTERVAL_S
            self._store.verify()

    def _finish(self) -> None:
        """Write the items of the batch that was begun last."""
        if self._begun_at is None:
            return
        changed, verdicts = self._features.finish()
        self._publisher.mark(changed, self._begun_at)
        self._heard_at, self._begun_at = self._begun_at, None
        for verdict, count in verdicts.items():
            INTERACTIONS_METRIC.labels(verdict).inc(count)

    def revoke(self, partitions: Sequence[Partition]) -> None:
        """Nothing is kept per partition: items still pending are published as they then stand, here and there."""

    def close(self, output: Output) -> None:
        """Finish and publish what is pending."""
        self._finish()
        self._publisher.publish_all(output)
        self._store.close()

    @staticmethod
    def _checked(records: Sequence[Record], output: Output) -> tuple[list[Event], list[CatalogueEntry]]:
        """What the records hold; those that break a rule become dead letters."""
        events, entries = [], []
        for record in records:
            try:
                if record.topic == INTERACTIONS.name:
                    events.append(read_interaction(record))
                else:
                    entries.append(read_entry(record))
            except InvalidField as error:
                output.reject(record, error)
        return events, entries
