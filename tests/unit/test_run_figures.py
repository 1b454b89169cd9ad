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
from deploy.embedded.snapshot import Learning, ProcessView, Shop, Shown, ShownItem, Snapshot, TrialArm, TrialView
from deploy.embedded.watch import Meter, ShopGauge, shown
from millrace.cli import _run_view as view
from millrace.v1.impression_pb2 import CandidateSource, Fallback, Impression

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
        "0 outcomes/s   0 learned   no model   "
        "lag feature_updater=7   recommender starting ([item-state] is not read yet)"
    )


def test_a_line_shows_learning_and_clicks() -> None:
    line = view.learning(
        snapshot(learning=Learning(12.4, 3_456, "2", 3, 17), shop=Shop(100, 0.031, 0.0402, None)),
    )
    assert line == (
        "12 outcomes/s   3,456 learned   model 2, update 3.17   click-through 4.02% (in total 3.10%)   conversion -"
    )


def test_the_trial_is_told_beside_the_truth() -> None:
    arms = (
        TrialArm("frozen", "", 10, 100, 0.05, 0.051),
        TrialArm("live", "frozen", 9, 90, 0.07, 0.068, 0.4, -0.1, 0.9, 0.333),
        TrialArm("popular", "frozen", 0, 0),
    )
    told = view.trial(snapshot(trial=TrialView("e", "running", arms, ("live: not known yet", "popular: neither"))))
    assert list(told) == [
        "experiment e: live against frozen estimated +40% (-10% to +90%), in truth +33%",
        "experiment e: popular against frozen nothing estimated yet, in truth unknown",
        "experiment e: running; live: not known yet; popular: neither",
    ]
    waits = snapshot(trial=TrialView("e", "not started", problem="no tracker"))
    assert list(view.trial(waits)) == ["experiment e: not started (no tracker)"]
    assert view.summary(waits, {})["trial"]["state"] == "not started"
    assert list(view.trial(snapshot())) == []
    assert view.summary(snapshot(), {})["trial"] is None


def test_the_summary_is_the_last_snapshot() -> None:
    summary = view.summary(snapshot(), {"Kafka": "127.0.0.1:1"})
    assert summary["healthy"] is False
    assert summary["events_per_s"] == 50
    assert summary["freshness_ms"] == {"p50": 3.2, "p99": 11.7}
    assert summary["shown"] is None
    assert summary["shop"] is None
    assert summary["learning"]["sequence"] == 0
    assert view.summary(snapshot(freshness_ms=None), {})["freshness_ms"] is None


def test_the_screen_shows_text_as_it_is() -> None:
    """Brackets in what a process says are no markup, and no part is lost."""
    from rich.console import Console

    console = Console(width=150, record=True)
    console.print(view.screen(snapshot(), {"Kafka": "127.0.0.1:1"}))
    shown = console.export_text()
    for part in ("51 events/s", "[item-state] is not read yet", "127.0.0.1:1", "starting", "no recommendations yet"):
        assert part in shown


def test_what_was_shown_is_what_the_recommender_logged() -> None:
    impression = Impression(user_id="u", model_version="3", fallback=Fallback.FALLBACK_UNKNOWN_USER)
    for rank in range(7):
        impression.slots.add(
            item_id=f"[i{rank}]", score=0.5, rank=rank, sources=[CandidateSource.CANDIDATE_SOURCE_TRENDING_SHORT]
        )
    answer = shown(impression)
    assert answer.items[0] == ShownItem("[i0]", 0.5, ("trending_short",))
    assert len(answer.items) == 5
    assert answer == Shown("u", answer.items, "3", "unknown_user")

    from rich.console import Console

    console = Console(width=150, record=True)
    console.print(view.screen(snapshot(shown=answer), {}))
    for part in ("u was just shown (model 3, unknown user)", "[i4]", "0.5000", "trending_short"):
        assert part in console.export_text(clear=False)


def test_a_counter_that_begins_anew_goes_on() -> None:
    meter = Meter()
    assert [meter.take(reading) for reading in (5, 7, 2, 2)] == [5, 2, 2, 0]
    assert meter.total == 9


def test_the_shops_figures_in_total_and_lately() -> None:
    gauge = ShopGauge(recent_s=30)

    def read(at_s: float, slots: float, clicks: float) -> Shop:
        counts = {"pages": slots / 10, "slots": slots, "clicks": clicks, "sessions": 4, "purchases": 1}
        return gauge.read(at_s, [Sample(f"millrace_simulation_{n}_total", {"arm": "a"}, v) for n, v in counts.items()])

    assert read(0, 0, 0) == Shop(0, None, None, 0.25)
    assert read(20, 100, 2) == Shop(10, 0.02, 0.02, 0.25)
    assert read(49, 200, 12) == Shop(20, 0.06, 0.1, 0.25)
    assert read(50, 200, 12) == Shop(20, 0.06, 0.1, 0.25)
    assert read(51, 100, 1).click_through_recent is None, "started again"


def test_only_living_processes_of_ours_announce_something(tmp_path: Path) -> None:
    ours, stranger, dead = os.getpid(), 1, 2**22 + 1  # above Linux's highest process id
    for pid in (ours, stranger, dead):
        content = {"process": f"p{pid}", "pid": pid, "metrics": "127.0.0.1:1"}
        (tmp_path / f"p{pid}-{pid}.json").write_text(json.dumps(content))

    assert [found.pid for found in scrape.announcements(tmp_path, [ours])] == [ours]
    scrape.forget_dead(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(tmp_path / f"p{pid}-{pid}.json" for pid in (ours, stranger))
