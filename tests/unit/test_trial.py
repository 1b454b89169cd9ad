"""The experiment of every run with simulated shoppers: what is asked for, and what is told of it."""

from __future__ import annotations

import pytest

from deploy.embedded.snapshot import EXPERIMENT_ID
from deploy.embedded.trial import definition, next_command, view
from millrace.events.rules import check_command
from millrace.experiments.definition import check_definition, completed
from millrace.experiments.tracker import Tracker, TrackerLimits
from millrace.registry.ledger import Ledger
from millrace.simulation.truth import Truth
from millrace.v1.experiment_pb2 import Experiment
from tests.experiment_support import ledgers, stop, traffic
from tests.outcome_support import T0


def test_it_is_defined_and_started_once_whatever_is_killed_between() -> None:
    tracker, ledger = Tracker(TrackerLimits(0.0, 10_000, 10_000, 10**9)), ledgers()["ranker"]
    assert next_command(None, Ledger("ranker")) is None, "nothing to compare while there is no champion"
    asked = []
    record: Experiment | None = None
    while (command := next_command(record, ledger)) is not None:
        # Asked again before anybody saw the answer.
        again = next_command(record, ledger)
        for one in (command, again):
            assert one is not None
            check_command(one)
            tracker.command(one, ledgers(), T0)
        asked.append(command.command_id)
        record = tracker.experiments[EXPERIMENT_ID]
    assert asked == ["live-learning define_experiment", "live-learning start_experiment"]
    tracker.command(stop(EXPERIMENT_ID), ledgers(), T0)
    assert next_command(tracker.experiments[EXPERIMENT_ID], ledger) is None, "what has ended is not started again"


def test_it_leaves_room_for_others() -> None:
    given = completed(definition("ranker", "1"))
    check_definition(given)
    assert given.traffic + 0.2 <= 1, "the default of `millrace experiments create`"
    assert [(arm.name, arm.control) for arm in given.arms] == [("frozen", True), ("live", False), ("popular", False)]


def test_the_estimate_stands_beside_the_truth() -> None:
    tracker, record = Tracker(TrackerLimits(0.0, 10_000, 10_000, 10**9)), None
    while (command := next_command(record, ledgers()["ranker"])) is not None:
        tracker.command(command, ledgers(), T0)
        record = tracker.experiments[EXPERIMENT_ID]
    assert record is not None
    rates = {"frozen": 0.1, "live": 0.15, "popular": 0.08}
    for outcome in traffic(record.definition, 300, rates):
        tracker.outcome(outcome, 0, outcome.decided_at_ms)
    tracker.decide(T0)
    truths = {name: Truth(100, 1_000.0, 1_000 * rate) for name, rate in rates.items()}
    told = view(record, truths, "")
    frozen, live, popular = told.arms
    assert (told.state, frozen.against, live.against) == ("running", "", "frozen")
    assert sum(arm.users for arm in told.arms) == 300
    assert frozen.effect is frozen.true_effect is None
    assert live.true_effect == pytest.approx(0.5)
    assert popular.true_effect == pytest.approx(-0.2)
    for arm in (live, popular):
        assert arm.low is not None
        assert arm.high is not None
        assert arm.true_effect is not None
        assert arm.low <= arm.true_effect <= arm.high
        assert arm.true_click_through == pytest.approx(rates[arm.name])
    assert [words.split(":")[0] for words in told.in_words] == ["live", "popular"]
    assert view(None, {}, "why").problem == "why"
