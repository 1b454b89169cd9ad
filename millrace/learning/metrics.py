"""Prometheus metrics of the online learner. A bound on memory has a pair: what is held now, and the most."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

SLOTS = Counter(
    "millrace_learner_slots", "Slots learned, by label and origin of their impression.", ("label", "origin")
)
UPDATES = Counter("millrace_learner_updates", "Parameter updates published.", ("model",))
SNAPSHOTS = Counter("millrace_learner_snapshots", "Snapshots published.", ("model",))
UPDATE_SECONDS = Histogram(
    "millrace_learner_update_seconds",
    "Time to learn what is in the buffer and publish the parameters.",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1, 2.5),
)
CHECKPOINTS = Counter(
    "millrace_learner_checkpoints", "Checkpoints stored in MLflow, or tried in vain.", ("model", "result")
)
LOG_LOSS = Counter(
    "millrace_learner_log_loss_nats",
    "Summed log loss of the predictions made before each slot was learned.",
    ("model",),
)
BUFFER = Gauge("millrace_learner_buffer_slots", "Slots that wait to be learned.")
BUFFER_MAX = Gauge("millrace_learner_buffer_slots_max", "Slots at which the buffer is learned at once.")
PARAMETERS = Gauge("millrace_learner_parameters", "Serving parameters of the model.", ("model",))
PARAMETERS_MAX = Gauge("millrace_learner_parameters_max", "Most of them: the feature schema bounds them.", ("model",))
EPOCH = Gauge("millrace_learner_epoch", "Epoch of the line of learning.", ("model",))
SEQUENCE = Gauge("millrace_learner_sequence", "Number of its last update.", ("model",))
