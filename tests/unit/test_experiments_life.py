"""Commands and definitions: what they make of a record, and each refusal with its field."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from millrace.errors import InvalidField
from millrace.experiments.arms import ArmPlan, read_arm
from millrace.experiments.definition import best_at, check_definition, completed
from millrace.experiments.life import DRAFT, RUNNING, STOPPED, obey
from millrace.registry.ledger import Ledger
from millrace.v1.command_pb2 import Command
from millrace.v1.experiment_pb2 import (
    AllocationPolicy,
    Arm,
    Experiment,
    ExperimentDefinition,
    GateEvidence,
    GateVerdict,
    Reward,
)
from millrace.v1.model_pb2 import ModelEvent, ModelEventType
from tests.experiment_support import define, definition, ledgers, start, stop
from tests.outcome_support import T0


class Desk:
    """Takes commands one after the other."""

    def __init__(self) -> None:
        self.experiments: dict[str, Experiment] = {}
        self.ledgers: dict[str, Ledger] = dict(ledgers())

    def __call__(self, command: Command, at_ms: int = T0) -> Experiment | None:
        changed = obey(command, self.experiments, self.ledgers, at_ms)
        if changed is not None:
            self.experiments[changed.definition.experiment_id] = changed
        return changed

    def refuses(self, command: Command, field: str) -> None:
        before = {name: one.SerializeToString(deterministic=True) for name, one in self.experiments.items()}
        with pytest.raises(InvalidField) as error:
            self(command)
        assert error.value.field == field
        assert {name: one.SerializeToString(deterministic=True) for name, one in self.experiments.items()} == before


def test_a_life() -> None:
    desk = Desk()
    desk(define(definition(traffic=0.4)))
    assert desk.experiments["test"].state == DRAFT
    desk(define(definition(traffic=0.6), "again"))
    desk(start(), T0 + 1)
    record = desk.experiments["test"]
    assert (record.state, record.started_at_ms, record.champion_version) == (RUNNING, T0 + 1, "1")
    assert record.definition.traffic == 0.6
    assert record.definition.alpha == 0.05  # defaults are written out
    assert dict(record.best_at) == best_at(record.definition)
    assert [one.name for one in record.figures] == ["a", "b"]
    desk(stop(), T0 + 2)
    record = desk.experiments["test"]
    assert (record.state, record.stopped_at_ms) == (STOPPED, T0 + 2)
    assert list(record.accepted_command_ids) == ["define test", "again", "start test", "stop test"]


def test_a_version_that_failed_a_gate_is_no_arm() -> None:
    desk, failed = (
        Desk(),
        ModelEvent(event_id="f", model_name="ranker", model_version="7", reason="gates failed: better"),
    )
    failed.type = ModelEventType.MODEL_EVENT_TYPE_REJECTED
    desk.ledgers["ranker"].apply(failed)
    given = definition()
    given.arms[1].model_version = "7"
    with pytest.raises(InvalidField, match="version 7 of model 'ranker' failed a gate: gates failed: better"):
        desk(define(given))


def test_a_command_is_acted_on_once() -> None:
    desk = Desk()
    desk(define(definition()))
    desk(start())
    assert desk(define(definition())) is None
    assert desk(start()) is None
    assert desk.experiments["test"].state == RUNNING


def test_what_has_started_cannot_be_changed() -> None:
    desk = Desk()
    desk.refuses(start(), "experiment_id")
    desk(define(definition()))
    desk.refuses(stop(), "experiment_id")
    desk(start())
    desk.refuses(define(definition(versions=("", "1")), "other"), "experiment_id")
    desk.refuses(start(command_id="again"), "experiment_id")
    desk(stop())
    desk.refuses(define(definition(), "other"), "experiment_id")
    desk.refuses(start(command_id="again"), "experiment_id")
    desk.refuses(stop(command_id="again"), "experiment_id")


def test_a_version_starts_when_it_has_passed_the_gate_or_with_a_reason() -> None:
    desk = Desk()
    desk(define(definition()))
    desk.refuses(start(override=""), "evidence")
    known = GateEvidence(model_version="2", champion_version="1", answers=500, users=400, effect=0.05)
    known.effect_low, known.effect_high = -0.02, 0.12
    command = start(override="")
    command.start_experiment.evidence.append(known)
    desk(command)
    (gate,) = desk.experiments["test"].gates
    assert (gate.verdict, gate.evidence, gate.override_reason) == (GateVerdict.GATE_VERDICT_PASSED, known, "")

    desk(stop())
    desk(define(definition("other")))
    overriding = start("other", override="the shop is new")
    overriding.issued_by = "me"
    desk(overriding)
    (gate,) = desk.experiments["other"].gates
    assert (gate.verdict, gate.reason) == (GateVerdict.GATE_VERDICT_REFUSED, "nothing was measured")
    assert (gate.override_reason, gate.overridden_by) == ("the shop is new", "me")

    desk(stop("other"))
    champion = definition("champion", versions=("", "1"))
    champion.arms[1].settings["parameters"] = "registered"
    desk(define(champion))
    desk(start("champion", override=""))
    assert not desk.experiments["champion"].gates, "what serves already needs no gate"


def test_experiments_of_a_layer_share_no_user() -> None:
    desk = Desk()
    for name, share in (("one", 0.5), ("two", 0.3), ("three", 0.3)):
        desk(define(definition(name, traffic=share)))
    desk(start("one"))
    desk(start("two"))
    assert desk.experiments["two"].layer_start == 0.5
    desk.refuses(start("three"), "traffic")
    desk(stop("one"))
    desk(start("three"))
    assert desk.experiments["three"].layer_start == 0.0
    desk(define(definition("other", traffic=1.0, layer="elsewhere")))
    desk(start("other"))


def test_versions_and_checkpoints_have_to_exist() -> None:
    desk = Desk()
    desk.refuses(define(definition(versions=("", "9"))), "arms[b].model_version")
    desk.refuses(define(definition(model_name="unheard of")), "model_name")
    frozen = definition()
    frozen.arms[1].model_version = ""
    frozen.arms[1].settings["checkpoint"] = "1.1.7"
    desk.refuses(define(frozen), "arms[b].settings[checkpoint]")
    frozen.arms[1].settings["checkpoint"] = "latest"
    desk(define(frozen))
    desk.refuses(start(), "arms[b].settings[checkpoint]")
    desk.ledgers["ranker"].apply(
        ModelEvent(
            event_id="c",
            model_name="ranker",
            model_version="1",
            type=ModelEventType.MODEL_EVENT_TYPE_CHECKPOINTED,
            checkpoint_id="1.1.7",
            figures={"epoch": 1, "sequence": 7},
        )
    )
    desk(start())
    # Frozen since the start, for good: which checkpoint that is stands in the record.
    assert desk.experiments["test"].definition.arms[1].settings["checkpoint"] == "1.1.7"


def _control(given: ExperimentDefinition) -> None:
    given.arms[0].control = False


def _names(given: ExperimentDefinition) -> None:
    given.arms[1].name = "a"


def _share(given: ExperimentDefinition) -> None:
    given.arms[1].share = 0.7


def _zero(given: ExperimentDefinition) -> None:
    given.arms[0].share, given.arms[1].share = 1.0, 0.0


def _same(given: ExperimentDefinition) -> None:
    given.arms.add().CopyFrom(given.arms[1])
    given.arms[2].name = "c"
    for arm in given.arms:
        arm.share = 1 / 3


def _setting(given: ExperimentDefinition) -> None:
    given.arms[1].settings["colour"] = "red"


def _policy(given: ExperimentDefinition) -> None:
    given.policy = 7  # type: ignore[assignment]


def _no_floor(given: ExperimentDefinition) -> None:
    _thompson(given)
    given.floor = 0.0


def _high_floor(given: ExperimentDefinition) -> None:
    _thompson(given)
    given.floor = 0.51


def _below_floor(given: ExperimentDefinition) -> None:
    _thompson(given)
    given.arms[0].share, given.arms[1].share = 0.95, 0.05


def _short_period(given: ExperimentDefinition) -> None:
    _thompson(given)
    given.period_ms = 999


def _reward(given: ExperimentDefinition) -> None:
    _thompson(given)
    given.reward = 7  # type: ignore[assignment]


def _fixed_period(given: ExperimentDefinition) -> None:
    given.period_ms = 60_000


def _thompson(given: ExperimentDefinition) -> None:
    given.policy = AllocationPolicy.ALLOCATION_POLICY_THOMPSON
    given.reward = Reward.REWARD_CLICKS
    given.period_ms, given.floor = 60_000, 0.1


def _slow(given: ExperimentDefinition) -> None:
    given.guardrails.slow_margin = 0.1


def _coverage(given: ExperimentDefinition) -> None:
    given.guardrails.coverage_margin = 1.0


def _floor(given: ExperimentDefinition) -> None:
    """That of the control, as it is expected: it would be stopped for being what it is."""
    given.guardrails.click_floor = given.expected_rate


def _no_number(given: ExperimentDefinition) -> None:
    given.guardrails.click_floor = float("nan")


def _traffic(given: ExperimentDefinition) -> None:
    given.traffic = 1.5


def _alpha(given: ExperimentDefinition) -> None:
    given.alpha = float("nan")


def _lift(given: ExperimentDefinition) -> None:
    given.expected_lift = 30


def _alone(given: ExperimentDefinition) -> None:
    del given.arms[1]


@pytest.mark.parametrize(
    ("spoil", "field"),
    [
        (_control, "arms"),
        (_names, "arms[1].name"),
        (_share, "arms"),
        (_zero, "arms[b].share"),
        (_same, "arms"),
        (_setting, "arms[1].settings[colour]"),
        (_policy, "policy"),
        (_no_floor, "floor"),
        (_high_floor, "floor"),
        (_below_floor, "arms[b].share"),
        (_short_period, "period_ms"),
        (_reward, "reward"),
        (_fixed_period, "period_ms"),
        (_slow, "guardrails.slow_micros"),
        (_coverage, "guardrails.coverage_margin"),
        (_floor, "guardrails.click_floor"),
        (_no_number, "guardrails.click_floor"),
        (_traffic, "traffic"),
        (_alpha, "alpha"),
        (_lift, "expected_lift"),
        (_alone, "arms"),
    ],
)
def test_what_a_definition_must_be(spoil: Callable[[ExperimentDefinition], None], field: str) -> None:
    given = completed(definition())
    check_definition(given)
    spoil(given)
    with pytest.raises(InvalidField) as error:
        check_definition(given)
    assert error.value.field == field


def test_thompson_sampling_begins_with_the_shares_of_the_definition() -> None:
    given = definition()
    _thompson(given)
    given.reward = Reward.REWARD_UNSPECIFIED
    given.arms[0].share, given.arms[1].share = 0.7, 0.3
    desk = Desk()
    desk(define(given))
    desk(start(), T0 + 1)
    record = desk.experiments["test"]
    assert record.definition.reward == Reward.REWARD_CLICKS
    assert [(one.from_ms, list(one.shares)) for one in record.periods] == [(T0 + 1, [0.7, 0.3])]


def test_arms() -> None:
    check_definition(completed(definition(versions=("", ""))))  # A/A
    assert read_arm(Arm()) == ArmPlan()
    read = read_arm(Arm(model_version="3", settings={"parameters": "registered", "fresh_items": "0"}))
    assert read == ArmPlan("3", registered=True, limits={"fresh_items": 0})
    assert read.frozen
    assert read_arm(Arm(settings={"repeat_policy": "exclude"})).repeats is False
    for wrong in (
        Arm(model_version="x"),
        Arm(settings={"checkpoint": "../1"}),
        Arm(model_version="1", settings={"checkpoint": "1.1.1"}),
        Arm(settings={"checkpoint": "1.1.1", "ranking": "popular"}),
        Arm(settings={"fresh_items": "-1"}),
        Arm(settings={"ranking": "best"}),
    ):
        with pytest.raises(InvalidField):
            read_arm(wrong)
