"""Takes catalogue records into Redis (``c:<item_id>``), the newest of each item, whatever is delivered again."""

from __future__ import annotations

from collections.abc import Sequence

from millrace.features.calls import batched_calls
from millrace.features.intake import CatalogueEntry
from millrace.features.store import FeatureStore, load_script
from millrace.settings import FeatureSettings


class CatalogueWriter:
    """Writes catalogue entries. Raises InfrastructureError when Redis fails."""

    def __init__(self, store: FeatureStore, settings: FeatureSettings) -> None:
        self._store = store
        # The guard of a deleted entry lives as long as statistics do: longer than what may be delivered again.
        self._script = store.load(load_script("catalogue", {"GONE_TTL_MS": settings.item_ttl_ms}))

    def take(self, entries: Sequence[CatalogueEntry]) -> set[bytes]:
        """Write the entries, which are in order within each partition; returns the items' ids.

        All records of an item stand in one partition (they have one key), so that its last one in the batch counts.
        """
        if not entries:
            return set()
        newest: dict[bytes, bytes] = dict(entries)
        self._store.run(self._script, batched_calls({b"c:" + item: [packed] for item, packed in newest.items()}))
        return set(newest)
