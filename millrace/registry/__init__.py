"""Model versions: the truth (ledger), the decisions (reconcile), MLflow (registry) and copies on disk (cache).

``river_flavor`` stores any river model of a list in MLflow, for use outside Millrace too.
"""
