"""What became of an answer, as far as the topics tell: its slots, what the user did with it, and what is still open.

Pure: records in, values out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from millrace.story.entry import Entry
from millrace.v1.impression_pb2 import Impression, Slot
from millrace.v1.interaction_pb2 import Interaction, InteractionType
from millrace.v1.outcome_pb2 import DecidedSlot, Outcome

_FORGET = InteractionType.INTERACTION_TYPE_FORGET


@dataclass(frozen=True, slots=True)
class SlotStory:
    """A slot, and how it was decided; ``decided`` is None while it is open."""

    slot: Slot
    decided: DecidedSlot | None = None


@dataclass(frozen=True, slots=True)
class Deed:
    """Something that the user did with an answer.

    Attributes
    ----------
    named
        Whether it names the answer; else the joiner found out.
    repeated
        Whether its event_id came before: it counts once.
    """

    entry: Entry[Interaction]
    named: bool
    repeated: bool


class Standing(Enum):
    """Whether everything of an answer is decided, and if not, why."""

    DECIDED = "decided"
    NO_SLOTS = "no slots"
    """There was nothing to decide."""
    FORGOTTEN = "forgotten"
    """The user asked to be forgotten: open slots are dropped."""
    OPEN = "open"
    """The attribution window is not over."""
    OVERDUE = "overdue"
    """It is over, and the joiner has not said what came of it."""


def slot_stories(impression: Impression, outcomes: Iterable[Entry[Outcome]]) -> list[SlotStory]:
    """Every slot in the order shown."""
    decided = {one.slot.rank: one for outcome in outcomes for one in outcome.message.slots}
    return [SlotStory(slot, decided.get(slot.rank)) for slot in impression.slots]


def deeds(
    impression: Impression, outcomes: Iterable[Entry[Outcome]], interactions: Iterable[Entry[Interaction]]
) -> list[Deed]:
    """What the user did with the answer, in the order of event times.

    Interactions that name the answer, and those without a name that decided one of its slots. A view without a name
    stands in no outcome, so that it is not among them.
    """
    deciding = {one.event_id for outcome in outcomes for one in outcome.message.slots if one.event_id}
    theirs = [
        one
        for one in interactions
        if one.message.user_id == impression.user_id
        and (one.message.request_id == impression.request_id or one.message.event_id in deciding)
    ]
    return sorted(_deeds(impression, theirs), key=lambda one: (one.entry.message.occurred_at_ms, one.entry.offset))


def _deeds(impression: Impression, theirs: Iterable[Entry[Interaction]]) -> Iterator[Deed]:
    taken: set[str] = set()
    for entry in theirs:
        event = entry.message
        yield Deed(entry, event.request_id == impression.request_id, event.event_id in taken)
        taken.add(event.event_id)


def standing(
    answer: Entry[Impression],
    outcomes: Sequence[Entry[Outcome]],
    interactions: Iterable[Entry[Interaction]],
    window_ms: int,
    now_ms: int,
) -> Standing:
    """How far the joiner is with an answer.

    Parameters
    ----------
    interactions
        Of the user, since the answer.
    window_ms
        The attribution window.
    now_ms
        Unix milliseconds. The joiner's clock is that of the events, which for an answer with a serving time of its
        own (a replay) is another one: such an answer is not overdue.
    """
    impression = answer.message
    if not impression.slots:
        return Standing.NO_SLOTS
    if any(one.message.final for one in outcomes):
        return Standing.DECIDED
    if any(
        one.message.type == _FORGET
        and one.message.user_id == impression.user_id
        and one.append_time_ms >= answer.append_time_ms
        for one in interactions
    ):
        return Standing.FORGOTTEN
    over = now_ms > impression.served_at_ms + window_ms and not impression.as_of_given
    return Standing.OVERDUE if over else Standing.OPEN
