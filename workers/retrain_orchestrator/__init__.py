"""Looks after the versions of one model: its first version, its champion, the registry's aliases.

In: topics ``commands`` and ``experiments``. Out: topic ``model-events`` (the truth), MLflow's alias ``champion`` (its
projection), ``commands.dlq``. What is decided stands in ``millrace.registry.reconcile``; this folder is the wiring.
"""
