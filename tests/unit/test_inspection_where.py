"""``--where``: what an expression says of a message, and what is said of an expression that says nothing."""

from __future__ import annotations

import contextlib
import math
import operator
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from millrace.errors import InvalidField
from millrace.inspection.where import DEPTH_MAX, parse
from millrace.inspection.words import MAX_CHARS
from millrace.v1.impression_pb2 import CandidateSource, Impression, Slot
from millrace.v1.interaction_pb2 import Interaction, InteractionType
from millrace.v1.item_pb2 import Item
from millrace.v1.model_pb2 import ModelUpdate

CLICK = InteractionType.INTERACTION_TYPE_CLICK
EVENT = Interaction(item_id="boots", type=CLICK, value=2.5, occurred_at_ms=1_500_000_000_000)
EVENT.context.device = "phone of anna"
EVENT.context.attributes["plan.tier"] = "gold"
ANSWER = Impression(
    slots=[
        Slot(item_id="a", rank=0, score=0.1, sources=[CandidateSource.CANDIDATE_SOURCE_FRESH]),
        Slot(item_id="b", rank=1, score=0.7),
    ]
)


@pytest.mark.parametrize(
    ("expression", "holds"),
    [
        ("item_id == boots", True),
        ("item_id=='boots'", True),
        ("item_id = shoes", False),
        ('item_id != "boots"', False),
        ("item_id ~ oot", True),
        ("item_id > book and item_id < bored", True),
        ("type == click", True),
        ("type == INTERACTION_TYPE_CLICK", True),
        ("type == 2", True),
        ("type in (view, click)", True),
        ("not type in (view, CLICK)", False),
        ("value >= 2.5", True),
        ("value", True),
        ("session_id", False),
        ("session_id == ''", True),
        ("occurred_at_ms > 1499999999999.5", True),
        ("context.device ~ 'of anna'", True),
        ("context.attributes.plan.tier == gold", True),
        ("context.attributes.other == gold", False),
        ("context.attributes", True),
        ("item_id == shoes or item_id == boots and value > 9", False),
        ("(item_id == shoes or item_id == boots) and value > 2", True),
        ("not not not item_id == shoes", True),
        ("NOT item_id == shoes AND type == Click", True),
    ],
)
def test_of_an_event(expression: str, holds: bool) -> None:
    assert parse(expression, Interaction)(EVENT) is holds


@pytest.mark.parametrize(
    ("expression", "holds"),
    [
        ("slots.item_id == b", True),
        ("slots.item_id == c", False),
        ("slots.item_id != a", True),
        ("not slots.item_id == a", False),
        ("slots.rank > 0 and slots.item_id == a", True),
        ("slots.sources == fresh", True),
        ("slots.sources == repeat", False),
        ("slots.score == 0.1", True),
        ("slots", True),
        ("known", False),
        ("known.offset == 0", False),
        ("known.offset != 7", False),
        ("not known.offset == 0", True),
        ("shuffled == false", True),
    ],
)
def test_through_lists_and_what_is_not_set(expression: str, holds: bool) -> None:
    assert parse(expression, Impression)(ANSWER) is holds


def test_what_has_no_default_is_not_compared_until_it_is_set() -> None:
    condition = parse("price < 5", Item)
    assert not condition(Item())
    assert condition(Item(price=0))


@pytest.mark.parametrize(
    ("expression", "field", "allowed"),
    [
        ("itemid == x", "itemid", "event_id, user_id, item_id, type"),
        ("context.colour == x", "context.colour", "device, os, country"),
        ("item_id.x == 1", "item_id.x", "item_id"),
        ("item_id. == 1", "item_id.", "event_id"),
        ("context == x", "context", "its fields: device, os"),
        ("context.attributes == x", "context.attributes", "context.attributes.KEY"),
        ("type == clack", "type", "view, click, add_to_cart"),
        ("value == many", "value", "a number"),
        ("value in (1, many)", "value", "a number"),
        ("value ~ 3", "value", "==, !=, <"),
        ("type < click", "type", "==, !=, in"),
        ("", "where", "a field"),
        ("item_id ==", "where", "a value"),
        ("item_id == x y", "where", "and, or"),
        ("item_id x", "where", "operators: =="),
        ("item_id in x", "where", "("),
        ("(item_id == x", "where", ")"),
        ("item_id == x)", "where", "and, or"),
        ("'item_id' == x", "where", "a field"),
        ("item_id == 'x", "where", "quote"),
        ("item_id ! x", "where", "=="),
        ("not", "where", "a field"),
        ("__class__ == x", "__class__", "event_id"),
        ("item_id.__class__ == x", "item_id.__class__", "item_id"),
        ("(" * (DEPTH_MAX + 1), "where", str(DEPTH_MAX)),
        ("not " * (DEPTH_MAX + 1) + "value", "where", str(DEPTH_MAX)),
        ("v" * (MAX_CHARS + 1), "where", str(MAX_CHARS)),
    ],
)
def test_mistakes_name_the_field_and_what_is_allowed(expression: str, field: str, allowed: str) -> None:
    with pytest.raises(InvalidField) as caught:
        parse(expression, Interaction)
    assert caught.value.field == field
    assert allowed in f"{caught.value.problem} {caught.value.allowed}"


@given(st.text(max_size=60))
def test_any_text_is_an_expression_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidField):
        parse(text, ModelUpdate)(ModelUpdate())


Rendered = tuple[str, Callable[[Interaction], bool]]

_SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=6)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _of_text(sign: str, text: str) -> Rendered:
    return f"item_id {sign} {_quoted(text)}", lambda event: _SIGNS[sign](event.item_id, text)


def _of_number(sign: str, number: float) -> Rendered:
    return f"value {sign} {number!r}", lambda event: event.HasField("value") and _SIGNS[sign](event.value, number)


def _joined(word: str, parts: list[Rendered]) -> Rendered:
    quantified = all if word == "and" else any
    text = f" {word} ".join(f"({text})" for text, _ in parts)
    return text, lambda event: quantified(part(event) for _, part in parts)


def _negated(part: Rendered) -> Rendered:
    return f"not ({part[0]})", lambda event: not part[1](event)


_NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=32)
_CONDITIONS = st.recursive(
    st.builds(_of_text, st.sampled_from(sorted(_SIGNS)), _WORDS)
    | st.builds(_of_number, st.sampled_from(sorted(_SIGNS)), _NUMBERS),
    lambda parts: (
        st.builds(_joined, st.sampled_from(["and", "or"]), st.lists(parts, min_size=1, max_size=3))
        | st.builds(_negated, parts)
    ),
    max_leaves=8,
)


@given(_CONDITIONS, _WORDS, st.none() | _NUMBERS)
def test_an_expression_means_what_python_would_compute(condition: Rendered, item: str, value: float | None) -> None:
    event: Message = Interaction(item_id=item, value=value)
    text, expected = condition
    if len(text) <= MAX_CHARS:
        assert isinstance(event, Interaction)
        assert parse(text, Interaction)(event) == expected(event)
    assert value is None or math.isfinite(value)
