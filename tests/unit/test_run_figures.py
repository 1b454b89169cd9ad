"""Figures that ``millrace run`` computes from what the processes serve."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.samples import Sample

from deploy.embedded import scrape
from deploy.embedded.watch import ProcessView, Snapshot
from millrace.cli import _run_view as view

EMPTY = {0.1: 0.0, 1.0: 0.0, math.inf: 0.0}


def test_a_total_sums_what_carries_the_labels() -> None:
    samples = [
        Sample("records_total", {"worker": "a", "partition": "0"}, 2),
        Sample("records_total", {"worker": "a", "partition": "1"}, 3),
        Sample("records_total", {"worker": "b", "partition": "0"}, 100),
        Sample("other_total", {"worker": "a"}, 1000),
    ]
    assert scrape.total(samples, "records_total", worker="a") == 5


def test_a_quantile_is_that_of_the_time_between_two_readings() -> None:
    before = {0.1: 100.0, 1.0: 100.0, math.inf: 100.0}
    now = {0.1: 100.0, 1.0: 110.0, math.inf: 110.0}
    assert scrape.quantile(0.5, now, before) == pytest.approx(0.55)
    assert scrape.quantile(0.5, now, now) is None


def test_a_worker_that_was_started_again_counts_from_nothing() -> None:
    before = {0.1: 100.0, 1.0: 100.0, math.inf: 100.0}
    now = {0.1: 4.0, 1.0: 4.0, math.inf: 4.0}
    assert scrape.quantile(0.5, now, before) == pytest.approx(0.05)


def test_above_the_last_bound_the_last_bound_is_said() -> None:
    assert scrape.quantile(0.99, {0.1: 0.0, 1.0: 0.0, math.inf: 5.0}, EMPTY) == 1.0


@given(st.lists(st.floats(0, 0.999), min_size=1, max_size=200), st.floats(0.01, 1))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(delays: list[float], share: float) -> None:
    bounds = [0.1, 0.2, 0.5, 1.0, math.inf]
    counts = {bound: float(sum(delay <= bound for delay in delays)) for bound in bounds}
    true = sorted(delays)[math.ceil(share * len(delays)) - 1]
    upper = min(bound for bound in bounds if true <= bound)
    lower = max((bound for bound in bounds if bound < upper), default=0.0)
    found = scrape.quantile(share, counts, {})
    assert found is not None
    assert lower <= found <= upper + 1e-9


def snapshot(**changes: Any) -> Snapshot:
    processes = (
        ProcessView("feature_updater", "ready", 1, lag=7),
        ProcessView("recommender", "starting", 2, problem="[item-state] is not read yet"),
    )
    values: dict[str, Any] = {
        "at_s": 10.0,
        "events": 500,
        "events_per_s": 51.4,
        "freshness_ms": (3.2, 11.7),
        "processes": processes,
    }
    return Snapshot(**values | changes)


def test_a_line_names_who_is_not_well() -> None:
    assert view.line(snapshot()) == (
        "51 events/s   500 events   features fresh after 3 ms (p50), 12 ms (p99)   "
        "lag feature_updater=7   recommender starting ([item-state] is not read yet)"
    )


def test_the_summary_is_the_last_snapshot() -> None:
    summary = view.summary(snapshot(), {"Kafka": "127.0.0.1:1"})
    assert summary["healthy"] is False
    assert summary["events_per_s"] == 50
    assert summary["freshness_ms"] == {"p50": 3.2, "p99": 11.7}
    assert summary["recommendation"] is None
    assert view.summary(snapshot(freshness_ms=None), {})["freshness_ms"] is None


def test_the_screen_shows_text_as_it_is() -> None:
    """Brackets in what a process says are no markup, and no part is lost."""
    from rich.console import Console

    console = Console(width=150, record=True)
    console.print(view.screen(snapshot(), {"Kafka": "127.0.0.1:1"}))
    shown = console.export_text()
    for part in ("51 events/s", "[item-state] is not read yet", "127.0.0.1:1", "starting", "no recommendations yet"):
        assert part in shown


def test_only_living_processes_of_ours_announce_something(tmp_path: Path) -> None:
    ours, stranger, dead = os.getpid(), 1, 2**22 + 1  # above Linux's highest process id
    for pid in (ours, stranger, dead):
        content = {"process": f"p{pid}", "pid": pid, "metrics": "127.0.0.1:1"}
        (tmp_path / f"p{pid}-{pid}.json").write_text(json.dumps(content))

    assert [found.pid for found in scrape.announcements(tmp_path, [ours])] == [ours]
    scrape.forget_dead(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(tmp_path / f"p{pid}-{pid}.json" for pid in (ours, stranger))
