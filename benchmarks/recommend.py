"""Serving: requests per second and latency of one recommender process, and of its read of Redis.

10,000 items with 50 neighbours each, 20,000 sessions of five clicks, 5,000 users with 20 recent clicks. The limit of
the rate is a gRPC service that only echoes, loaded the same way; the limit of the read is a bare HMGET of the same
fields, one after the other.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from prometheus_client.parser import text_string_to_metric_families

from benchmarks import seed
from benchmarks.echo import echo
from benchmarks.environment import Say, Servers, process, servers
from benchmarks.load import Load, run_load
from benchmarks.redis_client import redis_client
from benchmarks.report import Row, latency_row, rate_row
from benchmarks.search import highest_held
from millrace.features.user_state import USER_FIELDS, user_key

ITEMS, USERS, SESSIONS, K = 10_000, 5_000, 20_000, 10
# The floor's rate, at which latency is reported, and the p99 that a rate must hold.
FLOOR_PER_S, P99_MAX_MS = 500, 20.0
# Rates that may be tried, each a good sixth above the one before.
RATES = tuple(round(FLOOR_PER_S * 1.18**step, -1) for step in range(-4, 24))
STEP_S, LATENCY_S = 1.5, 6.0
HMGET_SAMPLES = 2_000


def run(say: Say, bootstrap_servers: str = "", redis_url: str = "") -> list[Row]:
    """The rows ``recommend.requests_per_s``, ``recommend.latency_ms`` and ``features.read_ms``."""
    with servers(say, bootstrap_servers, redis_url) as at:
        say("putting items, users, sessions and a champion in")
        seed.publish_items(at.kafka, seed.item_states(ITEMS))
        users = seed.write_users(at.redis.url, USERS, ITEMS)
        clicks = seed.publish_sessions(at.kafka, SESSIONS, ITEMS)
        seed.promote_first_ranker(at.kafka)
        with process("services.recommender", at) as recommender:
            recommender.wait_ready(lambda state: state["events_read"] >= clicks)
            target = recommender.announced["grpc"]
            run_load(target, users, K, FLOOR_PER_S, 1.0)  # warm-up: connections, caches, the first growth of memory
            say(f"latency at {FLOOR_PER_S} requests/s")
            before = _read_buckets(recommender.metrics())
            at_floor = run_load(target, users, K, FLOOR_PER_S, LATENCY_S)
            reads = _read_buckets(recommender.metrics())
            reads[:, 1] -= before[:, 1]
            highest = _highest(target, users, say, at_floor.per_s if _held(at_floor) else 0.0)
        read_limit_ms = _bare_read_ms(at, users)
    with echo() as target:
        run_load(target, users, K, FLOOR_PER_S, 1.0)
        echo_at_floor = run_load(target, users, K, FLOOR_PER_S, 2.0)
        say("the limit: an echo")
        limit = _highest(target, users, say, highest)
    return [
        rate_row("recommend.requests_per_s", highest, "requests/s", limit),
        latency_row("recommend.latency_ms", at_floor.latencies_ms, echo_at_floor.p(50)),
        _read_row(reads, read_limit_ms),
    ]


def _highest(target: str, users: Sequence[str], say: Say, known: float = 0.0) -> float:
    """Answers per second at the highest of ``RATES`` whose p99 holds; ``known`` is one that did.

    A rate gets a second chance: two cores also run the generator, and one hiccup of the machine must not decide.
    """

    def attempt(rate: float) -> float | None:
        say(f"{rate:.0f} requests/s")
        loads = (run_load(target, users, K, rate, STEP_S, seed=chance) for chance in range(2))
        return next((load.per_s for load in loads if _held(load)), None)

    return highest_held(RATES, attempt, known) or known


def _held(load: Load) -> bool:
    return load.failed == 0 and load.p(99) < P99_MAX_MS


_Buckets = npt.NDArray[np.float64]


def _read_buckets(metrics: str) -> _Buckets:
    """Upper bounds (ms) and cumulative counts, float64[buckets, 2], of the service's own reads of Redis."""
    name = "millrace_recommender_features_read_seconds"
    return np.array(
        [
            (float(sample.labels["le"]) * 1000, sample.value)
            for family in text_string_to_metric_families(metrics)
            if family.name == name
            for sample in family.samples
            if sample.name == f"{name}_bucket"
        ]
    )


def _read_row(buckets: _Buckets, limit_ms: float) -> Row:
    bounds, counts = buckets[:, 0], buckets[:, 1]
    p50, p90, p99 = (_percentile(bounds, counts, percent) for percent in (50, 90, 99))
    return Row("features.read_ms", p50, "ms", limit_ms, p50 / limit_ms, p50, p90, p99, samples=int(counts[-1]))


def _percentile(bounds_ms: _Buckets, cumulative: _Buckets, percent: float) -> float:
    """A percentile from a histogram: linear inside its bucket (they are 20 % wide)."""
    rank = cumulative[-1] * percent / 100
    place = int(np.searchsorted(cumulative, rank))
    lower_bound, lower_count = (bounds_ms[place - 1], cumulative[place - 1]) if place else (0.0, 0.0)
    inside = (rank - lower_count) / (cumulative[place] - lower_count)
    return float(lower_bound + inside * (bounds_ms[place] - lower_bound))


def _bare_read_ms(at: Servers, users: Sequence[str]) -> float:
    samples = np.zeros(HMGET_SAMPLES)
    with redis_client(at.redis.url) as redis:
        for number in range(HMGET_SAMPLES):
            key = user_key(users[number % len(users)])
            started = time.perf_counter()
            redis.hmget(key, USER_FIELDS)
            samples[number] = time.perf_counter() - started
    return float(np.percentile(samples, 50) * 1000)
