"""When a version is trained, how far that is, and that whoever is killed on the way changes nothing of it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from millrace.registry.asking import cancel_retrain, retrain
from millrace.registry.ledger import Ledger
from millrace.registry.reconcile import decide
from millrace.registry.retraining import State
from millrace.registry.retraining_as_json import status_as_dict
from millrace.registry.triggers import look, may_train, next_by_schedule_ms
from millrace.settings import HOUR_MS, MINUTE_MS, RetrainSettings
from millrace.v1.drift_pb2 import DriftChannel, DriftEvidence, DriftSignal
from millrace.v1.experiment_pb2 import Experiment, ExperimentState
from millrace.v1.model_pb2 import ModelEventType
from tests.processes import PATIENCE_S
from tests.registry_support import MODEL
from tests.retraining_support import (
    NOW,
    WON,
    World,
    champion,
    end,
    event,
    newest_of,
    now_ms,
    run,
    started,
)

SETTINGS = RetrainSettings()


def drift(channel: str = "PERFORMANCE", held_ms: int = HOUR_MS, version: str = "1", weight: float = 0.0) -> DriftSignal:
    return DriftSignal(
        signal_id=f"{channel} signal",
        model_name=MODEL,
        model_version=version,
        channel=DriftChannel.Value(f"DRIFT_CHANNEL_{channel}"),
        first_at_ms=NOW - held_ms,
        at_ms=NOW,
        holds=True,
        evidence=[DriftEvidence(name="item_age", model_weight=weight)],
    )


def ended(ledger: Ledger, number: int, retraining_id: str) -> None:
    ledger.apply(event("RETRAINING_ENDED", number, retraining_id=retraining_id))


def test_labels_that_drift_start_one_after_a_while() -> None:
    ledger = champion()
    early = look(ledger, [drift(held_ms=MINUTE_MS)], SETTINGS, NOW)
    assert early.event is None
    assert early.waits[0] == "drift (performance: item_age): it has to hold for 10 min, and has for 1 min"
    found = look(ledger, [drift()], SETTINGS, NOW).event
    assert found is not None
    assert (found.signal_id, found.reason) == ("PERFORMANCE signal", "drift: performance: item_age")
    ledger.apply(found)
    present = ledger.retrainings.under_way
    assert present is not None
    assert (present.state, present.retraining_id) == (State.COLLECTING, found.event_id)
    # The changed world is to be learned: it is waited for, and not if somebody asks.
    assert not may_train(present, SETTINGS, NOW + SETTINGS.collect_ms - 1, enough=True)
    assert may_train(present, SETTINGS, NOW + SETTINGS.collect_ms, enough=True)
    assert may_train(replace(present, signal_id="", since_ms=0), SETTINGS, NOW)
    # And enough of it, for at most three days.
    assert not may_train(present, SETTINGS, NOW + SETTINGS.collect_max_ms - 1)
    assert may_train(present, SETTINGS, NOW + SETTINGS.collect_max_ms)
    waits = [status_as_dict(ledger, (), (), SETTINGS, NOW + hours * HOUR_MS)["waits"] for hours in (0, 2)]
    assert waits == [
        ["outcomes of the changed world come in for another 60 min"],
        ["outcomes of the changed world come in until there are enough, for at most another 70 h"],
    ]
    assert look(ledger, [drift()], SETTINGS, NOW).event is None
    assert look(champion(), [drift(version="0")], SETTINGS, NOW).event is None, "of a version that serves no more"


@pytest.mark.parametrize("estimated_ms", [0, NOW - 3 * HOUR_MS])
def test_a_retraining_for_drift_carries_the_time_of_the_change(estimated_ms: int) -> None:
    """Where there is no estimate, the world had changed when that was found."""
    ledger, signal = champion(), drift()
    signal.changed_at_ms = estimated_ms
    found = look(ledger, [signal], SETTINGS, NOW).event
    assert found is not None
    ledger.apply(found)
    newest: Any = status_as_dict(ledger, [signal], (), SETTINGS, NOW)["newest"]
    assert newest["since_ms"] == found.since_ms == (estimated_ms or signal.first_at_ms)
    by_hand = decide(champion(), retrain(MODEL, "me", ""), NOW)
    assert by_hand.since_ms == 0


def test_killed_while_it_collects_it_goes_on_from_the_same_change(tmp_path: Path) -> None:
    changed_ms = now_ms() - 3 * HOUR_MS
    signal, enough, counted = drift(), tmp_path / "enough", tmp_path / "counted"
    signal.changed_at_ms, signal.first_at_ms, signal.at_ms = (changed_ms + hours * HOUR_MS for hours in range(3))
    count = (
        f"import json, pathlib, sys; print(json.dumps({{'enough': pathlib.Path({str(enough)!r}).exists(), "
        f"'reason': 'few'}})); pathlib.Path({str(counted)!r}).write_text(' '.join(sys.argv))"
    )
    world = World(tmp_path, signals=[signal], collected=count)
    for _ in range(2):
        controller, retrainer = world.orchestrator()
        controller.reconcile()
        while not counted.exists():
            retrainer.step()
            time.sleep(0.002)
        end(retrainer)
        assert f"--since={changed_ms}" in counted.read_text()
        counted.unlink()
        assert newest_of(world).state == State.COLLECTING
        # The next one finds it in model-events, whatever the detector says by then.
        signal.changed_at_ms = changed_ms + MINUTE_MS
    enough.touch()
    assert run(world)[0] == "RETRAINING_TRAINS "
    assert newest_of(world).since_ms == changed_ms
    assert f"--since={changed_ms}" in world.job_arguments
    assert world.effects.done.count("RETRAINING_STARTED ") == 0
    assert world.journal.topic.retrainings.count == 1


@pytest.mark.parametrize(
    ("channel", "weight", "why"),
    [
        ("INPUT", 0.0, "the model uses none of these features"),
        ("INPUT", 0.3, "the model uses 1 of these features; labels say whether it does harm"),
        ("PREDICTION", 0.0, "scores alone start no retraining; labels say whether it does harm"),
    ],
)
def test_inputs_and_scores_start_none_and_are_answered_once(channel: str, weight: float, why: str) -> None:
    ledger, signal = champion(), drift(channel, weight=weight)
    found = look(ledger, [signal], SETTINGS, NOW).event
    assert found is not None
    assert found.type == ModelEventType.MODEL_EVENT_TYPE_SIGNAL_DECLINED
    assert found.reason == f"{channel.lower()}: item_age: {why}"
    ledger.apply(found)
    assert look(ledger, [signal], SETTINGS, NOW).event is None
    said = status_as_dict(ledger, [signal], (), SETTINGS, NOW)
    assert (said["state"], said["count"]) == ("idle", 0)
    assert [one["reason"] for one in said["declined"]] == [found.reason]  # type: ignore[attr-defined]


def test_after_one_there_is_a_cool_down_and_after_three_in_vain_drift_starts_none() -> None:
    ledger, later = champion(), NOW + SETTINGS.cool_down_ms
    for number in range(SETTINGS.in_vain_max):
        assert look(ledger, [drift()], SETTINGS, later).event is not None
        retraining_id = started(ledger, number, "PERFORMANCE signal")
        assert "a retraining is under way already: collecting" in look(ledger, [drift()], SETTINGS, later).waits[0]
        ended(ledger, number, retraining_id)
        assert "cool-down for another 6 h" in look(ledger, [drift()], SETTINGS, NOW).waits[0]
    guarded = look(ledger, [drift()], SETTINGS, later)
    assert guarded.event is None
    assert guarded.waits[0].endswith("the next one is for the schedule, or for somebody to start")
    ended(ledger, 9, started(ledger, 9))  # somebody asked
    assert look(ledger, [drift()], SETTINGS, later).event is not None


def test_it_is_time_a_week_after_the_last_one_began() -> None:
    ledger, week = champion(), 168 * HOUR_MS
    assert next_by_schedule_ms(ledger, SETTINGS) == NOW + week
    assert look(ledger, [], SETTINGS, NOW + week - HOUR_MS).waits == ["schedule: in 60 min"]
    found = look(ledger, [], SETTINGS, NOW + week).event
    assert found is not None
    assert (found.reason, found.signal_id) == ("168 hours have gone by since the last one", "")
    ledger.apply(found)
    assert look(ledger, [], SETTINGS, NOW + 3 * week).event is None, "there is one already"
    assert look(champion(), [], RetrainSettings(interval_hours=0), NOW + 9 * week).event is None
    assert look(Ledger(MODEL), [], SETTINGS, NOW + week).event is None, "there is no version yet"


def test_one_at_a_time_and_a_command_counts_once() -> None:
    ledger, first, second = champion(), retrain(MODEL, "me", "new shop"), retrain(MODEL, "you", "")
    begun = decide(ledger, first, NOW)
    ledger.apply(begun)
    assert decide(ledger, first, NOW).event_id == begun.event_id
    assert begun.retraining_id == begun.event_id
    refused = decide(ledger, second, NOW)
    assert refused.type == ModelEventType.MODEL_EVENT_TYPE_COMMAND_REFUSED
    assert refused.reason == "a retraining is under way already: collecting (new shop, asked by me)"
    ledger.apply(decide(ledger, cancel_retrain(MODEL, "me", "wrong shop"), NOW))
    newest = ledger.retrainings.newest
    assert newest is not None
    assert (newest.state, newest.note) == (State.FAILED, "cancelled: wrong shop, asked by me")
    again = decide(ledger, cancel_retrain(MODEL, "me", ""), NOW)
    assert again.reason == "no retraining is under way"
    assert decide(ledger, second, NOW).type == ModelEventType.MODEL_EVENT_TYPE_RETRAINING_STARTED


def test_an_experiment_that_somebody_stops_leaves_the_champion(tmp_path: Path) -> None:
    world = World(tmp_path, wins=False)
    assert run(world, retrain(MODEL, "me", ""))[-4:] == [
        "CHALLENGER 2",
        "challenger 2",
        "REJECTED 2",
        "challenger none",
    ]
    newest = world.journal.topic.retrainings.newest
    assert newest is not None
    assert newest.note == f"experiment {next(iter(world.records))}: it was stopped before it decided"


def test_an_experiment_that_an_earlier_retraining_left_behind_is_stopped(tmp_path: Path) -> None:
    """A process that promoted its version died before the tracker was told, and the next retraining has begun since."""
    world = World(tmp_path)
    left, own = "retrain-2-0123abcd", "mine"
    for name in (left, own):
        record = world.records[name] = Experiment(state=ExperimentState.EXPERIMENT_STATE_RUNNING)
        record.definition.experiment_id, record.definition.model_name = name, MODEL
    controller, retrainer = world.orchestrator()
    controller.reconcile()
    controller.answer(retrain(MODEL, "test", ""))
    controller.reconcile()
    retrainer.step()
    end(retrainer)
    assert [command.stop_experiment.experiment_id for command in world.sent] == [left]


@pytest.mark.parametrize(
    ("job", "note"),
    [
        ('import sys; print(\'{"problem": "nobody came"}\'); sys.exit(3)', "nobody came"),
        ("import sys; sys.exit(5)", "the job was told to end"),
        ("import os; os.kill(os.getpid(), 9)", "the job ended with status -9"),
        ("print('no JSON')", "the job ended with status 0"),
    ],
)
def test_a_job_that_makes_no_version_ends_it_with_the_reason(job: str, note: str, tmp_path: Path) -> None:
    world = World(tmp_path, job=job)
    assert run(world, retrain(MODEL, "me", ""))[-1] == "RETRAINING_ENDED "
    newest = world.journal.topic.retrainings.newest
    assert newest is not None
    assert (newest.state, newest.note) == (State.FAILED, note)


def test_cancelled_its_job_is_ended(tmp_path: Path) -> None:
    world = World(tmp_path, job="import sys; sys.stdin.read()")
    controller, retrainer = world.orchestrator()
    controller.reconcile()
    controller.answer(retrain(MODEL, "me", ""))
    retrainings = world.journal.topic.retrainings
    while retrainings.newest is None or retrainings.newest.state != State.TRAINING:
        retrainer.step()
    retrainer.step()
    controller.answer(cancel_retrain(MODEL, "me", ""))
    retrainer.step()
    end(retrainer)
    assert world.effects.done[-1] == "RETRAINING_ENDED "


def test_a_process_ends_with_its_standard_input() -> None:
    code = "import time; from workers.retrain_orchestrator.jobs import end_with_stdin; end_with_stdin(); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(PATIENCE_S) == -signal.SIGTERM


def test_killed_anywhere_every_step_is_taken_once(tmp_path: Path) -> None:
    """In every place, and in two; commands may be sent twice, and the tracker acts on them once."""
    kills = 0
    for first in range(len(WON)):
        for second in range(first, len(WON), 3):
            world = World(tmp_path)
            done = run(world, retrain(MODEL, "me", ""), (first, second + 1))
            events = [one for one in done if "sent" not in one]
            assert events == [one for one in WON if "sent" not in one]
            assert len(world.records) == 1
            kills += world.starts - 1
    assert kills >= 50
