"""What becomes of a trained version: an experiment, a comparison in the shadow, or nothing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

import pytest

from millrace.registry.asking import retrain
from millrace.registry.retraining import PROMOTED, REJECTED, SHADOWS, State
from millrace.registry.steps import RetrainingStep, event_of
from millrace.settings import HOUR_MS
from tests.registry_support import MODEL
from tests.retraining_support import (
    BETTER,
    KNOWN,
    NOW,
    PROBED,
    TRAINED,
    TRIED,
    UNKNOWN,
    WON,
    WORSE,
    World,
    champion,
    end,
    event,
    newest_of,
    now_ms,
    run,
    started,
)


def test_a_version_that_is_known_gets_a_tenth_of_the_users(tmp_path: Path) -> None:
    world = World(tmp_path, evidence=KNOWN)
    assert run(world, retrain(MODEL, "me", "")) == [*TRAINED, *PROBED, *TRIED]
    [record] = world.records.values()
    assert not record.gates[0].override_reason
    assert [(arm.model_version, arm.share) for arm in record.definition.arms] == [("", 0.5), ("2", 0.5)]
    assert record.definition.traffic == 0.2
    assert (newest_of(world).state, newest_of(world).version) == (State.PROMOTED, "2")


def test_one_of_which_too_little_is_known_gets_a_hundredth_after_the_shadow(tmp_path: Path) -> None:
    """And nobody overrides the gate: it bears that much."""
    world = World(tmp_path)
    assert run(world, retrain(MODEL, "me", "")) == WON
    [record] = world.records.values()
    assert (record.gates[0].reason, record.gates[0].override_reason) == ("no log yet", "")
    assert [(arm.model_version, round(arm.share, 6)) for arm in record.definition.arms] == [("", 0.95), ("2", 0.05)]
    assert record.definition.traffic == 0.2
    assert newest_of(world).champion == "1"
    assert [(start.partition, start.offset) for start in newest_of(world).starts] == [(0, 7)]


@pytest.mark.parametrize(
    ("evidence", "compared", "steps", "note"),
    [
        (WORSE, BETTER, [], "version 2 gets no traffic: it is surely worse, by -20.0% to -10.0% of the"),
        (UNKNOWN, {**BETTER, "better": False, "reason": "not better"}, ["RETRAINING_SHADOWS 2"], "in the shadow of"),
    ],
)
@pytest.mark.parametrize("experiments", ["on", "off"])
def test_one_that_is_surely_worse_is_shown_to_nobody(
    evidence: dict[str, Any],
    compared: dict[str, Any],
    steps: list[str],
    note: str,
    experiments: Literal["on", "off"],
    tmp_path: Path,
) -> None:
    world = World(tmp_path, evidence=evidence, compared=compared, experiments=experiments)
    assert run(world, retrain(MODEL, "me", "")) == [*TRAINED, *steps, "REJECTED 2"]
    assert newest_of(world).note.startswith(note)


def test_without_experiments_the_shadow_decides(tmp_path: Path) -> None:
    world = World(tmp_path, evidence=KNOWN, experiments="off")
    assert run(world, retrain(MODEL, "me", "")) == [*TRAINED, "RETRAINING_SHADOWS 2", "PROMOTED 2", "champion 2"]
    assert newest_of(world).note == "in the shadow of version 1: better: saves a lot"
    reign = world.journal.topic.reign
    assert reign is not None
    assert (reign.previous_version, reign.run_id, reign.figures["low"]) == ("1", "r", 0.01)


def test_a_comparison_that_cannot_be_ends_it(tmp_path: Path) -> None:
    world = World(tmp_path, compared={"problem": "the log is gone"}, shadow_status=4)
    assert run(world, retrain(MODEL, "me", ""))[-1] == "REJECTED 2"
    assert newest_of(world).note == "it could not be compared: the log is gone"


def test_another_champion_is_another_comparison(tmp_path: Path) -> None:
    """What was compared with the one before says nothing of it."""
    world = World(tmp_path, experiments="off", compared={})
    controller, retrainer = world.orchestrator()
    controller.reconcile()
    controller.answer(retrain(MODEL, "me", ""))
    while newest_of(world).state != State.SHADOW:
        controller.reconcile()
        retrainer.step()
        world.train()
        time.sleep(0.002)
    ledger, present = world.journal.topic, newest_of(world)
    stale = RetrainingStep(PROMOTED, "better", champion="1")
    ledger.apply(event("REGISTERED", 9, model_version="9"))
    ledger.apply(event("PROMOTED", 9, model_version="9"))
    assert event_of(ledger, present, stale, now_ms(), 0) is None
    again = event_of(ledger, present, RetrainingStep(SHADOWS, "", champion="9"), now_ms(), 0)
    assert again is not None
    assert not ledger.took(again.event_id)
    ledger.apply(again)
    assert newest_of(world).champion == "9"
    assert event_of(ledger, present, RetrainingStep(REJECTED, ""), now_ms(), 0) is None, "of a state that was"
    end(retrainer)


def test_after_a_rollback_the_shadow_promotes_nobody_for_a_while() -> None:
    ledger = champion()
    ledger.apply(event("PROMOTED", 2, model_version="0"))
    ledger.apply(event("ROLLED_BACK", 3, model_version="1"))
    started(ledger, 4)
    ledger.apply(event("REGISTERED", 4, model_version="2", retraining_id="RETRAINING_STARTED 4"))
    present, step = ledger.retrainings.newest, RetrainingStep(PROMOTED, "better", champion="1")
    assert present is not None
    assert event_of(ledger, present, step, NOW + HOUR_MS - 1, HOUR_MS) is None
    assert event_of(ledger, present, step, NOW + HOUR_MS, HOUR_MS) is not None


def test_where_no_tracker_answers_for_a_while_the_shadow_decides(tmp_path: Path) -> None:
    world = World(tmp_path, evidence=KNOWN, tracked=False)
    done = run(world, retrain(MODEL, "me", ""))
    assert [one for one in done if "sen" not in one] == [*TRAINED, "RETRAINING_SHADOWS 2", "PROMOTED 2", "champion 2"]
    assert done[3] == "sent define_experiment"
