"""Prometheus metrics of the outcome joiner. A bound on memory has a pair: what is held now, and the most."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

IMPRESSIONS = Counter(
    "millrace_joiner_impressions", "Impressions: opened, duplicate, refused (a dead letter).", ("verdict",)
)
INTERACTIONS = Counter(
    "millrace_joiner_interactions",
    "Interactions by what became of them (see millrace.outcomes.joiner.Verdict; refused: a dead letter).",
    ("verdict",),
)
SLOTS = Counter("millrace_joiner_slots", "Slots decided, by label and origin.", ("label", "origin"))
OPEN = Gauge("millrace_joiner_open_impressions", "Impressions with undecided slots.")
OPEN_MAX = Gauge("millrace_joiner_open_impressions_max", "Most of them; beyond, the oldest are decided early.")
CLOSED_EARLY = Counter("millrace_joiner_closed_early", "Impressions decided early because too many were open.")
WAITING = Gauge("millrace_joiner_waiting_interactions", "Interactions that wait for the answer that they name.")
CLICK_DELAY = Histogram(
    "millrace_joiner_click_delay_seconds",
    "Event time from an answer to an engagement with it: how long an attribution window has to be.",
    buckets=(1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1_200, 1_800, 3_600),
)
