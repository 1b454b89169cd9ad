"""The rules of events: everything under "Bad input", named by its field."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.errors import InvalidField
from millrace.events.rules import (
    check_append_time,
    check_command,
    check_interaction,
    check_item,
    check_recommend_batch,
    check_recommend_request,
)
from millrace.v1.command_pb2 import Command, PromoteCommand, RollBackCommand, StartExperimentCommand
from millrace.v1.common_pb2 import Context
from millrace.v1.experiment_pb2 import GateEvidence
from millrace.v1.interaction_pb2 import Interaction, InteractionType
from millrace.v1.item_pb2 import Item
from millrace.v1.recommendation_service_pb2 import RecommendBatchRequest, RecommendRequest

NOW_MS = 1_700_000_000_000
CLICK = InteractionType.INTERACTION_TYPE_CLICK
PURCHASE = InteractionType.INTERACTION_TYPE_PURCHASE
RATING = InteractionType.INTERACTION_TYPE_RATING
CUSTOM = InteractionType.INTERACTION_TYPE_CUSTOM
FORGET = InteractionType.INTERACTION_TYPE_FORGET


def click(**changes: Any) -> Interaction:
    values = {"event_id": "e", "user_id": "u", "item_id": "i", "type": CLICK, "occurred_at_ms": NOW_MS}
    return Interaction(**{**values, **changes})


def request(**changes: Any) -> RecommendRequest:
    return RecommendRequest(**{"user_id": "u", "k": 10, **changes})


@pytest.mark.parametrize(
    "event",
    [
        click(),
        click(user_id="Ann Müller", item_id="靴 7"),
        click(user_id="é" * 128),
        click(type=PURCHASE),
        click(type=PURCHASE, value=0.0),
        click(type=RATING, value=-3.0),
        click(type=CUSTOM, custom_type="zoom"),
        click(type=FORGET, item_id=""),
        click(occurred_at_ms=631_152_000_000),
        click(session_id="s" * 256, request_id="r" * 256),
        click(context=Context(device="mobile", attributes={str(n): "x" * 256 for n in range(32)})),
        click(context=Context(attributes={"": ""})),
    ],
    ids=str,
)
def test_valid_interactions(event: Interaction) -> None:
    check_interaction(event)


@pytest.mark.parametrize(
    ("changes", "field", "says"),
    [
        ({"event_id": ""}, "event_id", "missing"),
        ({"user_id": ""}, "user_id", "missing"),
        ({"item_id": ""}, "item_id", "missing"),
        ({"user_id": "u" * 257}, "user_id", "257 bytes"),
        ({"user_id": "é" * 129}, "user_id", "258 bytes"),
        ({"item_id": "a\nb"}, "item_id", "U+000A at 1"),
        ({"item_id": "a\x7f"}, "item_id", "U+007F"),
        ({"item_id": "\x85"}, "item_id", "U+0085"),
        ({"item_id": "\x00"}, "item_id", "U+0000"),
        ({"event_id": "e" * 300}, "event_id", "300 bytes"),
        ({"type": 0}, "type", "missing"),
        ({"type": 99}, "type", "unknown value 99"),
        ({"type": -1}, "type", "unknown value -1"),
        ({"occurred_at_ms": 0}, "occurred_at_ms", "missing"),
        ({"occurred_at_ms": -5}, "occurred_at_ms", "negative"),
        ({"occurred_at_ms": 1_700_000_000}, "occurred_at_ms", "looks like seconds"),
        ({"occurred_at_ms": 631_151_999_999}, "occurred_at_ms", "looks like seconds"),
        ({"occurred_at_ms": 1_700_000_000_000_000}, "occurred_at_ms", "micro"),
        ({"type": PURCHASE, "value": math.nan}, "value", "nan is not finite"),
        ({"type": PURCHASE, "value": math.inf}, "value", "inf is not finite"),
        ({"type": PURCHASE, "value": -0.01}, "value", "-0.01"),
        ({"type": RATING}, "value", "missing"),
        ({"type": RATING, "value": -math.inf}, "value", "not finite"),
        ({"value": math.nan}, "value", "not finite"),
        ({"value": 1e300}, "value", "1e+300"),
        ({"type": CUSTOM}, "custom_type", "missing"),
        ({"custom_type": "zoom"}, "custom_type", "zoom"),
        ({"type": FORGET}, "item_id", "'i'"),
        ({"session_id": "s" * 257}, "session_id", "257 bytes"),
        ({"request_id": "r\t"}, "request_id", "U+0009"),
        ({"context": Context(os="o" * 257)}, "context.os", "257 bytes"),
        ({"context": Context(attributes={str(n): "" for n in range(33)})}, "context.attributes", "33 entries"),
        ({"context": Context(attributes={"k": "v" * 257})}, "context.attributes['k']", "257 bytes"),
        ({"context": Context(attributes={"k" * 257: "v"})}, "context.attributes key", "257 bytes"),
    ],
)
def test_invalid_interactions(changes: dict[str, Any], field: str, says: str) -> None:
    with pytest.raises(InvalidField) as caught:
        check_interaction(click(**changes))
    assert caught.value.field == field
    assert says in caught.value.problem
    assert caught.value.allowed


def test_append_time_decides_what_is_the_future() -> None:
    check_append_time(NOW_MS + 300_000, NOW_MS)
    check_append_time(NOW_MS - 10**12, NOW_MS)
    with pytest.raises(InvalidField, match="301 s ahead of the append time") as caught:
        check_append_time(NOW_MS + 301_000, NOW_MS)
    assert caught.value.field == "occurred_at_ms"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"item_id": ""}, "item_id"),
        ({"title": "t" * 1025}, "title"),
        ({"category": "c" * 257}, "category"),
        ({"tags": ["t"] * 65}, "tags"),
        ({"tags": ["ok", "t" * 257]}, "tags[1]"),
        ({"price": math.nan}, "price"),
        ({"price": -1.0}, "price"),
        ({"price": math.inf}, "price"),
        ({"published_at_ms": -1}, "published_at_ms"),
        ({"published_at_ms": 1_700_000_000}, "published_at_ms"),
        ({"url": "u" * 2049}, "url"),
        ({"image_url": "u" * 2049}, "image_url"),
        ({"attributes": {str(n): "" for n in range(33)}}, "attributes"),
    ],
)
def test_invalid_items(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidField) as caught:
        check_item(Item(**{"item_id": "i", **changes}))
    assert caught.value.field == field


def test_valid_items() -> None:
    check_item(Item(item_id="i"))
    check_item(Item(item_id="i", title="t" * 1024, price=0.0, tags=["x"] * 64, published_at_ms=220_924_800_000))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"user_id": ""}, "user_id"),
        ({"k": 0}, "k"),
        ({"k": -1}, "k"),
        ({"k": 10**6}, "k"),
        ({"k": 201}, "k"),
        ({"context": Context(device="d" * 257)}, "context.device"),
        ({"session_id": "s" * 257}, "session_id"),
        ({"exclude_item_ids": ["i"] * 1001}, "exclude_item_ids"),
        ({"exclude_item_ids": ["i", ""]}, "exclude_item_ids[1]"),
        ({"restrict_to_item_ids": ["a\n"]}, "restrict_to_item_ids[0]"),
        ({"as_of_ms": 0}, "as_of_ms"),
        ({"as_of_ms": 1_700_000_000}, "as_of_ms"),
        ({"request_id": "r" * 257}, "request_id"),
        ({"repeat_policy": 7}, "repeat_policy"),
        ({"viewport": 201}, "viewport"),
    ],
)
def test_invalid_requests(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidField) as caught:
        check_recommend_request(request(**changes))
    assert caught.value.field == field
    with pytest.raises(InvalidField) as caught:
        check_recommend_batch(RecommendBatchRequest(requests=[request(), request(**changes)]))
    assert caught.value.field == f"requests[1].{field}"


@pytest.mark.parametrize("count", [0, 101])
def test_a_batch_has_bounds(count: int) -> None:
    with pytest.raises(InvalidField, match=f"requests: {count} requests"):
        check_recommend_batch(RecommendBatchRequest(requests=[request()] * count))


def test_valid_requests() -> None:
    check_recommend_request(request(k=200, viewport=200, as_of_ms=NOW_MS, repeat_policy=2))
    check_recommend_batch(RecommendBatchRequest(requests=[request()] * 100))


def _with_evidence(**changes: Any) -> StartExperimentCommand:
    evidence = GateEvidence(**{"model_version": "2", "champion_version": "1", **changes})
    return StartExperimentCommand(experiment_id="e", evidence=[evidence])


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"command_id": ""}, "command_id"),
        ({"issued_at_ms": 0}, "issued_at_ms"),
        ({"issued_by": "x" * 257}, "issued_by"),
        ({"promote": PromoteCommand(model_name="m")}, "promote.model_version"),
        ({"promote": PromoteCommand(model_version="1")}, "promote.model_name"),
        ({"roll_back": RollBackCommand(model_name="m", model_version="\n")}, "roll_back.model_version"),
        (
            {"start_experiment": StartExperimentCommand(experiment_id="e", override_reason="\n")},
            "start_experiment.override_reason",
        ),
        ({"start_experiment": _with_evidence(model_version="")}, "start_experiment.evidence[0].model_version"),
        ({"start_experiment": _with_evidence(effect_low=-math.inf)}, "start_experiment.evidence[0].effect_low"),
        ({"start_experiment": _with_evidence(refusal="x" * 1_025)}, "start_experiment.evidence[0].refusal"),
    ],
)
def test_invalid_commands(changes: dict[str, Any], field: str) -> None:
    values = {"command_id": "c", "issued_at_ms": NOW_MS}
    with pytest.raises(InvalidField) as caught:
        check_command(Command(**{**values, "roll_back": RollBackCommand(model_name="m"), **changes}))
    assert caught.value.field == field


def test_a_command_asks_for_something() -> None:
    with pytest.raises(InvalidField, match="action: missing"):
        check_command(Command(command_id="c", issued_at_ms=NOW_MS))
    check_command(Command(command_id="c", issued_at_ms=NOW_MS, roll_back=RollBackCommand(model_name="m")))
    check_command(Command(command_id="c", issued_at_ms=NOW_MS, start_experiment=_with_evidence(effect=0.1)))


_text = st.text(st.characters(codec="utf-8"), max_size=300)
_events = st.builds(
    Interaction,
    event_id=_text,
    user_id=_text,
    item_id=_text,
    type=st.integers(-1, 11),
    occurred_at_ms=st.integers(-(2**63), 2**63 - 1) | st.integers(631_152_000_000, NOW_MS),
    value=st.none() | st.floats(),
    session_id=_text,
    request_id=_text,
    custom_type=_text,
    context=st.builds(Context, device=_text, attributes=st.dictionaries(_text, _text, max_size=40)),
)


def _valid(event: Interaction) -> bool:
    try:
        check_interaction(event)
    except InvalidField:
        return False
    return True


@given(_events)
def test_the_verdict_survives_the_wire(event: Interaction) -> None:
    """Producer and worker judge alike: an event is valid after the wire exactly if it was before."""
    assert _valid(Interaction.FromString(event.SerializeToString())) == _valid(event)


def _plainly_valid(value: str) -> bool:
    """The rule of an id as the contract says it, without the fast path."""
    return 1 <= len(value.encode()) <= 256 and not any(ord(c) < 0x20 or 0x7F <= ord(c) <= 0x9F for c in value)


@given(_text, _text, _text)
def test_ids_obey_the_contract(event_id: str, user_id: str, item_id: str) -> None:
    """The fast path of short printable text changes no verdict."""
    event = click(event_id=event_id, user_id=user_id, item_id=item_id)
    assert _valid(event) == all(map(_plainly_valid, (event_id, user_id, item_id)))
