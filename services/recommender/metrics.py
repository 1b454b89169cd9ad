"""Prometheus metrics of the recommender. Each bound on memory has a gauge for what is held and one for the bound."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

# From 0.1 ms to 0.1 s in steps of 20 %: percentiles are read from the buckets.
FINE_BUCKETS_S = tuple(0.0001 * 1.2**step for step in range(39))

REQUESTS = Counter("millrace_recommender_requests", "Requests by method and gRPC status.", ("method", "code"))
REQUEST_SECONDS = Histogram(
    "millrace_recommender_request_seconds",
    "Time from a request's arrival to its answer.",
    ("method",),
    buckets=FINE_BUCKETS_S,
)
UNDER_WAY = Gauge("millrace_recommender_requests_under_way", "Requests that are being answered.")
UNDER_WAY_MAX = Gauge("millrace_recommender_requests_under_way_max", "Most of them; more are refused at once.")
ANSWERS = Counter("millrace_recommender_answers", "Answers by status and fallback.", ("status", "fallback"))
SHUFFLED = Counter("millrace_recommender_shuffled_answers", "Answers in random order, by which models are evaluated.")
FEATURES_READ_SECONDS = Histogram(
    "millrace_recommender_features_read_seconds", "Time to read a user's features from Redis.", buckets=FINE_BUCKETS_S
)
FEATURES_FAILURES = Counter("millrace_recommender_features_failures", "Reads of Redis that failed.")
CANDIDATES = Histogram(
    "millrace_recommender_candidates", "Candidates ranked for an answer.", buckets=(0, 1, 10, 30, 100, 200, 300, 1_000)
)
MIRROR_ITEMS = Gauge("millrace_recommender_mirror_items", "Items whose state is in memory.")
MIRROR_ITEMS_MAX = Gauge("millrace_recommender_mirror_items_max", "Most items whose state may be in memory.")
MIRROR_EVICTED = Gauge("millrace_recommender_mirror_evicted", "Items dropped because the mirror was full.")
MIRROR_LAG_RECORDS = Gauge("millrace_recommender_mirror_lag_records", "Records of item-state not read yet.")
MIRROR_STALE = Counter("millrace_recommender_mirror_stale", "Item states passed over because a newer one was there.")
SESSIONS = Gauge("millrace_recommender_sessions", "Recent sessions in memory.")
SESSIONS_MAX = Gauge("millrace_recommender_sessions_max", "Most sessions in memory; the oldest make room.")
SESSIONS_LAG_RECORDS = Gauge("millrace_recommender_sessions_lag_records", "Records of interactions not read yet.")
IMPRESSIONS_PENDING = Gauge("millrace_recommender_impressions_pending", "Impressions on their way to the broker.")
IMPRESSIONS_PENDING_MAX = Gauge(
    "millrace_recommender_impressions_pending_max", "Most impressions on their way; more are dropped."
)
IMPRESSIONS_DROPPED = Counter(
    "millrace_recommender_impressions_dropped", "Impressions that did not reach the broker.", ("reason",)
)
MODEL_VERSION = Gauge("millrace_recommender_model_version", "1 for the version that ranks.", ("model", "version"))
MODEL_EPOCH = Gauge(
    "millrace_recommender_model_epoch", "Epoch of the parameters that rank; 0: as registered.", ("model",)
)
MODEL_SEQUENCE = Gauge("millrace_recommender_model_sequence", "Last parameter update that is included.", ("model",))
MODEL_UPDATES = Counter(
    "millrace_recommender_model_updates",
    "Records of model-updates: applied, passed, gap (waits for a snapshot), refused.",
    ("model", "result"),
)
CHECKPOINTS = Gauge("millrace_recommender_checkpoints", "Checkpoints on disk that a rollback can choose.", ("model",))
UPDATE_DELAY_SECONDS = Histogram(
    "millrace_recommender_update_delay_seconds",
    "Time from the broker's append of parameters to serving with them.",
    buckets=FINE_BUCKETS_S,
)
EXPERIMENTS = Gauge("millrace_recommender_experiments", "Experiments that get traffic.")
ARMS_MISSING = Gauge(
    "millrace_recommender_arms_missing", "Arms that are not here: the champion answers in their place."
)
ARM_ANSWERS = Counter(
    "millrace_recommender_arm_answers",
    "Answers of arms: served, or unavailable (the champion answered).",
    ("experiment", "arm", "result"),
)
