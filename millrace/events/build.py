"""Builds contract messages from plain Python values, so that a wrong one is named by its field.

Protobuf itself answers a wrong type with "bad argument type for built-in operation" and no field.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal, TypeAlias, TypedDict, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from millrace.errors import InvalidField
from millrace.v1.common_pb2 import Context
from millrace.v1.interaction_pb2 import Interaction, InteractionType
from millrace.v1.item_pb2 import Item
from millrace.v1.recommendation_service_pb2 import RecommendRequest, RepeatPolicy

EventType: TypeAlias = Literal[
    "view", "click", "add_to_cart", "purchase", "like", "dislike", "rating", "custom", "forget"
]
Instant: TypeAlias = datetime | int
"""A time: a ``datetime`` with its zone, or Unix milliseconds."""

TYPES: Mapping[str, InteractionType.ValueType] = {
    name.removeprefix("INTERACTION_TYPE_").lower(): InteractionType.Value(name) for name in InteractionType.keys()[1:]
}
"""Short name of each type of interaction, as producers write it."""
CONTEXT_FIELDS = ("device", "os", "country", "region", "referrer", "placement")

_REPEATS: Mapping[str, RepeatPolicy.ValueType] = {
    "": RepeatPolicy.REPEAT_POLICY_UNSPECIFIED,
    "learned": RepeatPolicy.REPEAT_POLICY_LEARNED,
    "exclude": RepeatPolicy.REPEAT_POLICY_EXCLUDE,
}
_EXPECTED = {
    FieldDescriptor.CPPTYPE_STRING: "text",
    FieldDescriptor.CPPTYPE_BOOL: "true or false",
    FieldDescriptor.CPPTYPE_DOUBLE: "a number",
}
M = TypeVar("M", bound=Message)


class InteractionFields(TypedDict, total=False):
    """Optional parts of ``interaction``, for the signatures of those who pass them on."""

    occurred_at: Instant | None
    event_id: str | None
    value: float | None
    session_id: str
    request_id: str
    custom_type: str
    context: Mapping[str, str] | None


class ItemFields(TypedDict, total=False):
    """Optional parts of ``item``."""

    title: str
    category: str
    tags: Sequence[str]
    price: float | None
    available: bool | None
    published_at: Instant | None
    url: str
    image_url: str
    attributes: Mapping[str, str] | None


class RequestFields(TypedDict, total=False):
    """Optional parts of ``request``."""

    exclude: Sequence[str]
    restrict_to: Sequence[str]
    session_id: str
    context: Mapping[str, str] | None
    as_of: Instant | None
    request_id: str
    repeats: Literal["", "learned", "exclude"]
    viewport: int
    explain: bool


def interaction(
    user_id: str,
    item_id: str,
    type: EventType | str = "click",
    *,
    occurred_at: Instant | None = None,
    event_id: str | None = None,
    value: float | None = None,
    session_id: str = "",
    request_id: str = "",
    custom_type: str = "",
    context: Mapping[str, str] | None = None,
) -> Interaction:
    """An interaction; what is left out is made: a new event id, and now as its time.

    ``context`` takes the contract's fields (device, os, country, region, referrer, placement) by name; any
    other name becomes an attribute. Raises ``InvalidField`` for values of a wrong type (rules are not checked).
    """
    event = Interaction(type=event_type(type))
    fill(
        event,
        event_id=new_event_id() if event_id is None else event_id,
        user_id=user_id,
        item_id=item_id,
        occurred_at_ms=now_ms() if occurred_at is None else instant_ms("occurred_at_ms", occurred_at),
        value=value,
        session_id=session_id,
        request_id=request_id,
        custom_type=custom_type,
    )
    if context:
        fill_context(event.context, context)
    return event


def item(
    item_id: str,
    *,
    title: str = "",
    category: str = "",
    tags: Sequence[str] = (),
    price: float | None = None,
    available: bool | None = None,
    published_at: Instant | None = None,
    url: str = "",
    image_url: str = "",
    attributes: Mapping[str, str] | None = None,
) -> Item:
    """A catalogue entry. Raises ``InvalidField`` for values of a wrong type (rules are not checked)."""
    entry = Item()
    fill(
        entry,
        item_id=item_id,
        title=title,
        category=category,
        price=price,
        available=available,
        published_at_ms=0 if published_at is None else instant_ms("published_at_ms", published_at),
        url=url,
        image_url=image_url,
    )
    extend(entry, "tags", tags)
    for name, value in (attributes or {}).items():
        put(entry.attributes, "attributes", name, value)
    return entry


def request(
    user_id: str,
    k: int = 10,
    *,
    exclude: Sequence[str] = (),
    restrict_to: Sequence[str] = (),
    session_id: str = "",
    context: Mapping[str, str] | None = None,
    as_of: Instant | None = None,
    request_id: str = "",
    repeats: Literal["", "learned", "exclude"] = "",
    viewport: int = 0,
    explain: bool = False,
) -> RecommendRequest:
    """A request for recommendations; the parameters are the contract's fields in short.

    Raises ``InvalidField`` for values of a wrong type (rules are not checked).
    """
    if repeats not in _REPEATS:
        raise InvalidField("repeat_policy", repr(repeats), "learned, exclude, or empty for the service's setting")
    asked = RecommendRequest(repeat_policy=_REPEATS[repeats])
    fill(
        asked,
        user_id=user_id,
        k=k,
        session_id=session_id,
        as_of_ms=None if as_of is None else instant_ms("as_of_ms", as_of),
        request_id=request_id,
        viewport=viewport,
        explain=explain,
    )
    extend(asked, "exclude_item_ids", exclude)
    extend(asked, "restrict_to_item_ids", restrict_to)
    if context:
        fill_context(asked.context, context)
    return asked


def new_event_id() -> str:
    """A unique id that sorts by time (the idea of UUID version 7): 48 bits of milliseconds, 80 random bits, hex."""
    return f"{now_ms():012x}{os.urandom(10).hex()}"


def now_ms() -> int:
    """Unix milliseconds by this machine's clock."""
    return time.time_ns() // 1_000_000


