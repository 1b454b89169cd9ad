"""The loop from drift to promotion in simulated time, in worlds so small that they take seconds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import drift_document
from benchmarks.claims import mean_row, middle_row
from benchmarks.drift_loop import replay, retraining, rows, storefront
from benchmarks.drift_loop.control import Control, Rule
from benchmarks.drift_loop.replay import Policy
from benchmarks.drift_loop.serving import Serving
from benchmarks.drift_loop.storefront import SHOP, WAYS, Course
from benchmarks.unused_features import MORE_CLICKS, MOVING, watch
from millrace.events import build
from millrace.events.columns import Columns
from millrace.events.files import NumberedRow
from millrace.events.sources import Source
from millrace.registry.retraining import CHALLENGER, PROMOTED, REGISTERED, STARTED, TRAINS
from millrace.settings import HOUR_MS, MINUTE_MS, RetrainSettings, Settings
from millrace.simulation.days import DaysPlan
from millrace.v1.experiment_pb2 import Decision, DecisionKind, ExperimentState

T0 = 1_700_000_000_000
TINY = Course(0, 1, 2, 4, replace(SHOP, plan=DaysPlan(4, 40.0), shoppers=40, items=60))


def test_unused_features_that_move_are_reported_and_start_nothing() -> None:
    seen = watch(np.random.default_rng(1), watched_days=3)
    assert seen.reported == MOVING
    assert all(why.endswith("the model uses none of these features") for why in seen.declined)
    assert seen.declined
    assert not seen.retrainings


def test_clicks_that_change_do() -> None:
    seen = watch(np.random.default_rng(2), MORE_CLICKS, watched_days=3)
    assert seen.labels
    assert seen.retrainings == 1


def test_a_world_is_one_up_to_the_flip_and_four_from_there(tmp_path: Path) -> None:
    went = storefront.run(1, TINY)
    assert list(went) == list(WAYS)
    flip = TINY.flip_on * 24
    shown = {way: one.shown[:flip].tolist() for way, one in went.items()}
    assert all(each == shown["neither"] for each in shown.values())
    assert all(one.shown[flip:].sum() > 0 for one in went.values())
    made = list(rows.rows_of([went, went], TINY))
    assert {row.name for row in made} == {rows.LOOP, rows.CLICKS, f"{rows.CLICKS}.hours"}
    assert all(row.low is None or row.high is None or row.low <= row.value <= row.high for row in made)
    drift_document.write(made, tmp_path / "drift.md")
    assert (tmp_path / "drift" / "flip.svg").exists()


def test_a_copy_of_the_process_that_fails_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="ended without a result"):
        storefront._in_a_child(lambda: 1 // 0)
    assert "ZeroDivisionError" in capfd.readouterr().err


def clicks(count: int, hours: int) -> Iterator[NumberedRow]:
    """Sessions of five clicks, an item leading to the next."""
    random = np.random.default_rng(1)
    for number in range(count):
        session = number // 5
        row = {
            "user": f"u{session % 50}",
            "session": f"s{session}",
            "item": f"i{(session * 7 + number % 5 * (1 + int(random.integers(2)))) % 40}",
            "time": 1_700_000_000_000 + number * hours * HOUR_MS // count,
        }
        yield number + 1, row


def test_a_detector_that_always_alarms_retrains_and_each_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "ASKED", 1)
    columns = Columns("user", "item", "time", session="session", time_unit="ms")
    source = Source("made up", columns, lambda: clicks(1_500, 20))
    found = {
        name: replay.run(policy, source, 0, 4 * HOUR_MS, sessions=1, hours=25)
        for name, policy in {
            "online learning, always": Policy(True, "always"),
            "online learning, never": Policy(True, "never"),
        }.items()
    }
    always, never = found.values()
    # Ten minutes, an hour and a cool-down of six apart; the last one's hours are not over when the clicks are.
    assert [trial.gain is not None for trial in always.trials] == [True, True, False]
    assert not never.trials
    assert never.asked.tolist() == always.asked.tolist()
    made = {row.rule: row for row in rows.globo_rows_of(found)}
    assert made["online learning, always: retrainings"].value == 3
    assert made["online learning, always: HR@10 above never"].low is not None


def test_nothing_is_watched_before_a_version_has_a_reference(tmp_path: Path) -> None:
    serving = Serving(Settings(), 100, np.random.default_rng(1), learns=True)
    control = Control(Settings(), serving, tmp_path, Rule(always=True))
    control.begin(MINUTE_MS)
    control.look(2 * MINUTE_MS)
    assert control.ledger.champion == serving.champion == "1"
    assert not control.heard


def test_a_version_that_passes_gets_an_experiment_and_a_winner_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retraining, "_gates", lambda *_: [])
    settings = Settings()
    settings.retrain = RetrainSettings(challenged_share=0.5, collect_ms=0, collect_max_ms=0, debounce_ms=0)
    serving = Serving(settings, 100, np.random.default_rng(1), learns=True)
    control = Control(settings, serving, tmp_path, Rule(always=True))
    for item in range(20):
        serving.memory.offer(f"i{item}", T0)
    control.begin(T0)
    for minute in range(600):
        now_ms, user, request_id = T0 + minute * MINUTE_MS, f"u{minute % 50}", f"r{minute}"
        shown = serving.recommend(user, 5, request_id, f"s{minute}", now_ms)
        clicked = shown[minute % len(shown)]
        event = build.interaction(user, clicked, "click", occurred_at=now_ms, event_id=request_id)
        event.request_id = request_id
        serving.take(event, now_ms)
        control.take(serving.outcomes, now_ms)
        serving.outcomes = []
        if minute == 300:
            control.retrain_now(now_ms)
        control.look(now_ms)
    kinds = [event.type for event in control.events]
    assert kinds == [REGISTERED, PROMOTED, REGISTERED, PROMOTED, STARTED, TRAINS, REGISTERED, CHALLENGER]
    record = serving.experiment
    assert record is not None
    assert all(figures.slots > 0 for figures in record.figures)
    assert serving.champion == "2"
    record.state = ExperimentState.EXPERIMENT_STATE_STOPPED
    record.decision.CopyFrom(Decision(kind=DecisionKind.DECISION_KIND_PROMOTE, arm="new"))
    control.look(now_ms + MINUTE_MS)
    assert serving.champion == control.ledger.champion == "3"
    assert serving.experiment is None
    assert control.events[-1].type == PROMOTED


def test_rows_of_both_sides() -> None:
    row = middle_row("a", "r", [float(one) for one in range(1, 11)])
    assert (row.low, row.value, row.high) == (2.0, 5.5, 9.0)
    assert middle_row("a", "r", [1.0, 2.0, 4.0]).low == 1.0
    row = mean_row("a", "r", [1.0, 3.0])
    assert row.value == 2.0
    assert row.low == pytest.approx(2 - 12.706, abs=0.001)
