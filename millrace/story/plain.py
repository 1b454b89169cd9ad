"""A story as plain values, for JSON and for people."""

from __future__ import annotations

from collections import Counter
from typing import Any

from google.protobuf.descriptor import EnumDescriptor

from millrace.story.answer import Deed, SlotStory, Standing, deeds, slot_stories, standing
from millrace.story.entry import Entry
from millrace.story.lessons import Lesson
from millrace.story.story import Story
from millrace.v1.impression_pb2 import AnswerStatus, CandidateSource, Fallback, Impression
from millrace.v1.interaction_pb2 import Interaction, InteractionType
from millrace.v1.outcome_pb2 import DecidedSlot, ImpressionOrigin, Label, Outcome


def as_plain(story: Story, window_ms: int, now_ms: int) -> dict[str, Any]:
    """Everything that there is to say (``window_ms``: the attribution window; ``now_ms``: Unix milliseconds).

    Times end in ``_at_ms`` (Unix milliseconds). What did not happen, or is not known, is null.
    """
    impression = story.answer.message
    stands = standing(story.answer, story.outcomes, story.interactions, window_ms, now_ms)
    return {
        "request_id": impression.request_id,
        "user_id": impression.user_id,
        "answer": _answer(story.answer),
        "slots": [_slot(one, impression.served_at_ms) for one in slot_stories(impression, story.outcomes)],
        "interactions": [
            _deed(one, impression.served_at_ms) for one in deeds(impression, story.outcomes, story.interactions)
        ],
        "standing": stands.value,
        "window_ms": window_ms,
        "window_ends_at_ms": impression.served_at_ms + window_ms
        if stands in (Standing.OPEN, Standing.OVERDUE)
        else None,
        "outcomes": [_outcome(one) for one in story.outcomes],
        "learning": [_lesson(one) for one in story.lessons],
    }


def _word(kind: EnumDescriptor, value: int) -> str:
    """The name of an enum's value as the outside writes it, for example ``add_to_cart``; its number if unknown."""
    names = kind.values_by_number
    if value not in names:
        return str(value)
    return str(names[value].name).removeprefix(names[0].name.removesuffix("UNSPECIFIED")).lower()


def _place(entry: Entry[Any]) -> dict[str, Any]:
    return {
        "position": {"topic": entry.topic, "partition": entry.partition, "offset": entry.offset},
        "appended_at_ms": entry.append_time_ms,
    }


def _answer(entry: Entry[Impression]) -> dict[str, Any]:
    impression = entry.message
    known = impression.known
    return {
        "served_at_ms": impression.served_at_ms,
        "as_of_given": impression.as_of_given,
        "serve_micros": impression.serve_micros,
        "status": _word(AnswerStatus.DESCRIPTOR, impression.status),
        "fallback": _word(Fallback.DESCRIPTOR, impression.fallback),
        "model_name": impression.model_name,
        "model_version": impression.model_version or None,
        "learner_epoch": impression.learner_epoch,
        "learner_sequence": impression.learner_sequence,
        "experiment_id": impression.experiment_id or None,
        "arm": impression.arm or None,
        "shuffled": impression.shuffled,
        "segment": impression.segment,
        "candidates": impression.candidates,
        "known": {"topic": known.topic, "partition": known.partition, "offset": known.offset}
        if impression.HasField("known")
        else None,
        **_place(entry),
    }


def _slot(story: SlotStory, served_at_ms: int) -> dict[str, Any]:
    slot, decided = story.slot, story.decided
    return {
        "rank": slot.rank,
        "item_id": slot.item_id,
        "score": slot.score,
        "sources": [_word(CandidateSource.DESCRIPTOR, source) for source in slot.sources],
        **_decision(decided, served_at_ms),
    }


def _decision(decided: DecidedSlot | None, served_at_ms: int) -> dict[str, Any]:
    if decided is None:
        return {"label": "open", "by": None, "event_id": None, "after_s": None}
    label = _word(Label.DESCRIPTOR, decided.label)
    if not decided.event_id:
        return {"label": label, "by": None, "event_id": None, "after_s": None}
    return {
        "label": label,
        "by": _word(InteractionType.DESCRIPTOR, decided.interaction_type),
        "event_id": decided.event_id,
        "after_s": (decided.interaction_at_ms - served_at_ms) / 1_000,
    }


def _deed(deed: Deed, served_at_ms: int) -> dict[str, Any]:
    event: Interaction = deed.entry.message
    return {
        "event_id": event.event_id,
        "type": _word(InteractionType.DESCRIPTOR, event.type),
        "custom_type": event.custom_type or None,
        "item_id": event.item_id,
        "value": event.value if event.HasField("value") else None,
        "occurred_at_ms": event.occurred_at_ms,
        "after_s": (event.occurred_at_ms - served_at_ms) / 1_000,
        "names_answer": deed.named,
        "repeated": deed.repeated,
        **_place(deed.entry),
    }


def _outcome(entry: Entry[Outcome]) -> dict[str, Any]:
    outcome = entry.message
    return {
        "decided_at_ms": outcome.decided_at_ms,
        "origin": _word(ImpressionOrigin.DESCRIPTOR, outcome.origin),
        "first": outcome.first,
        "final": outcome.final,
        "ranks": [one.slot.rank for one in outcome.slots],
        "labels": dict(Counter(_word(Label.DESCRIPTOR, one.label) for one in outcome.slots)),
        **_place(entry),
    }


def _lesson(lesson: Lesson) -> dict[str, Any]:
    update = lesson.update
    return {
        "outcome": _place(lesson.outcome)["position"],
        "learned": lesson.what.value,
        "refusal": lesson.refusal or None,
        "update": None
        if update is None
        else {
            "model_name": update.model_name,
            "model_version": update.model_version,
            "epoch": update.epoch,
            "sequence": update.sequence,
            "created_at_ms": update.created_at_ms,
            "parameters": len(update.parameters.indices),
        },
        "delay_ms": lesson.delay_ms,
        "slots": lesson.slots,
        "moves": None
        if lesson.moves is None
        else [{"parameter": one.parameter, "before": one.before, "after": one.after} for one in lesson.moves],
    }
