"""What decisions of experiments mean for versions: each is acted on once, and not on another champion's account."""

from __future__ import annotations

import pytest

from millrace.registry.experiments import open_event
from millrace.registry.ledger import Ledger, fold
from millrace.registry.reconcile import Append, next_step
from millrace.v1.experiment_pb2 import DecisionKind, Experiment, ExperimentState
from millrace.v1.model_pb2 import ModelEvent, ModelEventType
from tests.experiment_support import decided, model_events
from tests.outcome_support import T0

HOUR = 3_600_000
HARM, REJECT = DecisionKind.DECISION_KIND_STOP_FOR_HARM, DecisionKind.DECISION_KIND_REJECT


def ledger() -> Ledger:
    """Champion 1, and version 2."""
    return fold("ranker", model_events())


def acted(given: Ledger, *experiments: Experiment, now_ms: int = T0, cool_down_ms: int = HOUR) -> list[tuple[str, str]]:
    """Types and versions of the events, one after the other, until none is left."""
    done = []
    while (event := open_event(given, experiments, now_ms, cool_down_ms)) is not None:
        given.apply(event)
        done.append((ModelEventType.Name(event.type).removeprefix("MODEL_EVENT_TYPE_"), event.model_version))
        assert len(done) < 5
    return done


def test_a_winner_is_promoted_once() -> None:
    given, won = ledger(), decided("e", "ranker", "2", "1")
    step = next_step(given, (), None, T0, [won], HOUR)
    assert isinstance(step, Append)
    assert (step.event.previous_version, step.event.reason) == ("1", "experiment e: b +5% to +20%")
    assert step.event.figures["effect_low"] == 0.05
    assert acted(given, won, won) == [("PROMOTED", "2")]
    assert given.champion == "2"
    assert acted(given, won) == []


@pytest.mark.parametrize("kind", [HARM, REJECT])
def test_a_loser_is_rejected_once(kind: DecisionKind.ValueType) -> None:
    given, lost = ledger(), decided("e", "ranker", "2", "1", kind)
    assert acted(given, lost) == [("REJECTED", "2")]
    assert given.champion == "1"


def test_a_winner_over_a_former_champion_is_not_promoted() -> None:
    assert acted(ledger(), decided("e", "ranker", "2", "7")) == [("REJECTED", "2")]


def test_after_a_rollback_a_winner_waits() -> None:
    given = ledger()
    rollback = ModelEvent(
        event_id="back",
        model_name="ranker",
        model_version="1",
        type=ModelEventType.MODEL_EVENT_TYPE_ROLLED_BACK,
        at_ms=T0,
    )
    given.apply(rollback)
    won = decided("e", "ranker", "2", "1")
    assert acted(given, won, now_ms=T0 + HOUR - 1) == []
    assert acted(given, won, now_ms=T0 + HOUR) == [("PROMOTED", "2")]


def test_a_champion_that_does_harm_goes_back_to_the_version_it_is_compared_with() -> None:
    harmful = decided("e", "ranker", "1", "1", HARM)
    harmful.definition.arms[0].model_version = "2"
    assert acted(ledger(), harmful) == [("ROLLED_BACK", "2")]


def test_settings_running_experiments_and_other_models_change_no_version() -> None:
    settings, running, other = (decided(name, "ranker", "2", "1") for name in ("settings", "running", "other"))
    settings.definition.arms[1].settings["fresh_items"] = "0"
    running.state = ExperimentState.EXPERIMENT_STATE_RUNNING
    other.definition.model_name = "another"
    live = decided("live", "ranker", "", "1")
    unknown = decided("unknown", "ranker", "9", "1")
    assert acted(ledger(), settings, running, other, live, unknown) == []
