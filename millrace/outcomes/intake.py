"""What the joiner takes: impressions and interactions that keep the rules of the contracts."""

from __future__ import annotations

from millrace.errors import InvalidField
from millrace.events.rules import K_MAX, OCCURRED_MIN_MS, TIME_MAX_MS, check_append_time, check_id, check_interaction
from millrace.stream.worker import Record
from millrace.v1.impression_pb2 import Impression
from millrace.v1.interaction_pb2 import Interaction


def read_impression(record: Record) -> Impression:
    """The impression in a record. Raises InvalidField.

    Features are not looked at: what they have to be is known to whoever learns from them.
    """
    impression = record.message
    if not isinstance(impression, Impression):
        raise InvalidField("value", "empty", "an impression")
    check_id("request_id", impression.request_id)
    check_id("user_id", impression.user_id)
    served_at_ms = impression.served_at_ms
    if not OCCURRED_MIN_MS <= served_at_ms <= TIME_MAX_MS:
        raise InvalidField("served_at_ms", str(served_at_ms), f"Unix milliseconds, {OCCURRED_MIN_MS} to {TIME_MAX_MS}")
    check_append_time(served_at_ms, record.append_time_ms)
    if len(impression.slots) > K_MAX:
        raise InvalidField("slots", f"{len(impression.slots)} slots", f"at most {K_MAX}")
    for place, slot in enumerate(impression.slots):
        if slot.rank != place:
            raise InvalidField(f"slots[{place}].rank", str(slot.rank), f"{place}: slots in the order shown")
        if not slot.item_id:
            check_id(f"slots[{place}].item_id", slot.item_id)
    return impression


def read_interaction(record: Record) -> Interaction:
    """The interaction in a record. Raises InvalidField."""
    interaction = record.message
    if not isinstance(interaction, Interaction):
        raise InvalidField("value", "empty", "an interaction")
    check_interaction(interaction)
    check_append_time(interaction.occurred_at_ms, record.append_time_ms)
    return interaction
