"""Experiments that run, answers in their arms and what came of them, for benchmarks and tests."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.seed import now_ms
from millrace.experiments.assignment import assign
from millrace.experiments.definition import shares
from millrace.experiments.life import obey
from millrace.registry.ledger import fold
from millrace.v1.command_pb2 import Command
from millrace.v1.experiment_pb2 import Experiment, ExperimentDefinition, Period
from millrace.v1.impression_pb2 import AnswerStatus, Fallback, Impression, Slot
from millrace.v1.model_pb2 import ModelEvent, ModelEventType
from millrace.v1.outcome_pb2 import DecidedSlot, ImpressionOrigin, Label, Outcome


def begun(given: ExperimentDefinition, at_ms: int | None = None) -> Experiment:
    """The record of an experiment that starts then (None: now); its model has a champion and no other version."""
    champion = ModelEvent(
        event_id="1", model_name=given.model_name, model_version="1", type=ModelEventType.MODEL_EVENT_TYPE_PROMOTED
    )
    define, start = Command(command_id="define"), Command(command_id="start")
    define.define_experiment.definition.CopyFrom(given)
    start.start_experiment.experiment_id = name = given.experiment_id
    records: dict[str, Experiment] = {}
    for command in (define, start):
        changed = obey(command, records, {given.model_name: fold(given.model_name, [champion])}, at_ms or now_ms())
        assert changed is not None
        records[name] = changed
    return records[name]


def answer(
    given: ExperimentDefinition, user_id: str, request_id: str, at_ms: int, periods: Sequence[Period] = ()
) -> Impression:
    """An answer in the user's arm (in the last of ``periods``), without its slots, as outcomes carry it."""
    by_arm = dict(zip(shares(given), periods[-1].shares, strict=True)) if periods else shares(given)
    number = len(periods) - 1 if periods else None
    assigned = assign(given.salt or given.experiment_id, user_id, by_arm, number)
    return Impression(
        request_id=request_id,
        user_id=user_id,
        served_at_ms=at_ms,
        experiment_id=given.experiment_id,
        arm=assigned.arm,
        propensity=assigned.propensity,
        period=number or 0,
        model_name=given.model_name,
        serve_micros=3_000,
        status=AnswerStatus.ANSWER_STATUS_OK,
        fallback=Fallback.FALLBACK_NONE,
    )


def outcome(
    impression: Impression,
    labels: Sequence[Label.ValueType],
    first: bool = True,
    final: bool = True,
    rank: int = 0,
    features: Sequence[float] = (),
    items: Sequence[str] = (),
) -> Outcome:
    """Slots from ``rank`` on, decided half a second after the answer; with ``items``, else i0, i1 and so on by rank."""
    return Outcome(
        request_id=impression.request_id,
        user_id=impression.user_id,
        origin=ImpressionOrigin.IMPRESSION_ORIGIN_SERVED,
        decided_at_ms=impression.served_at_ms + 500,
        impression=impression,
        first=first,
        final=final,
        slots=[
            DecidedSlot(
                slot=Slot(item_id=items[place - rank] if items else f"i{place}", rank=place, features=features),
                label=label,
            )
            for place, label in enumerate(labels, start=rank)
        ],
    )
