"""What a decision of an experiment means for versions: the event that acts on it, from values only.

The decision stands in the experiment's record and is looked at again and again: an event has an id made from the
experiment and the arm, and one that stands in the ledger is never made again.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator

from millrace.registry.ledger import Ledger
from millrace.v1.experiment_pb2 import Arm, DecisionKind, Experiment, ExperimentState
from millrace.v1.model_pb2 import ModelEvent, ModelEventType

# Any fixed value, another one than that of the other steps.
_NAMESPACE = uuid.UUID("0b0e1f43-5f0e-4f5f-8f0a-6a9c1d7e2c55")

PROMOTED = ModelEventType.MODEL_EVENT_TYPE_PROMOTED
ROLLED_BACK = ModelEventType.MODEL_EVENT_TYPE_ROLLED_BACK
REJECTED = ModelEventType.MODEL_EVENT_TYPE_REJECTED


def open_event(ledger: Ledger, experiments: Iterable[Experiment], now_ms: int, cool_down_ms: int) -> ModelEvent | None:
    """The next event that a decision asks for; None if all are acted on, or have to wait.

    Parameters
    ----------
    now_ms
        Unix milliseconds.
    cool_down_ms
        After a rollback, no version is promoted for so long.
    """
    for experiment in experiments:
        if (
            experiment.definition.model_name != ledger.model_name
            or experiment.state != ExperimentState.EXPERIMENT_STATE_STOPPED
        ):
            continue
        for event in _events(ledger, experiment, now_ms):
            waits = event.type == PROMOTED and cools(ledger, now_ms, cool_down_ms)
            if not waits and not ledger.took(event.event_id):
                return event
    return None


def _events(ledger: Ledger, experiment: Experiment, now_ms: int) -> Iterator[ModelEvent]:
    """Every event that follows from the decision, acted on or not."""
    kind, arms = experiment.decision.kind, {arm.name: arm for arm in experiment.definition.arms}
    decided = arms.get(experiment.decision.arm)
    if kind == DecisionKind.DECISION_KIND_PROMOTE and decided is not None:
        if _is_another_version(ledger, experiment, decided):
            # Better than the control is better than the champion only if nobody else became champion meanwhile.
            same = ledger.champion == experiment.champion_version
            why = "" if same else f", but {ledger.champion} became the champion meanwhile"
            yield _event(ledger, experiment, decided.model_version, PROMOTED if same else REJECTED, now_ms, why)
    elif kind == DecisionKind.DECISION_KIND_STOP_FOR_HARM and decided is not None:
        control = next(arm for arm in experiment.definition.arms if arm.control)
        if _is_version(decided) and decided.model_version == experiment.champion_version:
            if _is_version(control) and control.model_version in ledger.versions:
                yield _event(ledger, experiment, control.model_version, ROLLED_BACK, now_ms)
        elif _is_version(decided):
            yield _event(ledger, experiment, decided.model_version, REJECTED, now_ms)
    elif kind == DecisionKind.DECISION_KIND_REJECT:
        for arm in experiment.definition.arms:
            if not arm.control and _is_version(arm) and arm.model_version != experiment.champion_version:
                yield _event(ledger, experiment, arm.model_version, REJECTED, now_ms)


def _event(
    ledger: Ledger,
    experiment: Experiment,
    version: str,
    kind: ModelEventType.ValueType,
    now_ms: int,
    why: str = "",
) -> ModelEvent:
    name, decision = experiment.definition.experiment_id, experiment.decision
    event = ModelEvent(
        # Not of the kind: what was promoted is not rejected when somebody else becomes champion later.
        event_id=str(uuid.uuid5(_NAMESPACE, f"{ledger.model_name}\0{name}\0{version}")),
        model_name=ledger.model_name,
        model_version=version,
        type=kind,
        at_ms=now_ms,
        reason=f"experiment {name}: {decision.reason}{why}",
        previous_version="" if kind == REJECTED else ledger.champion,
        figures={"effect": decision.effect, "effect_low": decision.effect_low, "effect_high": decision.effect_high},
    )
    made = ledger.versions.get(version)
    if made is not None:
        event.run_id, event.artifact_uri, event.sha256 = made.run_id, made.artifact_uri, made.sha256
    return event


def _is_version(arm: Arm) -> bool:
    """Whether the arm is a version and nothing else: settings of candidates are for people to adopt."""
    return bool(arm.model_version) and set(arm.settings) <= {"parameters"}


def _is_another_version(ledger: Ledger, experiment: Experiment, arm: Arm) -> bool:
    return (
        _is_version(arm) and arm.model_version != experiment.champion_version and arm.model_version in ledger.versions
    )


def cools(ledger: Ledger, now_ms: int, cool_down_ms: int) -> bool:
    """Whether a rollback was so short a time ago that nothing is promoted by itself."""
    reign = ledger.reign
    return reign is not None and reign.type == ROLLED_BACK and now_ms - reign.at_ms < cool_down_ms