def event_type(name: str) -> InteractionType.ValueType:
    """The type by its short name (``"click"``) or the contract's (``"INTERACTION_TYPE_CLICK"``)."""
    kind = TYPES.get(str(name).lower().removeprefix("interaction_type_"))
    if kind is None:
        raise InvalidField("type", repr(name), ", ".join(TYPES))
    return kind


def instant_ms(field: str, instant: Instant) -> int:
    """Unix milliseconds of a time."""
    if isinstance(instant, datetime):
        if instant.tzinfo is None:
            raise InvalidField(field, f"{instant} has no time zone", "a datetime with its zone, or Unix milliseconds")
        return round(instant.timestamp() * 1000)
    if isinstance(instant, bool) or not isinstance(instant, int):
        raise InvalidField(field, repr(instant), "a datetime with its zone, or whole Unix milliseconds")
    return instant


def fill(message: Message, **values: object) -> None:
    """Set fields of plain types; None leaves a field out."""
    for name, value in values.items():
        if value is None:
            continue
        try:
            setattr(message, name, value)
        except (TypeError, ValueError) as error:
            raise _wrong(message, name, value) from error


def extend(message: Message, name: str, values: Sequence[str]) -> None:
    """Append to a field of repeated text."""
    if isinstance(values, str):
        # A text is a sequence of texts too: "abc" would become three entries.
        raise InvalidField(name, repr(values), "a list of text")
    field = getattr(message, name)
    for place, value in enumerate(values):
        try:
            field.append(value)
        except (TypeError, ValueError) as error:
            raise InvalidField(f"{name}[{place}]", ascii(value), "text") from error


def fill_context(context: Context, values: Mapping[str, object]) -> None:
    """Set the circumstances; names that the contract does not have become attributes."""
    for name, value in values.items():
        if name in CONTEXT_FIELDS:
            try:
                setattr(context, name, value)
            except (TypeError, ValueError) as error:
                raise InvalidField(f"context.{name}", ascii(value), "text") from error
        else:
            put(context.attributes, "context.attributes", name, value)


def context_values(context: Context) -> dict[str, str]:
    """What ``fill_context`` sets a context from."""
    found = {name: text for name in CONTEXT_FIELDS if (text := getattr(context, name))}
    return {**context.attributes, **found}


def put(attributes: Mapping[str, str], path: str, name: str, value: object) -> None:
    """Set one entry of a map of text."""
    try:
        attributes[name] = value  # type: ignore[index]  # a protobuf map; its stub is a plain Mapping here
    except (TypeError, ValueError) as error:
        raise InvalidField(f"{path}[{name!r}]", ascii(value), "text") from error


def _wrong(message: Message, name: str, value: object) -> InvalidField:
    kind = message.DESCRIPTOR.fields_by_name[name].cpp_type
    return InvalidField(name, f"{value!a} ({type(value).__name__})", _EXPECTED.get(kind, "a whole number"))
