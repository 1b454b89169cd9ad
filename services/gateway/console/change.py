"""What a click changed: the user's answers before and after it, as they were served."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from millrace.settings import MINUTE_MS, Settings
from millrace.stream.worker import Record
from millrace.topics import IMPRESSIONS
from millrace.v1.impression_pb2 import Impression, Slot
from millrace.v1.interaction_pb2 import Interaction
from services.gateway.console.reading import Found, Place, read_piece
from services.gateway.console.words import label

# Who asks for recommendations does so around a click.
AROUND_MS = 10 * MINUTE_MS
# Features of one item that moved: the most telling, or nobody reads them.
MOVES_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Moved:
    """An item of the later answer (``before``, ``after``: places from 1; None: it was not there)."""

    item_id: str
    before: int | None
    after: int | None
    features: Sequence[tuple[str, float, float]]


def answers_around(settings: Settings, event: Record) -> tuple[Impression | None, Impression | None]:
    """The user's last answer that did not know the event, and the first that did. Takes some milliseconds.

    Raises InfrastructureError.
    """
    assert event.key is not None

    def answers(found: Found) -> bool:
        return isinstance(found.record.message, Impression)

    place = Place(time_ms=event.append_time_ms - AROUND_MS)
    piece = read_piece(settings, IMPRESSIONS, place, 500, answers, event.partition, event.key)
    served = [one.record.message for one in piece.found if isinstance(one.record.message, Impression)]
    return before_and_after(served, event.partition, event.offset)


def before_and_after(
    answers: Iterable[Impression], partition: int, offset: int
) -> tuple[Impression | None, Impression | None]:
    """The last answer, in their order, that did not know the event at a position, and the first that did."""
    before = None
    for answer in answers:
        if answer.HasField("known") and answer.known.partition == partition and answer.known.offset >= offset:
            return before, answer
        before = answer
    return before, None


def moved(before: Impression, after: Impression, names: Sequence[str]) -> list[Moved]:
    """What became of every item of two answers; ``names``: of the features, empty if they are of another schema."""
    old = {slot.item_id: slot for slot in before.slots}
    new = {slot.item_id: slot for slot in after.slots}
    stayed = [
        Moved(name, old[name].rank + 1 if name in old else None, slot.rank + 1, _moves(old.get(name), slot, names))
        for name, slot in new.items()
    ]
    return stayed + [Moved(name, slot.rank + 1, None, ()) for name, slot in old.items() if name not in new]


def _moves(before: Slot | None, after: Slot, names: Sequence[str]) -> list[tuple[str, float, float]]:
    if before is None or not len(before.features) == len(after.features) == len(names):
        return []
    found = [
        (label(name), one, two)
        for name, one, two in zip(names, before.features, after.features, strict=True)
        if abs(two - one) > 1e-3 and not name.startswith("user_")
    ]
    return sorted(found, key=lambda one: -abs(one[2] - one[1]))[:MOVES_SHOWN]


def change_of(settings: Settings, event: Record) -> dict[str, Any] | None:
    """What templates show of it; None for what is no event, or has no answer near it. Raises InfrastructureError."""
    if not isinstance(event.message, Interaction) or event.key is None:
        return None
    from millrace.ranking.features import FEATURE_NAMES, FEATURE_SCHEMA

    before, after = answers_around(settings, event)
    if before is None and after is None:
        return None
    items: list[Moved] = []
    if before is not None and after is not None:
        known = before.feature_schema == after.feature_schema == FEATURE_SCHEMA
        items = moved(before, after, FEATURE_NAMES if known else ())
    return {"before": before, "after": after, "items": items}
