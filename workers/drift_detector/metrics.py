"""Prometheus metrics of the drift detector."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

OUTCOMES = Counter(
    "millrace_drift_outcomes", "Outcomes met: watched, of another version or without a model, or late.", ("result",)
)
ANSWERS = Counter("millrace_drift_slots", "Served slots whose features were counted.", ("model",))
WATCHING = Gauge("millrace_drift_watching", "1 while the champion has a reference to be compared with.", ("model",))
LOOKS = Counter("millrace_drift_looks", "Comparisons of features and scores of a whole day.", ("model",))
SIGNALS = Gauge("millrace_drift_signals", "Signals that hold.", ("model", "channel"))
HOURS = Gauge("millrace_drift_windows", "Windows of an hour whose values are kept.", ("model",))
HOURS_MAX = Gauge("millrace_drift_windows_max", "Most of them.", ("model",))
