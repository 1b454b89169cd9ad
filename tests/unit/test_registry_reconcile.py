"""The orchestrator's decisions, from values only."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.errors import MillraceError
from millrace.registry.asking import promote, retrain, roll_back, trigger_update
from millrace.registry.gates import REASON_TAG, Gate, gate_tags
from millrace.registry.ledger import Ledger
from millrace.registry.reconcile import Append, LogFirstVersion, PointAlias, decide, next_step, step_id
from millrace.registry.view import CHAMPION, RegisteredVersion, RegistryView
from millrace.v1.command_pb2 import Command
from millrace.v1.model_pb2 import ModelEvent, ModelEventType

MODEL = "ranker"
PROMOTED = ModelEventType.MODEL_EVENT_TYPE_PROMOTED
ROLLED_BACK = ModelEventType.MODEL_EVENT_TYPE_ROLLED_BACK
REGISTERED = ModelEventType.MODEL_EVENT_TYPE_REGISTERED
REJECTED = ModelEventType.MODEL_EVENT_TYPE_REJECTED
REFUSED = ModelEventType.MODEL_EVENT_TYPE_COMMAND_REFUSED


class World:
    """A ledger and a registry, on which steps take effect at once."""

    def __init__(self, versions: int = 0) -> None:
        self.log: list[ModelEvent] = []
        self.ledger = Ledger(MODEL)
        self.view = RegistryView()
        for number in range(1, versions + 1):
            self.store(f"made-by-{number}")
            registered = ModelEvent(event_id=f"v{number}", model_name=MODEL, model_version=str(number))
            registered.type = ModelEventType.MODEL_EVENT_TYPE_REGISTERED
            self.append(registered)

    def store(self, step: str) -> None:
        version = RegisteredVersion(str(len(self.view.versions) + 1), "run", "runs:/run/model", step, "00ff")
        self.view = RegistryView((*self.view.versions, version), self.view.aliases)

    def append(self, event: ModelEvent) -> None:
        self.log.append(event)
        self.ledger.apply(event)

    def settle(self, commands: Sequence[Command] = (), most: int = 100) -> int:
        """Take steps until nothing is left to do (or ``most`` are taken: a crash); how many there were."""
        for taken in range(most):
            step = next_step(self.ledger, commands, self.view, now_ms=1)
            if step is None:
                return taken
            if isinstance(step, Append):
                self.append(step.event)
            elif isinstance(step, LogFirstVersion):
                self.store(step.step_id)
            else:
                self.view = RegistryView(self.view.versions, {CHAMPION: step.version})
        return most

    def answers(self) -> list[tuple[ModelEventType.ValueType, str, str]]:
        return [(event.type, event.model_version, event.command_id) for event in self.log if event.command_id]


def test_the_first_version_is_stored_registered_promoted_and_pointed_to() -> None:
    world = World()
    assert world.settle() == 4
    assert [event.type for event in world.log] == [ModelEventType.MODEL_EVENT_TYPE_REGISTERED, PROMOTED]
    assert world.ledger.champion == "1"
    assert world.view.aliases == {CHAMPION: "1"}
    assert world.log[1].sha256 == bytes.fromhex("00ff")


@pytest.mark.parametrize("steps", range(5))
def test_a_crash_after_any_step_makes_no_second_first_version(steps: int) -> None:
    world = World()
    world.settle(most=steps)
    world.ledger = Ledger(MODEL)  # a new process, which reads the topic
    for event in world.log:
        world.ledger.apply(event)
    world.settle()
    assert len(world.view.versions) == 1
    assert len(world.log) == 2


def test_without_the_registry_the_first_version_waits_and_commands_with_it() -> None:
    """A command on an empty ledger is not refused: the first version may come any moment."""
    assert next_step(Ledger(MODEL), [promote(MODEL, "1", "me", "")], None, now_ms=1) is None


def test_commands_need_no_registry_once_there_is_a_version() -> None:
    world = World(versions=2)
    world.settle()
    step = next_step(world.ledger, [promote(MODEL, "2", "me", "better")], None, now_ms=7)
    assert isinstance(step, Append)
    assert (step.event.type, step.event.model_version, step.event.previous_version) == (PROMOTED, "2", "1")
    assert (step.event.reason, step.event.at_ms) == ("better, asked by me", 7)


def test_what_a_training_job_made_is_told_by_its_gates_once() -> None:
    world = World(versions=1)
    world.settle()
    for tags in (
        gate_tags([Gate("better", True, "fine", {"low": 0.5})]) | {REASON_TAG: "weekly"},
        gate_tags([Gate("better", False, "worse", {"low": -0.5})]),
        {},  # no training job's: nobody answers for it
    ):
        number = str(len(world.view.versions) + 1)
        made = RegisteredVersion(number, f"run-{number}", f"uri-{number}", f"job-{number}", "00ff", tags)
        world.view = RegistryView((*world.view.versions, made), world.view.aliases)
    told = len(world.log)
    assert world.settle() == 2
    passed, failed = world.log[told:]
    assert (passed.type, passed.model_version, passed.reason) == (REGISTERED, "2", "weekly")
    assert (passed.run_id, passed.artifact_uri, passed.sha256) == ("run-2", "uri-2", bytes.fromhex("00ff"))
    assert dict(passed.figures) == {"better.low": 0.5}
    assert (failed.type, failed.model_version, failed.reason) == (REJECTED, "3", "gates failed: better (worse)")
    assert list(world.ledger.versions) == ["1", "2"]
    assert world.settle() == 0
    world.settle([promote(MODEL, version, "me", "") for version in ("3", "4", "2")])
    assert [(event.type, event.reason) for event in world.log[-3:-1]] == [
        (REFUSED, "version 3 of model 'ranker' failed a gate: gates failed: better (worse)"),
        (REFUSED, "model 'ranker' has no version '4' (versions: 1, 2)"),
    ]
    assert world.ledger.champion == "2"


def test_promote_and_roll_back() -> None:
    world = World(versions=3)
    world.settle()
    world.settle([promote(MODEL, "2", "me", ""), promote(MODEL, "3", "me", "")])
    assert world.view.aliases == {CHAMPION: "3"}
    world.settle([roll_back(MODEL, "", "me", "it is worse")])
    assert (world.ledger.champion, world.log[-1].previous_version) == ("2", "3")
    world.settle([roll_back(MODEL, "1", "me", "")])
    assert (world.ledger.champion, world.view.aliases) == ("1", {CHAMPION: "1"})


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (promote(MODEL, "9", "me", ""), "model 'ranker' has no version '9' (versions: 1, 2)"),
        (promote(MODEL, "1", "me", ""), "version 1 is the champion already"),
        (roll_back(MODEL, "", "me", ""), "there is no earlier champion to roll back to"),
        (roll_back(MODEL, "9", "me", ""), "model 'ranker' has no version '9' (versions: 1, 2)"),
        (roll_back(MODEL, "1", "me", ""), "version 1 is the champion already"),
        (roll_back(MODEL, "2", "me", ""), "version 2 is no earlier champion (earlier champions: none)"),
    ],
)
def test_a_bad_command_is_refused_once_with_the_reason(command: Command, reason: str) -> None:
    world = World(versions=2)
    world.settle()
    world.settle([command])
    world.settle([command])
    assert [kind for kind, *_ in world.answers()] == [REFUSED]
    assert world.log[-1].reason.startswith(reason)
    assert world.ledger.champion == "1"


def checkpoint(version: str, epoch: int) -> ModelEvent:
    made = ModelEvent(
        event_id=f"c{epoch}", model_name=MODEL, model_version=version, checkpoint_id=f"{version}.{epoch}.9"
    )
    made.type = ModelEventType.MODEL_EVENT_TYPE_CHECKPOINTED
    made.run_id, made.artifact_uri, made.sha256 = f"run-{epoch}", f"uri-{epoch}", bytes([epoch])
    made.figures["epoch"] = epoch
    return made


def test_a_rollback_to_a_checkpoint_names_where_it_is() -> None:
    world = World(versions=2)
    world.settle([promote(MODEL, "2", "me", "")])
    world.append(checkpoint("2", 3))
    world.append(checkpoint("1", 4))
    world.settle([roll_back(MODEL, "", "me", "it learned nonsense", "2.3.9")])
    back = world.log[-1]
    assert (back.type, back.model_version, back.previous_version) == (ROLLED_BACK, "2", "2")
    assert (back.checkpoint_id, back.run_id, back.artifact_uri, back.sha256) == ("2.3.9", "run-3", "uri-3", b"\3")
    world.settle([roll_back(MODEL, "1", "me", "", "1.4.9")])
    assert (world.log[-1].checkpoint_id, world.view.aliases) == ("1.4.9", {CHAMPION: "1"})


@pytest.mark.parametrize(
    ("version", "name", "reason"),
    [
        ("", "1.5.9", "model 'ranker' has no checkpoint '1.5.9' (the last 10: 1.4.9)"),
        ("9", "1.4.9", "model 'ranker' has no version '9' (versions: 1, 2)"),
        ("2", "1.4.9", "checkpoint '1.4.9' is one of version 1, not 2"),
    ],
)
def test_a_rollback_to_a_checkpoint_that_is_not_there_is_refused(version: str, name: str, reason: str) -> None:
    world = World(versions=2)
    world.settle()
    world.append(checkpoint("1", 4))
    world.settle([roll_back(MODEL, version, "me", "", name)])
    assert (world.log[-1].type, world.log[-1].reason) == (REFUSED, reason)
    assert world.log[-1].checkpoint_id == ""


def test_commands_of_others_are_left_alone() -> None:
    world = World(versions=2)
    world.settle()
    others = [promote("other", "2", "me", ""), roll_back("other", "", "me", ""), retrain("other", "me", "")]
    assert world.settle([*others, trigger_update(MODEL, "me", "")]) == 0


def test_an_alias_that_somebody_moved_is_put_back() -> None:
    world = World(versions=2)
    world.settle()
    world.view = RegistryView(world.view.versions, {CHAMPION: "2"})
    assert next_step(world.ledger, (), world.view, now_ms=1) == PointAlias("1")


def test_a_champion_that_the_registry_lost_is_named() -> None:
    world = World(versions=1)
    world.settle()
    world.view = RegistryView()
    with pytest.raises(MillraceError, match=r"version 1 of model 'ranker' .* does not hold it"):
        next_step(world.ledger, (), world.view, now_ms=1)


def test_ids_of_steps_are_the_same_in_every_process() -> None:
    command = promote(MODEL, "2", "me", "")
    first, second = decide(Ledger(MODEL), command, now_ms=1), decide(Ledger(MODEL), command, now_ms=2)
    assert first.event_id == second.event_id
    assert step_id(MODEL, "first-version") == "ca286aeb-da9d-5fba-88c0-dae2a25b086b"


COMMANDS = st.lists(
    st.one_of(
        st.builds(promote, st.just(MODEL), st.sampled_from("12345"), st.just("me"), st.just("")),
        st.builds(roll_back, st.just(MODEL), st.sampled_from(["", *"12345"]), st.just("me"), st.just("")),
    ),
    max_size=6,
)


@given(COMMANDS, st.data())
def test_any_order_repetition_and_crash_gives_one_effect_each(commands: list[Command], data: st.DataObject) -> None:
    """Commands come in any order, again and again, in groups, between crashes: each is answered exactly once."""
    deliveries = data.draw(st.permutations([*commands, *commands, *commands]))
    world = World(versions=4)
    world.settle()
    while deliveries:
        cut = data.draw(st.integers(1, len(deliveries)))
        world.settle(deliveries[:cut], most=data.draw(st.integers(0, 3)))
        world.settle(deliveries[:cut])
        deliveries = deliveries[cut:]
    assert sorted(id for *_, id in world.answers()) == sorted(command.command_id for command in commands)
    assert world.view.aliases == {CHAMPION: world.ledger.champion}
    # The record says of each change what it replaced: the chain has no gap.
    reigns = [event for event in world.log if event.type in (PROMOTED, ROLLED_BACK)]
    assert all(
        later.previous_version == earlier.model_version != later.model_version for earlier, later in pairwise(reigns)
    )
