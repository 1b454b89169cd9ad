"""Processes of two releases side by side: who reads what the other wrote loses nothing and does not stumble.

Older messages are of the first contracts; newer ones have a field more in each message and a value more in each enum
(``tests.contracts``). The ledger tests (``tests/chaos``) send both to processes.
"""

from __future__ import annotations

import pytest
from google.protobuf.message import Message

from deploy.embedded.watch import shown
from millrace.cli import _experiments_view
from millrace.errors import InvalidField
from millrace.events.rules import check_command, check_interaction
from millrace.features.as_json import user_as_dict
from millrace.features.decay import DecayedSum
from millrace.features.item_state import decode_item
from millrace.features.user_state import Engagement, KnownPosition, UserState
from millrace.learning.examples import read_examples
from millrace.learning.updates import Lines
from millrace.outcomes.joiner import JoinerLimits, PartitionJoiner
from millrace.ranking.features import FEATURE_NAMES, FEATURE_SCHEMA
from millrace.registry.history import History
from millrace.registry.reconcile import concerns
from millrace.registry.triggers import describe
from millrace.settings import HOUR_MS, MINUTE_MS, FeatureSettings
from millrace.topics import ALL, Topic
from millrace.v1.command_pb2 import Command
from millrace.v1.common_pb2 import Position
from millrace.v1.drift_pb2 import DriftSignal
from millrace.v1.experiment_pb2 import Experiment
from millrace.v1.impression_pb2 import Impression
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.item_pb2 import Item
from millrace.v1.joiner_pb2 import JoinerState
from millrace.v1.model_pb2 import ModelEvent, ModelEventType, ModelUpdate
from millrace.v1.outcome_pb2 import Label, Outcome
from tests.contracts import (
    NEW_FIELD,
    NEW_TEXT,
    NEW_VALUE,
    Contract,
    every_field,
    new_contract,
    old_contract,
    written_by,
)
from tests.outcome_support import T0, act, impression

BY_BOTH = [topic for topic in ALL if topic.message.DESCRIPTOR.full_name in old_contract()]
"""Topics that the first release has, too."""
LIMITS = JoinerLimits(window_ms=30 * MINUTE_MS, grace_ms=5_000, dedup_window=1_000, open_max=1_000)


def as_new(message: Message) -> Message:
    """As a process of a later release reads it."""
    return new_contract()[message.DESCRIPTOR.full_name].FromString(message.SerializeToString())


def text_of_the_future(message: Message) -> str:
    """What the field holds that today's release does not know."""
    return str(getattr(as_new(message), NEW_FIELD))


@pytest.mark.parametrize(
    ("theirs", "topic"),
    [*((old_contract(), topic) for topic in BY_BOTH), *((new_contract(), topic) for topic in ALL)],
    ids=lambda one: one.name if isinstance(one, Topic) else "newer" if one is new_contract() else "older",
)
def test_what_another_release_wrote_passes_through_this_one_unchanged(theirs: Contract, topic: Topic) -> None:
    kind = theirs[topic.message.DESCRIPTOR.full_name]
    for known in (True, False):
        written = written_by(theirs, every_field(topic.message), known)
        again = topic.message.FromString(written).SerializeToString()
        assert kind.FromString(again) == kind.FromString(written)


@pytest.mark.parametrize("topic", BY_BOTH, ids=lambda topic: topic.name)
def test_an_older_process_hands_on_what_it_does_not_know(topic: Topic) -> None:
    message = every_field(topic.message)
    theirs = old_contract()[topic.message.DESCRIPTOR.full_name].FromString(message.SerializeToString())
    assert topic.message.FromString(theirs.SerializeToString()) == message


def test_the_contracts_have_grown_since() -> None:
    """Else the tests above would show nothing."""
    grown = [
        topic.name
        for topic in BY_BOTH
        if len(topic.message.DESCRIPTOR.fields)
        > len(old_contract()[topic.message.DESCRIPTOR.full_name].DESCRIPTOR.fields)
    ]
    assert {"impressions", "model-events", "experiments"} <= set(grown)


def test_outcomes_carry_what_the_joiner_does_not_know() -> None:
    """Also after a restart in between, from the state that it wrote to its changelog."""
    made = impression("r", "u", ["a", "b"])
    shown_by_a_newer = Impression.FromString(written_by(new_contract(), made, known=False))
    joiner = PartitionJoiner(LIMITS)
    joiner.impression(shown_by_a_newer, Position(topic="impressions"), T0)
    parts = {key: JoinerState.FromString(state.SerializeToString()) for key, state in joiner.changes() if state}
    joiner = PartitionJoiner.restored(LIMITS, parts)
    joiner.interaction(act("u", "a", request_id="r", at_ms=T0 + 1), 0, T0 + 1)
    joiner.interaction(act("u", "later", at_ms=T0 + HOUR_MS), 1, T0 + HOUR_MS)
    assert [len(outcome.slots) for outcome in joiner.outcomes] == [1, 1]
    for outcome in joiner.outcomes:
        assert text_of_the_future(outcome.impression) == NEW_TEXT
        assert outcome.impression.fallback == NEW_VALUE
        assert [text_of_the_future(decided.slot) for decided in outcome.slots] == [NEW_TEXT]


