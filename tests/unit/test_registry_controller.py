"""The controller: effects in the right order, and what still works while a system is away."""

from __future__ import annotations

import pytest

from millrace.errors import InfrastructureError
from millrace.ranking.first import first_ranker
from millrace.registry.asking import promote, roll_back
from millrace.registry.controller import Controller
from millrace.registry.view import CHAMPION
from millrace.v1.model_pb2 import ModelEvent, ModelEventType
from tests.registry_support import MODEL, Effects, MemoryJournal, MemoryRegistry


class Setup:
    def __init__(self) -> None:
        self.effects = Effects()
        self.journal = MemoryJournal(self.effects)
        self.registry = MemoryRegistry(self.effects)
        self.controller = Controller(MODEL, self.journal, self.registry, clock=lambda: 1.0)

    def add_version(self) -> None:
        """As the training job will."""
        made = self.registry.log_version(MODEL, first_ranker(), "trained", "")
        event = ModelEvent(event_id=made.version, model_name=MODEL, model_version=made.version)
        event.type = ModelEventType.MODEL_EVENT_TYPE_REGISTERED
        self.journal.append(event)


FIRST = ["stored 1", "REGISTERED 1", "PROMOTED 1", "champion 1"]


def test_events_come_before_the_alias_that_they_mean() -> None:
    setup = Setup()
    setup.controller.reconcile()
    assert setup.effects.done == FIRST
    setup.add_version()
    setup.effects.done.clear()
    assert setup.controller.answer(promote(MODEL, "2", "me", ""))
    setup.controller.reconcile()
    assert setup.effects.done == ["PROMOTED 2", "champion 2"]


def test_a_command_before_the_first_version_waits_for_it() -> None:
    setup, command = Setup(), roll_back(MODEL, "", "me", "")
    assert not setup.controller.answer(command)
    setup.controller.reconcile()
    assert setup.controller.answer(command)
    assert setup.effects.done == [*FIRST, "COMMAND_REFUSED "]


@pytest.mark.parametrize("failing", FIRST)
def test_a_failure_anywhere_is_made_good_by_the_next_turn(failing: str) -> None:
    setup = Setup()

    def fail(effect: str) -> None:
        if effect == failing:
            raise InfrastructureError("mlflow", "away")

    setup.effects.before = fail
    with pytest.raises(InfrastructureError):
        setup.controller.reconcile()
    setup.effects.before = lambda effect: None
    setup.controller.reconcile()
    setup.controller.reconcile()
    assert setup.effects.done == FIRST


def test_without_the_registry_commands_are_answered_and_the_alias_follows_later() -> None:
    setup = Setup()
    setup.controller.reconcile()
    setup.add_version()
    setup.registry.away = True
    first, second = promote(MODEL, "2", "me", ""), roll_back(MODEL, "", "me", "")
    for command in (first, second):
        assert setup.controller.answer(command)
        assert setup.controller.answer(command)
        with pytest.raises(InfrastructureError):
            setup.controller.reconcile()
    assert setup.journal.topic.champion == "1"
    setup.registry.away = False
    setup.controller.reconcile()
    assert setup.registry.held.aliases == {CHAMPION: "1"}


def test_commands_of_others_are_settled_as_they_are() -> None:
    assert Setup().controller.answer(promote("other", "1", "me", ""))
