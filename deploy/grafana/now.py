"""How it goes now: what users get, how fresh it is, what flows, who is there."""

from __future__ import annotations

from deploy.grafana.panels import Dashboard, Panel, Row
from deploy.grafana.queries import OVER, one, quantile_by, quantiles, rate

NOW = Dashboard(
    "now",
    "Millrace: now",
    [
        Row(
            "What users get",
            [
                one(
                    "Answers",
                    "Recommendations by status: anything but OK lacks features or a model.",
                    "reqps",
                    rate("millrace_recommender_answers_total", "status"),
                    "{{status}}",
                ),
                Panel(
                    "Time of an answer",
                    "In the recommender. The promise is 50 ms at p99.",
                    "s",
                    quantiles("millrace_recommender_request_seconds", '{method="Recommend"}'),
                ),
                one(
                    "Fallbacks",
                    "Answers that had to do without something, by what.",
                    "reqps",
                    rate("millrace_recommender_answers_total", "fallback", '{fallback!="FALLBACK_NONE"}'),
                    "{{fallback}}",
                ),
            ],
        ),
        Row(
            "How fresh it is",
            [
                Panel(
                    "From the broker to the end of handling, p95",
                    "Of feature_updater: from a click to features. Below a second.",
                    "s",
                    [quantile_by("millrace_stream_delay_seconds", "worker")],
                ),
                Panel(
                    "From parameters to serving with them",
                    "Appended to model-updates, and used by the recommender.",
                    "s",
                    quantiles("millrace_recommender_update_delay_seconds"),
                ),
                one(
                    "Lag",
                    "Records on the broker that are not handled yet. Rising and never falling: too few processes.",
                    "short",
                    "sum by (worker) (millrace_stream_lag_records)",
                    "{{worker}}",
                ),
            ],
        ),
        Row(
            "What flows",
            [
                one(
                    "Records handled",
                    "By worker.",
                    "reqps",
                    rate("millrace_stream_records_total", "worker"),
                    "{{worker}}",
                ),
                one("Slots learned", "By label.", "reqps", rate("millrace_learner_slots_total", "label"), "{{label}}"),
                one(
                    "Dead letters",
                    "Records that could not be handled: `millrace dlq ls` says why.",
                    "short",
                    f"sum by (worker, topic) (increase(millrace_stream_dead_letters_total{OVER}))",
                    "{{worker}} {{topic}}",
                ),
            ],
        ),
        Row(
            "Who is there",
            [
                one(
                    "Processes",
                    "That answer Prometheus.",
                    "none",
                    'sum by (process) (up{job="millrace"})',
                    "{{process}}",
                ),
                one(
                    "Waiting for a system",
                    "1: Kafka, Redis or MLflow is away.",
                    "bool",
                    "max by (worker) (millrace_stream_paused)",
                    "{{worker}}",
                ),
                one("Alerts", "That fire.", "none", 'count(ALERTS{alertstate="firing"}) or vector(0)', "firing"),
            ],
        ),
    ],
)
