"""Events as JSON lines: the contract's names, protobuf's JSON form, and what is refused."""

from __future__ import annotations

import pytest
from google.protobuf.json_format import MessageToJson

from millrace.errors import InvalidField
from millrace.events import build
from millrace.events.jsonl import LINE_MAX_BYTES, parse_interaction, parse_item


def test_the_shortest_event() -> None:
    event = parse_interaction(b'{"user_id": "ann", "item_id": "shoe-7"}')
    assert (event.user_id, event.item_id, len(event.event_id)) == ("ann", "shoe-7", 32)


@pytest.mark.parametrize("proto_names", [True, False])
def test_protobufs_json_form_is_understood(proto_names: bool) -> None:
    event = build.interaction(
        "ann", "shoe", "purchase", value=5.5, session_id="s", request_id="r", context={"os": "x", "plan": "gold"}
    )
    line = MessageToJson(event, preserving_proto_field_name=proto_names, indent=None)
    assert parse_interaction(line.encode()) == event
    item = build.item("i", title="t", tags=["a"], price=2.5, available=False, attributes={"k": "v"})
    assert parse_item(MessageToJson(item, preserving_proto_field_name=proto_names, indent=None).encode()) == item


def test_flat_keys_and_loose_times() -> None:
    event = parse_interaction(
        b'{"userId": "ann", "item_id": "x", "type": "view", "occurred_at": "2017-10-01T03:00:00Z", "device": "tv"}'
    )
    assert (event.occurred_at_ms, event.context.device) == (1_506_826_800_000, "tv")


@pytest.mark.parametrize(
    ("line", "field"),
    [
        (b"", "line"),
        (b"{", "line"),
        (b"[]", "line"),
        (b"3", "line"),
        (b"\xff", "line"),
        (b"[" * 100_000, "line"),
        (b'"' + b"x" * LINE_MAX_BYTES + b'"', "line"),
        (b"{}", "user_id"),
        (b'{"user_id": "u"}', "item_id"),
        (b'{"user_id": 1, "item_id": "i"}', "user_id"),
        (b'{"user_id": "\\ud800", "item_id": "i"}', "user_id"),
        (b'{"user_id": "u", "item_id": "i", "colour": "red"}', "colour"),
        (b'{"user_id": "u", "item_id": "i", "type": "clock"}', "type"),
        (b'{"user_id": "u", "item_id": "i", "type": []}', "type"),
        (b'{"user_id": "u", "item_id": "i", "event_id": ""}', "event_id"),
        (b'{"user_id": "u", "item_id": "i", "value": NaN}', "value"),
        (b'{"user_id": "u", "item_id": "i", "value": "much"}', "value"),
        (b'{"user_id": "u", "item_id": "i", "value": 1%s}' % (b"0" * 400), "value"),
        (b'{"user_id": "u", "item_id": "i", "occurred_at_ms": 0}', "occurred_at_ms"),
        (b'{"user_id": "u", "item_id": "i", "occurred_at_ms": 1506826800}', "occurred_at_ms"),
        (b'{"user_id": "u", "item_id": "i", "occurred_at": "soon"}', "occurred_at"),
        (b'{"user_id": "u", "item_id": "i", "context": []}', "context"),
        (b'{"user_id": "u", "item_id": "i", "context": [1]}', "context"),
        (b'{"user_id": "u", "item_id": "i", "context": {"os": 1}}', "context.os"),
        (b'{"user_id": "u", "item_id": "i", "context": {"attributes": [1]}}', "context.attributes"),
    ],
)
def test_bad_lines_name_the_field(line: bytes, field: str) -> None:
    with pytest.raises(InvalidField) as caught:
        parse_interaction(line)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("line", "field"),
    [
        (b"{}", "item_id"),
        (b'{"item_id": "i", "price": -1}', "price"),
        (b'{"item_id": "i", "price": NaN}', "price"),
        (b'{"item_id": "i", "tags": "abc"}', "tags"),
        (b'{"item_id": "i", "tags": [1]}', "tags[0]"),
        (b'{"item_id": "i", "available": "no"}', "available"),
        (b'{"item_id": "i", "published_at": "soon"}', "published_at"),
        (b'{"item_id": "i", "attributes": {"k": 1}}', "attributes['k']"),
        (b'{"item_id": "i", "user_id": "u"}', "user_id"),
    ],
)
def test_bad_catalogue_lines_name_the_field(line: bytes, field: str) -> None:
    with pytest.raises(InvalidField) as caught:
        parse_item(line)
    assert caught.value.field == field