def test_states_carry_what_the_catalogue_says_and_the_updater_does_not_know() -> None:
    item = Item(item_id="i", title="title")
    state = decode_item("i", (None, None, None), (written_by(new_contract(), item), b"1"), FeatureSettings())
    assert state is not None
    assert text_of_the_future(state.catalogue) == NEW_TEXT


def test_outcomes_of_another_release_teach_the_same() -> None:
    made = impression("r", "u", ["a", "b"])
    outcome = Outcome(request_id="r", user_id="u", impression=made)
    for slot, label in zip(made.slots, (Label.LABEL_POSITIVE, Label.LABEL_NEGATIVE), strict=True):
        outcome.slots.add(slot=slot, label=label)
    rows, labels = read_examples(outcome, FEATURE_SCHEMA, len(FEATURE_NAMES))
    for contract in (old_contract(), new_contract()):
        theirs = Outcome.FromString(written_by(contract, outcome))
        found_rows, found_labels = read_examples(theirs, FEATURE_SCHEMA, len(FEATURE_NAMES))
        assert (found_rows == rows).all()
        assert list(found_labels) == list(labels)


def test_an_outcome_with_a_label_that_came_later_is_refused_by_name() -> None:
    made = impression("r", "u", ["a"])
    outcome = Outcome(request_id="r", user_id="u", impression=made)
    outcome.slots.add(slot=made.slots[0], label=Label.LABEL_POSITIVE)
    newer = Outcome.FromString(written_by(new_contract(), outcome, known=False))
    with pytest.raises(InvalidField, match=str(NEW_VALUE)):
        read_examples(newer, FEATURE_SCHEMA, len(FEATURE_NAMES))


def test_an_interaction_of_a_kind_that_came_later_is_refused_by_name() -> None:
    """It becomes a dead letter, for the worker of the later release to replay."""
    event = Interaction.FromString(written_by(new_contract(), act("u", "i"), known=False))
    with pytest.raises(InvalidField, match="unknown value 99"):
        check_interaction(event)


def test_a_command_of_a_kind_that_came_later_is_refused_and_concerns_nobody() -> None:
    command = Command.FromString(written_by(new_contract(), Command(command_id="c", issued_at_ms=T0)))
    assert not concerns(command, "ranker")
    with pytest.raises(InvalidField, match="action"):
        check_command(command)


def test_an_event_of_a_kind_that_came_later_changes_nothing_known() -> None:
    made = ModelEvent(
        event_id="1", model_name="ranker", model_version="1", type=ModelEventType.MODEL_EVENT_TYPE_PROMOTED, at_ms=T0
    )
    event = ModelEvent.FromString(written_by(new_contract(), made, known=False))
    history = History("ranker")
    history.apply(event)
    assert history.champion == ""
    assert history.took("1")


def test_updates_of_a_later_release_are_taken() -> None:
    lines = Lines("ranker")
    lines.apply(ModelUpdate.FromString(written_by(new_contract(), every_field(ModelUpdate))))


def test_people_are_told_the_number_of_what_came_later() -> None:
    new = new_contract()
    experiment = Experiment.FromString(written_by(new, every_field(Experiment), known=False))
    assert _experiments_view.state(experiment) == _experiments_view.decision(experiment) == str(NEW_VALUE)
    signal = DriftSignal.FromString(written_by(new, every_field(DriftSignal), known=False))
    assert describe(signal).startswith(f"{NEW_VALUE}: ")
    answer = shown(Impression.FromString(written_by(new, every_field(Impression), known=False)))
    assert answer.fallback == answer.items[0].sources[0] == str(NEW_VALUE)


def test_a_user_whose_state_a_newer_updater_wrote_is_shown() -> None:
    state = UserState(
        counts={NEW_VALUE: 1},
        decayed={NEW_VALUE: DecayedSum(1.0, T0)},
        first_seen_ms=T0,
        last_seen_ms=T0,
        purchase_value=0.0,
        recent=(Engagement("i", NEW_VALUE, T0, 0, 0, 0),),
        disliked=frozenset(),
        known=KnownPosition(0, 0),
    )
    assert user_as_dict("u", state, T0, HOUR_MS)["counts"] == {str(NEW_VALUE): 1}
