"""What learns and is tried: the online learner, experiments, drift."""

from __future__ import annotations

from deploy.grafana.panels import Dashboard, Panel, Query, Row
from deploy.grafana.queries import bounded, one, quantiles, rate

LEARNING = Dashboard(
    "learning",
    "Millrace: learning, experiments, drift",
    [
        Row(
            "Online learner",
            [
                one(
                    "Updates",
                    "Published by the second.",
                    "reqps",
                    rate("millrace_learner_updates_total", "model"),
                    "{{model}}",
                ),
                Panel(
                    "Time of an update",
                    "To learn what is in the buffer and publish.",
                    "s",
                    quantiles("millrace_learner_update_seconds"),
                ),
                bounded(
                    "Buffer",
                    "At the bound it is learned at once.",
                    "short",
                    "millrace_learner_buffer_slots",
                    "millrace_learner_buffer_slots_max",
                ),
                one(
                    "Log loss before learning",
                    "Nats for each slot: how surprising outcomes are.",
                    "short",
                    f"{rate('millrace_learner_log_loss_nats_total')} / {rate('millrace_learner_slots_total')}",
                    "log loss",
                ),
                Panel(
                    "Sequence",
                    "Of the learner's last update, and of what serves.",
                    "none",
                    [
                        Query("max by (model) (millrace_learner_sequence)", "{{model}} learned"),
                        Query("min by (model) (millrace_recommender_model_sequence)", "{{model}} served"),
                    ],
                ),
                one(
                    "Checkpoints",
                    "That a rollback can choose.",
                    "none",
                    "max by (model) (millrace_recommender_checkpoints)",
                    "{{model}}",
                ),
            ],
        ),
        Row(
            "Experiments",
            [
                one(
                    "Answers by arm",
                    "Served, or unavailable: then the champion answered.",
                    "reqps",
                    rate("millrace_recommender_arm_answers_total", "experiment, arm, result"),
                    "{{experiment}} {{arm}} {{result}}",
                ),
                Panel(
                    "Experiments",
                    "With traffic, and those whose split is broken.",
                    "none",
                    [
                        Query("max (millrace_tracker_running_experiments)", "running"),
                        Query("max (millrace_tracker_mismatched_experiments)", "mismatched"),
                    ],
                ),
                one("Arms missing", "On a recommender.", "none", "max (millrace_recommender_arms_missing)", "arms"),
            ],
        ),
        Row(
            "Drift and models",
            [
                one(
                    "Drift signals",
                    "That hold, by channel.",
                    "none",
                    "max by (model, channel) (millrace_drift_signals) or max by (model) (millrace_drift_watching) * 0",
                    "{{model}} {{channel}}",
                ),
                one(
                    "Champion is watched",
                    "0: it has no reference, as the first version.",
                    "bool",
                    "max by (model) (millrace_drift_watching)",
                    "{{model}}",
                ),
                one(
                    "Since all was in order",
                    "The orchestrator looks every two seconds.",
                    "s",
                    "time() - max by (model) (millrace_orchestrator_reconciled_timestamp_seconds)",
                    "{{model}}",
                ),
            ],
        ),
    ],
)
