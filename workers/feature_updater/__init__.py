"""interactions, items ──► feature_updater ──► features in Redis, item-state."""
