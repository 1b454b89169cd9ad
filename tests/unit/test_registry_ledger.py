"""The ledger: what model-events add up to."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from millrace.registry.ledger import Ledger, fold
from millrace.v1.model_pb2 import ModelEvent, ModelEventType

REGISTERED = ModelEventType.MODEL_EVENT_TYPE_REGISTERED
PROMOTED = ModelEventType.MODEL_EVENT_TYPE_PROMOTED
ROLLED_BACK = ModelEventType.MODEL_EVENT_TYPE_ROLLED_BACK
REFUSED = ModelEventType.MODEL_EVENT_TYPE_COMMAND_REFUSED
CHECKPOINTED = ModelEventType.MODEL_EVENT_TYPE_CHECKPOINTED


def event(number: int, kind: ModelEventType.ValueType, version: str = "", model: str = "ranker") -> ModelEvent:
    return ModelEvent(
        event_id=f"e{number}", model_name=model, model_version=version, type=kind, command_id=f"c{number}"
    )


def reign(ledger: Ledger) -> tuple[str, tuple[str, ...]]:
    return ledger.champion, ledger.former


def test_a_life() -> None:
    """Promotions stack up, a rollback takes the top off: a second one goes further back, never to the worse one."""
    life = [event(n, REGISTERED, str(n)) for n in (1, 2, 3)]
    life += [event(10 + n, PROMOTED, str(n)) for n in (1, 2, 3)]
    ledger = fold("ranker", life)
    assert reign(ledger) == ("3", ("1", "2"))
    ledger.apply(event(20, ROLLED_BACK, "2"))
    assert reign(ledger) == ("2", ("1",))
    ledger.apply(event(21, ROLLED_BACK, "1"))
    assert reign(ledger) == ("1", ())
    ledger.apply(event(22, PROMOTED, "3"))
    assert reign(ledger) == ("3", ("1",))
    assert list(ledger.versions) == ["1", "2", "3"]


def test_a_rollback_past_several_champions_drops_those_between() -> None:
    ledger = fold("ranker", [event(n, PROMOTED, version) for n, version in enumerate(["1", "2", "1", "3", "4"])])
    assert ledger.former == ("1", "2", "1", "3")
    ledger.apply(event(9, ROLLED_BACK, "1"))
    assert reign(ledger) == ("1", ("1", "2"))


def test_other_models_refusals_and_checkpoints_change_no_champion() -> None:
    ledger = fold("ranker", [event(1, REGISTERED, "1"), event(2, PROMOTED, "1")])
    for other in (event(3, PROMOTED, "2", model="other"), event(4, REFUSED, "7"), event(5, CHECKPOINTED, "1")):
        ledger.apply(other)
    assert ledger.champion == "1"
    assert "c4" in ledger.settled
    assert not {"c3", "c5"} & set(ledger.settled)


def checkpoint(epoch: int, sequence: int, version: str = "1") -> ModelEvent:
    made = event(0, CHECKPOINTED, version)
    made.event_id = made.checkpoint_id = f"{version}.{epoch}.{sequence}"
    made.figures["epoch"], made.figures["sequence"] = epoch, sequence
    return made


def test_the_last_ten_checkpoints_are_kept_also_when_the_topic_is_read_again() -> None:
    log = [checkpoint(epoch, sequence) for epoch in (1, 2) for sequence in (5, 10, 15, 20, 25, 30)]
    ledger = fold("ranker", log)
    expected = [one.checkpoint_id for one in log[2:]]
    assert list(ledger.checkpoints) == expected
    for one in log:
        ledger.apply(one)
    assert list(ledger.checkpoints) == expected


def test_a_rollback_to_a_checkpoint_of_the_champion_forgets_no_former_champion() -> None:
    ledger = fold("ranker", [event(1, PROMOTED, "1"), event(2, PROMOTED, "2"), checkpoint(7, 3, "2")])
    back = event(3, ROLLED_BACK, "2")
    back.checkpoint_id = "2.7.3"
    ledger.apply(back)
    assert reign(ledger) == ("2", ("1",))
    assert ledger.reign == back
    further = event(4, ROLLED_BACK, "1")
    further.checkpoint_id = "1.4.4"
    ledger.apply(further)
    assert reign(ledger) == ("1", ())


VERSIONS = st.sampled_from(["1", "2", "3", "4"])
EVENTS = st.lists(
    st.builds(event, st.integers(0, 30), st.sampled_from([REGISTERED, PROMOTED, ROLLED_BACK, REFUSED]), VERSIONS),
    max_size=20,
)


@given(EVENTS, st.data())
def test_reading_again_from_any_point_changes_nothing(events: list[ModelEvent], data: st.DataObject) -> None:
    """A reader that starts over, or is given records twice, ends in the same state."""
    again = data.draw(st.integers(0, len(events)))
    twice = [copy for one in events for copy in (one, one)]
    assert fold("ranker", events[:again] + events) == fold("ranker", events) == fold("ranker", twice)
