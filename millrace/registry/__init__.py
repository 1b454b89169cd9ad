"""Model versions: the truth (ledger), the decisions (reconcile), MLflow (registry) and copies on disk (cache)."""
