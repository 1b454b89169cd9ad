"""The events of a retraining's own steps, made of the ledger as it is when they are written. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from millrace.registry.experiments import cools
from millrace.registry.ledger import Ledger
from millrace.registry.reconcile import step_id
from millrace.registry.retraining import PROMOTED, SHADOWS, Retraining
from millrace.v1.common_pb2 import Position
from millrace.v1.model_pb2 import ModelEvent, ModelEventType


@dataclass(frozen=True, slots=True)
class RetrainingStep:
    """What happens to a retraining.

    Attributes
    ----------
    figures
        The numbers that led to it.
    champion
        It counts beside this champion only; empty: beside any.
    starts
        SHADOWS: the first outcome of each partition.
    """

    kind: ModelEventType.ValueType
    reason: str
    figures: Mapping[str, float] = field(default_factory=dict)
    champion: str = ""
    starts: Sequence[Position] = ()


def event_of(
    ledger: Ledger, present: Retraining, step: RetrainingStep, now_ms: int, cool_down_ms: int
) -> ModelEvent | None:
    """The event; None if something else has happened to the retraining meanwhile, or it has to wait.

    Parameters
    ----------
    present
        The retraining as it was when the step was decided.
    now_ms
        Unix milliseconds.
    cool_down_ms
        After a rollback, no version is promoted for so long.
    """
    if ledger.retrainings.newest != present or (step.champion and step.champion != ledger.champion):
        return None
    name = f"retraining/{present.retraining_id}/{step.kind}"
    if step.kind == SHADOWS and ledger.reign is not None:
        # Another champion is another comparison, also one that reigned before.
        name += f"/{ledger.reign.event_id}"
    event = ModelEvent(
        event_id=step_id(ledger.model_name, name),
        retraining_id=present.retraining_id,
        model_name=ledger.model_name,
        model_version=present.version,
        type=step.kind,
        at_ms=now_ms,
        reason=step.reason,
        previous_version=step.champion if step.kind in (SHADOWS, PROMOTED) else "",
        figures=step.figures,
        starts=step.starts,
    )
    if step.kind == PROMOTED:
        if cools(ledger, now_ms, cool_down_ms):
            return None
        made = ledger.versions[present.version]
        event.run_id, event.artifact_uri, event.sha256 = made.run_id, made.artifact_uri, made.sha256
    return event
