"""Feeds the item table of the joiner's organic examples from ``item-state``, and stands for their part of Redis."""

from __future__ import annotations

import time

from millrace.errors import InfrastructureError
from millrace.features.store import FeatureStore
from millrace.outcomes.organic import OrganicExamples
from millrace.settings import Settings
from millrace.stream.reader import TopicReader
from millrace.topics import ITEM_STATE
from millrace.v1.item_pb2 import ItemState

# States taken at a tick: about 10 ms.
CHUNK_RECORDS = 250
# The lists of popular items follow at this pace, as in serving.
REFRESH_S = 0.25
# How long a restore reads before it gives the runtime its turn.
READ_S = 2.0


class OrganicSource:
    """Organic examples, and the connections that they need; made when the first partition comes."""

    def __init__(self, settings: Settings) -> None:
        self._kafka, self._stream = settings.kafka, settings.stream
        self._store = FeatureStore(settings.redis)
        self.examples = OrganicExamples(self._store, settings.joiner, settings.features, settings.recommender)
        self._reader: TopicReader | None = None
        self._refresh_at = 0.0

    def open(self) -> None:
        """Connect, and read ``item-state`` to its end.

        Raises
        ------
        InfrastructureError
            Redis or Kafka does not answer, or there is more to read: call again.
        """
        if not self._store.connected:
            self._store.connect()
        if self._reader is None:
            self._reader = TopicReader(self._kafka, [ITEM_STATE], "beginning", self._stream)
        give_up = time.monotonic() + READ_S
        while not self._reader.caught_up:
            if time.monotonic() > give_up:
                raise InfrastructureError("kafka", f"{ITEM_STATE.name} is not read yet")
            self._take(self._reader)
        self.examples.refresh()

    def follow(self, now: float) -> None:
        """Take new states (``now``: monotonic time, seconds)."""
        if self._reader is not None:
            self._take(self._reader, wait_s=0)
            if now >= self._refresh_at:
                self._refresh_at = now + REFRESH_S
                self.examples.refresh()

    def close(self) -> None:
        """Let go."""
        self._store.close()
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _take(self, reader: TopicReader, wait_s: float = 0.1) -> None:
        for record in reader.poll(CHUNK_RECORDS, timeout_s=wait_s):
            state = record.message if isinstance(record.message, ItemState) else None
            self.examples.apply((record.key or b"").decode("utf-8", "replace"), state, record.append_time_ms)
