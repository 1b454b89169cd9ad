"""Prometheus metrics of the feature updater. A bound on memory has a pair: what is held now, and the most."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

INTERACTIONS = Counter(
    "millrace_features_interactions",
    "Interactions by verdict: accepted, duplicate (same event_id), known (delivered again without effect).",
    ("verdict",),
)
PUBLISHED = Counter("millrace_features_item_states", "Records sent to item-state: state or tombstone.", ("kind",))
PENDING_ITEMS = Gauge("millrace_features_pending_items", "Items whose new state waits to be published.")
PENDING_MAX_ITEMS = Gauge("millrace_features_pending_max_items", "Most items that wait to be published.")
EXPIRED_ITEMS = Counter("millrace_features_expired_items", "Items whose statistics expired.")
