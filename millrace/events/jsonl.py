"""Events as people write them by hand: JSON with the contract's field names, flat or in protobuf's JSON form."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from millrace.errors import InvalidField
from millrace.events import build
from millrace.events.columns import as_number, time_ms
from millrace.events.rules import check_interaction, check_item
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.item_pb2 import Item

LINE_MAX_BYTES = 256 * 1024
"""No event comes near it; the workers refuse values of more."""

_CAPITAL = re.compile("[A-Z]")
_TEXTS = ("user_id", "item_id", "session_id", "request_id", "custom_type")
_ITEM_TEXTS = ("item_id", "title", "category", "url", "image_url")
INTERACTION_KEYS = frozenset(
    (*_TEXTS, "event_id", "type", "occurred_at", "occurred_at_ms", "value", "context", *build.CONTEXT_FIELDS)
)
ITEM_KEYS = frozenset((*_ITEM_TEXTS, "tags", "price", "available", "published_at", "published_at_ms", "attributes"))


def parse_interaction(line: bytes) -> Interaction:
    """The interaction in a line of JSON, checked.

    Keys are the contract's (``user_id`` or ``userId``); ``type`` is ``click`` or ``INTERACTION_TYPE_CLICK``;
    ``occurred_at`` takes seconds, milliseconds or ISO 8601 (default: now), ``occurred_at_ms`` milliseconds; an
    ``event_id`` is made if there is none; the context's fields may stand at the top.

    Raises
    ------
    InvalidField
        The line is no JSON object, has an unknown key, or a value breaks the contract.
    """
    return read_interaction(_object(line))


def read_interaction(written: Mapping[str, object]) -> Interaction:
    """The same of an object that was read already."""
    values = _known(written, INTERACTION_KEYS)
    kind = values.get("type", "click")
    event_id, occurred_at_ms = values.get("event_id"), _time(values, "occurred_at")
    event = Interaction(type=build.event_type(kind if isinstance(kind, str) else str(kind)))
    build.fill(
        event,
        event_id=build.new_event_id() if event_id is None else event_id,
        occurred_at_ms=build.now_ms() if occurred_at_ms is None else occurred_at_ms,
        value=_number(values, "value"),
        **{name: values.get(name) for name in _TEXTS},
    )
    context = _part(values, "context")
    attributes = _part(context, "attributes", "context.attributes")
    context.pop("attributes", None)
    context.update({name: values[name] for name in build.CONTEXT_FIELDS if name in values})
    if context or attributes:
        build.fill_context(event.context, {**attributes, **context})
    check_interaction(event)
    return event


def parse_item(line: bytes) -> Item:
    """The catalogue entry in a line of JSON, checked. Keys and errors as in ``parse_interaction``."""
    return read_item(_object(line))


def read_item(written: Mapping[str, object]) -> Item:
    """The same of an object that was read already."""
    values = _known(written, ITEM_KEYS)
    entry = Item()
    build.fill(
        entry,
        price=_number(values, "price"),
        available=values.get("available"),
        published_at_ms=_time(values, "published_at"),
        **{name: values.get(name) for name in _ITEM_TEXTS},
    )
    tags = values.get("tags", [])
    if not isinstance(tags, list):
        raise InvalidField("tags", repr(tags), "a list of text")
    build.extend(entry, "tags", tags)
    for name, value in _part(values, "attributes").items():
        build.put(entry.attributes, "attributes", name, value)
    check_item(entry)
    return entry


def _object(line: bytes) -> dict[str, object]:
    if len(line) > LINE_MAX_BYTES:
        raise InvalidField("line", f"{len(line)} bytes", f"at most {LINE_MAX_BYTES} bytes")
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidField("line", f"not JSON ({error})", "a JSON object") from error
    if not isinstance(found, dict):
        raise InvalidField("line", f"a JSON {type(found).__name__}", "a JSON object")
    return found


def _known(written: Mapping[str, object], known: frozenset[str]) -> dict[str, object]:
    """The values by the contract's names."""
    values = {name if name in known else _snake(name): value for name, value in written.items()}
    if unknown := [name for name in values if name not in known]:
        raise InvalidField(unknown[0], "unknown field", ", ".join(sorted(known)))
    return values


def _snake(name: str) -> str:
    """Protobuf's JSON form writes ``userId`` for ``user_id``."""
    return _CAPITAL.sub(lambda found: "_" + found[0].lower(), name)


def _part(values: Mapping[str, object], name: str, path: str = "") -> dict[str, object]:
    part = values.get(name)
    if part is None:
        return {}
    if not isinstance(part, dict):
        raise InvalidField(path or name, repr(part), "a JSON object")
    return dict(part)


def _time(values: Mapping[str, object], name: str) -> int | None:
    """Milliseconds from ``<name>_ms`` (a number, or text as in protobuf's JSON form), else from ``<name>``."""
    if (exact := values.get(f"{name}_ms")) is not None:
        return time_ms(exact, "ms", f"{name}_ms")
    if (loose := values.get(name)) is not None:
        return time_ms(loose, "auto", name)
    return None


def _number(values: Mapping[str, object], name: str) -> float | None:
    value = values.get(name)
    if value is None:
        return None
    number = as_number(value)
    if number is None:
        raise InvalidField(name, repr(value), "a number")
    return float(number)
