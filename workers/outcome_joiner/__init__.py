"""impressions, interactions ──► outcome_joiner ──► outcomes."""
