"""Prometheus metrics of the experiment tracker. A bound on memory has a pair: what is held now, and the most."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

OUTCOMES = Counter("millrace_tracker_outcomes", "Outcomes by what became of them.", ("result",))
# They are there from the start, so that a rate knows the first one too.
for _result in ("counted", "refused"):
    OUTCOMES.labels(_result)
COMMANDS = Counter("millrace_tracker_commands", "Commands about experiments: accepted or refused.", ("result",))
DECISIONS = Counter("millrace_tracker_decisions", "Decisions that ended an experiment.", ("kind",))
RUNNING = Gauge("millrace_tracker_running_experiments", "Experiments that get traffic.")
MISMATCHED = Gauge(
    "millrace_tracker_mismatched_experiments", "Experiments with traffic whose arms do not have the users they should."
)
USERS = Gauge("millrace_tracker_users", "Users of running experiments in memory.")
USERS_MAX = Gauge("millrace_tracker_users_max", "Most users in memory; more do not count.")
ANSWERS = Gauge("millrace_tracker_open_answers", "Answers of which some slots are decided.")
ANSWERS_MAX = Gauge("millrace_tracker_open_answers_max", "Most of them; beyond, the oldest do not count.")
ITEMS = Gauge("millrace_tracker_items", "Items in memory, by arm and partition, of experiments that look at coverage.")
ITEMS_MAX = Gauge("millrace_tracker_items_max", "Most of them for each arm and partition; others count as new ones.")
ANSWERS_DROPPED = Counter("millrace_tracker_answers_dropped", "Answers that do not count because too many were open.")
