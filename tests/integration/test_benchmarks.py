"""Every benchmark, short: it runs on servers of its own and gives the rows that it promises. Figures are not judged."""

from __future__ import annotations

import math
from types import ModuleType

import pytest

from benchmarks import experiments, freshness, gateway, learning, promotion, recommend, rollback, simulation, workers

SHORT: dict[ModuleType, dict[str, object]] = {
    freshness: {"WARM_UP_S": 1.0, "PROBING_S": 2.0, "LIMIT_S": 0.5},
    workers: {"EVENTS": 10_000, "REDIS_LIMIT_EVENTS": 2_000},
    learning: {"ANSWERS": 1_000, "OUTCOMES_MADE": 1_000, "PROBING_S": 2.0},
    experiments: {"ANSWERS": 1_000},
    rollback: {"ROLLBACKS": 4, "ITEMS": 200},
    promotion: {"PROMOTIONS": 2, "ITEMS": 200},
    recommend: {
        "STEP_S": 0.3,
        "LATENCY_S": 0.5,
        "RATES": (50, 100),
        "FLOOR_PER_S": 50,
        "ITEMS": 500,
        "USERS": 100,
        "SESSIONS": 200,
    },
    gateway: {"LOAD_S": 0.4, "QUESTIONS": 20, "ITEMS": 200, "USERS": 50},
    # In so short a time hardly anybody buys.
    simulation: {
        "FIGURES": ("click_through",),
        "PAGES_PER_S": 50.0,
        "WARM_UP_S": 2.0,
        "DURATION_S": 12.0,
        "SHOPPERS": 300,
        "ITEMS": 100,
        "LOOK_S": 0.5,
    },
}
ROWS = {
    freshness: ["freshness.click_to_known_ms", "freshness.click_to_recommendation_ms"],
    workers: [
        "feature_updater.events_per_s",
        "feature_updater.consumer_limit_per_s",
        "feature_updater.redis_limit_per_s",
    ],
    learning: [
        "outcome_joiner.records_per_s",
        "online_learner.slots_per_s",
        "online_learner.full_buffer_ms",
        "learning.outcome_to_serving_ms",
    ],
    experiments: ["experiment_tracker.slots_per_s"],
    rollback: ["learning.rollback_to_serving_ms"],
    promotion: [
        "experiments.stop_to_serving_ms",
        "experiments.promotion_to_serving_ms",
        "experiments.promotion_failed_requests",
    ],
    recommend: ["recommend.requests_per_s", "recommend.latency_ms", "features.read_ms"],
    gateway: [
        "gateway.events_per_s",
        "gateway.event_ms",
        "gateway.batched_events_per_s",
        "gateway.batch_ms",
        "gateway.recommend_ms",
    ],
    simulation: [
        "simulation.click_through.live",
        "simulation.click_through.frozen",
        "simulation.click_through.popular",
        "simulation.click_through.live_vs_frozen",
        "simulation.click_through.live_vs_popular",
        "simulation.requests_failed",
        "simulation.sessions_late",
        "simulation.workers_behind",
    ],
}


@pytest.mark.parametrize("benchmark", ROWS, ids=lambda module: module.__name__.rpartition(".")[2])
def test_a_benchmark_gives_its_rows(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SHORT[benchmark].items():
        monkeypatch.setattr(benchmark, name, value)
    said: list[str] = []
    rows = benchmark.run(said.append)
    assert [row.name for row in rows] == ROWS[benchmark]
    assert said, "long work says where it is"
    for row in rows:
        figures = [row.value, row.limit, row.p50, row.p90, row.p99]
        least = -1 if row.unit == "relative" else 0
        assert all(math.isfinite(figure) and figure >= least for figure in figures if figure is not None)
        assert (row.low is None) == (row.high is None)
        assert row.low is None or row.high is None or row.low <= row.value <= row.high
        # On a busy machine neither the service nor its limit may keep up with the lowest rate.
        assert (not row.limit) == (row.ratio is None)
