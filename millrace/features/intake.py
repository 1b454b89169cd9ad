"""From records to what the scripts take: checked against the contract's rules, then packed."""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import NamedTuple

from millrace.errors import InvalidField
from millrace.events.rules import check_append_time, check_id, check_interaction, check_item
from millrace.features.user_state import EVENT, LENGTH, POSITION, session_number
from millrace.stream.worker import Record
from millrace.v1.interaction_pb2 import Interaction, InteractionType
from millrace.v1.item_pb2 import Item

_FORGET = InteractionType.INTERACTION_TYPE_FORGET
_VALUE = struct.Struct("<d")


class Event(NamedTuple):
    """A valid interaction and its place in the log, packed for the user script.

    Attributes
    ----------
    user
        Key of the user.
    item
        The item's id; empty for FORGET.
    position
        Offset << 16 | partition.
    packed
        ``EVENT`` of ``user_state.py``, the item, the item's length again, the value.
    """

    user: bytes
    item: bytes
    type: int
    position: int
    at_ms: int
    value: float
    packed: bytes


class CatalogueEntry(NamedTuple):
    """A valid catalogue record, packed for the catalogue script: its position, then the Item (nothing: it is gone)."""

    item: bytes
    packed: bytes


def read_interaction(record: Record) -> Event:
    """The interaction in a record. Raises InvalidField."""
    message = record.message
    if not isinstance(message, Interaction):
        raise InvalidField("value", "empty", "an interaction")
    check_interaction(message)
    occurred_at_ms, append_time_ms = message.occurred_at_ms, record.append_time_ms
    check_append_time(occurred_at_ms, append_time_ms)
    kind, value, session = message.type, message.value, message.session_id
    item = message.item_id.encode()
    position = record.offset << 16 | record.partition
    # A FORGET does nothing but erase: the time that counts is the broker's.
    at_ms = append_time_ms if kind == _FORGET else occurred_at_ms
    event_hash = blake2b(message.event_id.encode(), digest_size=8).digest()
    session_hash = session_number(session)
    length = len(item)
    packed = (
        EVENT.pack(event_hash, position, at_ms, kind, session_hash, length)
        + item
        + LENGTH.pack(length)
        + _VALUE.pack(value)
    )
    return Event(b"u:" + message.user_id.encode(), item, kind, position, at_ms, value, packed)


def read_entry(record: Record) -> CatalogueEntry:
    """The catalogue entry in a record, or the end of one. Raises InvalidField."""
    try:
        item_id = (record.key or b"").decode()
    except UnicodeDecodeError as error:
        raise InvalidField("key", repr(record.key), "the item_id in UTF-8") from error
    if isinstance(record.message, Item):
        check_item(record.message)
        if record.message.item_id != item_id:
            # The topic is compacted by key: under another key the entry could never be replaced or deleted.
            raise InvalidField("key", f"{item_id!r} for item_id {record.message.item_id!r}", "the item_id")
    else:
        check_id("key", item_id)
    return CatalogueEntry(
        item_id.encode(), POSITION.pack(record.offset << 16 | record.partition) + (record.value or b"")
    )
