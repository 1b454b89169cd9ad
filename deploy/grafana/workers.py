"""The workers: batches, memory beside its bounds, what became of records."""

from __future__ import annotations

from deploy.grafana.panels import Dashboard, Panel, Row
from deploy.grafana.queries import OVER, bounded, mean, one, quantile_by, rate

WORKERS = Dashboard(
    "workers",
    "Millrace: workers",
    [
        Row(
            "Batches",
            [
                Panel(
                    "Time of a batch, p95",
                    "What the worker itself takes.",
                    "s",
                    [quantile_by("millrace_stream_batch_seconds", "worker")],
                ),
                one(
                    "Records of a batch, mean",
                    "Large batches: it catches up.",
                    "short",
                    mean("millrace_stream_batch_records", "worker"),
                    "{{worker}}",
                ),
                one(
                    "Age of the newest record handled",
                    "Grows while nothing comes, too.",
                    "s",
                    "max by (worker) (millrace_stream_newest_age_seconds)",
                    "{{worker}}",
                ),
                one(
                    "Lag by partition",
                    "One partition alone: a hot key, or a record that blocks.",
                    "short",
                    "sum by (worker, topic, partition) (millrace_stream_lag_records)",
                    "{{worker}} {{topic}}/{{partition}}",
                ),
                one(
                    "Partitions of a process",
                    "How they are shared out.",
                    "none",
                    "sum by (worker, instance) (millrace_stream_assigned_partitions)",
                    "{{worker}} {{instance}}",
                ),
                one(
                    "Batches not committed",
                    "Their effects are not safe yet.",
                    "short",
                    "sum by (worker) (millrace_stream_uncommitted_batches)",
                    "{{worker}}",
                ),
            ],
        ),
        Row(
            "Memory and its bounds",
            [
                bounded(
                    "Fetched ahead",
                    "Of the worker.",
                    "bytes",
                    "millrace_stream_prefetched_bytes",
                    "millrace_stream_prefetched_max_bytes",
                    "worker",
                ),
                bounded(
                    "On the way to the broker",
                    "Full: the worker waits.",
                    "bytes",
                    "millrace_stream_output_pending_bytes",
                    "millrace_stream_output_pending_max_bytes",
                    "worker",
                ),
                one(
                    "Fetched ahead of mirrors",
                    "Topics that are read whole.",
                    "bytes",
                    "sum by (process, topics) (millrace_stream_reader_prefetched_bytes)",
                    "{{process}} {{topics}}",
                ),
                bounded(
                    "Open impressions",
                    "Answers with undecided slots. At the bound, the oldest are decided early.",
                    "short",
                    "millrace_joiner_open_impressions",
                    "millrace_joiner_open_impressions_max",
                ),
                bounded(
                    "Items to be published",
                    "Of the feature updater.",
                    "short",
                    "millrace_features_pending_items",
                    "millrace_features_pending_max_items",
                ),
                bounded(
                    "Users of experiments",
                    "At the bound, more do not count.",
                    "short",
                    "millrace_tracker_users",
                    "millrace_tracker_users_max",
                ),
            ],
        ),
        Row(
            "What became of records",
            [
                one(
                    "Features: interactions",
                    "By verdict.",
                    "reqps",
                    rate("millrace_features_interactions_total", "verdict"),
                    "{{verdict}}",
                ),
                one(
                    "Joiner: interactions",
                    "By what became of them.",
                    "reqps",
                    rate("millrace_joiner_interactions_total", "verdict"),
                    "{{verdict}}",
                ),
                one(
                    "Joiner: slots decided",
                    "By label and origin.",
                    "reqps",
                    rate("millrace_joiner_slots_total", "label, origin"),
                    "{{label}} {{origin}}",
                ),
                one(
                    "Item states published",
                    "To the mirrors.",
                    "reqps",
                    rate("millrace_features_item_states_total", "kind"),
                    "{{kind}}",
                ),
                one(
                    "Drift: outcomes",
                    "By whether they are watched.",
                    "reqps",
                    rate("millrace_drift_outcomes_total", "result"),
                    "{{result}}",
                ),
                one(
                    "Tracker: outcomes",
                    "By what became of them.",
                    "reqps",
                    rate("millrace_tracker_outcomes_total", "result"),
                    "{{result}}",
                ),
            ],
        ),
        Row(
            "Processes",
            [
                one(
                    "Memory",
                    "Resident. Flat, once the mirrors are full.",
                    "bytes",
                    'sum by (process) (process_resident_memory_bytes{job="millrace"})',
                    "{{process}}",
                ),
                one(
                    "CPU",
                    "Cores.",
                    "short",
                    f'sum by (process) (rate(process_cpu_seconds_total{{job="millrace"}}{OVER}))',
                    "{{process}}",
                ),
                one(
                    "Open files", "Flat.", "short", 'sum by (process) (process_open_fds{job="millrace"})', "{{process}}"
                ),
            ],
        ),
    ],
)
