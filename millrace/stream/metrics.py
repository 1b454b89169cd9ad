"""Prometheus metrics of the consumer runtime. Label ``worker`` is the worker's name everywhere.

Each bound on memory has a pair of gauges: what is held now and the most that may be held.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_WORKER = ("worker",)
_PARTITION = ("worker", "topic", "partition")

RECORDS = Counter("millrace_stream_records", "Records handled, dead letters included.", _PARTITION)
BATCH_RECORDS = Histogram(
    "millrace_stream_batch_records", "Records of a batch.", _WORKER, buckets=(1, 3, 10, 30, 100, 300, 1_000, 3_000)
)
BATCH_SECONDS = Histogram(
    "millrace_stream_batch_seconds",
    "Time of the worker on a batch.",
    _WORKER,
    # From a single event in a warm Redis (under 1 ms) to a batch that waits for a time limit.
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
DELAY_SECONDS = Histogram(
    "millrace_stream_delay_seconds",
    "From the broker's append of a batch's newest record to the end of its handling.",
    _WORKER,
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 300, 3_600),
)
NEWEST_AGE_SECONDS = Gauge(
    "millrace_stream_newest_age_seconds", "Age, by the broker's append time, of the newest record handled.", _WORKER
)
LAG_RECORDS = Gauge("millrace_stream_lag_records", "Records on the broker that are not handled yet.", _PARTITION)
COMMITTED_OFFSET = Gauge("millrace_stream_committed_offset", "Position that a restart would start from.", _PARTITION)
DEAD_LETTERS = Counter("millrace_stream_dead_letters", "Records that could not be handled.", ("worker", "topic"))
INFRASTRUCTURE_FAILURES = Counter(
    "millrace_stream_infrastructure_failures", "Times that a system failed the worker.", ("worker", "system")
)
COMMIT_FAILURES = Counter("millrace_stream_commit_failures", "Commits that failed; they are repeated.", _WORKER)
PAUSED = Gauge("millrace_stream_paused", "1 while a system is away and the worker waits for it.", _WORKER)
ASSIGNED_PARTITIONS = Gauge("millrace_stream_assigned_partitions", "Partitions of this process.", _WORKER)
PREFETCHED_BYTES = Gauge("millrace_stream_prefetched_bytes", "Data fetched ahead of the worker.", _WORKER)
PREFETCHED_MAX_BYTES = Gauge("millrace_stream_prefetched_max_bytes", "Most data fetched ahead.", _WORKER)
OUTPUT_PENDING_RECORDS = Gauge("millrace_stream_output_pending_records", "Records on their way to the broker.", _WORKER)
OUTPUT_PENDING_MAX_RECORDS = Gauge(
    "millrace_stream_output_pending_max_records", "Most records on their way to the broker.", _WORKER
)
OUTPUT_PENDING_BYTES = Gauge("millrace_stream_output_pending_bytes", "Data on its way to the broker.", _WORKER)
OUTPUT_PENDING_MAX_BYTES = Gauge(
    "millrace_stream_output_pending_max_bytes", "Most data on its way to the broker.", _WORKER
)
UNCOMMITTED_BATCHES = Gauge(
    "millrace_stream_uncommitted_batches", "Batches whose effects are not safe yet, so not committed.", _WORKER
)
READER_PREFETCHED_BYTES = Gauge(
    "millrace_stream_reader_prefetched_bytes", "Data fetched ahead of a mirror.", ("topics",)
)
READER_PREFETCHED_MAX_BYTES = Gauge(
    "millrace_stream_reader_prefetched_max_bytes", "Most data fetched ahead of a mirror.", ("topics",)
)
READER_SKIPPED = Counter("millrace_stream_reader_skipped", "Records that a mirror could not decode.", ("topic",))
