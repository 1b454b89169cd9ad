"""What the orchestrator does next, decided from values only: the ledger, open commands and the registry's view.

It is level-triggered: asked again after every step until nothing is left to do, and again every few seconds.
Every event has an id made from what it is about, and a step that is in the ledger is never taken again, so a
lost trigger costs one period and a doubled one nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from millrace.errors import MillraceError
from millrace.registry.experiments import open_event
from millrace.registry.gates import GATES_TAG, REASON_TAG, against_serving, figures
from millrace.registry.ledger import CHECKPOINTS_KEPT, Ledger
from millrace.registry.triggers import against_another, look
from millrace.registry.view import CHALLENGER, CHAMPION, RegistryView
from millrace.settings import RetrainSettings
from millrace.v1.command_pb2 import Command, PromoteCommand, RollBackCommand
from millrace.v1.drift_pb2 import DriftSignal
from millrace.v1.experiment_pb2 import Experiment
from millrace.v1.model_pb2 import ModelEvent, ModelEventType

# Any fixed value: it only keeps these ids apart from other uses of UUID version 5.
_NAMESPACE = uuid.UUID("6d1c0b5e-5f0b-4c8e-9a46-0c7f3f6a2b11")

_ACTIONS = ("promote", "roll_back", "retrain", "cancel_retrain")

FIRST_VERSION_REASON = "first version: fixed weights, to learn from the first clicks on"


@dataclass(frozen=True, slots=True)
class Append:
    """Write an event to ``model-events``."""

    event: ModelEvent


@dataclass(frozen=True, slots=True)
class LogFirstVersion:
    """Store the first ranker in the registry under this step's id."""

    step_id: str


@dataclass(frozen=True, slots=True)
class PointAlias:
    """Bring an alias of the registry in line with the ledger; an empty version: nobody has it."""

    version: str
    alias: str = CHAMPION


Step = Append | LogFirstVersion | PointAlias


def step_id(model_name: str, step: str) -> str:
    """The same id for the same step of the same model, in every process and after every restart."""
    return str(uuid.uuid5(_NAMESPACE, f"{model_name}/{step}"))


def next_step(
    ledger: Ledger,
    commands: Iterable[Command],
    view: RegistryView | None,
    now_ms: int,
    experiments: Iterable[Experiment] = (),
    cool_down_ms: int = 0,
    signals: Iterable[DriftSignal] = (),
    retraining: RetrainSettings | None = None,
) -> Step | None:
    """The next step towards what should be; None when everything is as it should be.

    Parameters
    ----------
    commands
        Commands to be answered, oldest first. Those that the ledger has settled are passed over.
    view
        What the registry says; None if it was not asked. Commands are decided without it, once there is a version.
    now_ms
        Time of the decision, Unix milliseconds.
    experiments, cool_down_ms
        Records with decisions to act on (see ``millrace.registry.experiments``).
    signals, retraining
        Drift that holds, and when it starts a retraining (see ``millrace.registry.triggers``); None: nothing but
        commands does.

    Raises
    ------
    MillraceError
        The registry has lost the champion: no step of ours can bring it back.
    """
    if not ledger.versions:
        return _first_version(ledger, view, now_ms) if view is not None else None
    if not ledger.champion:
        return Append(_first_promotion(ledger, now_ms))
    for command in commands:
        if command.command_id not in ledger.settled and concerns(command, ledger.model_name):
            return Append(decide(ledger, command, now_ms))
    event = open_event(ledger, experiments, now_ms, cool_down_ms)
    if event is None and view is not None:
        event = _trained(ledger, view, now_ms)
    if event is None and retraining is not None:
        event = look(ledger, signals, retraining, now_ms).event
    if event is not None:
        return Append(event)
    if view is not None and view.aliases.get(CHAMPION) != ledger.champion:
        if all(version.version != ledger.champion for version in view.versions):
            raise MillraceError(
                f"version {ledger.champion} of model {ledger.model_name!r} is the champion by topic model-events, but "
                "the registry does not hold it; restore the registry's data, or promote a version that it holds"
            )
        return PointAlias(ledger.champion)
    if view is not None and view.aliases.get(CHALLENGER, "") != ledger.retrainings.challenger:
        return PointAlias(ledger.retrainings.challenger, CHALLENGER)
    return None


def concerns(command: Command, model_name: str) -> bool:
    """Whether a command is for the orchestrator of this model; the learner and the tracker act on others."""
    action = command.WhichOneof("action")
    return action in _ACTIONS and getattr(command, action).model_name == model_name


def decide(ledger: Ledger, command: Command, now_ms: int) -> ModelEvent:
    """The one event that answers a command: what it asks for, or its refusal."""
    event = ModelEvent(
        event_id=step_id(ledger.model_name, f"command/{command.command_id}"),
        model_name=ledger.model_name,
        at_ms=now_ms,
        command_id=command.command_id,
        reason=_reason(command),
    )
    action = command.WhichOneof("action")
    if action == "promote":
        refusal = _promote(ledger, command.promote, event)
    elif action == "roll_back":
        refusal = _roll_back(ledger, command.roll_back, event)
    elif action == "retrain":
        refusal = against_another(ledger)
        event.type = ModelEventType.MODEL_EVENT_TYPE_RETRAINING_STARTED
        event.retraining_id = event.event_id
    else:
        refusal = _cancel(ledger, event)
    if refusal:
        return ModelEvent(
            event_id=event.event_id,
            model_name=event.model_name,
            model_version=event.model_version,
            type=ModelEventType.MODEL_EVENT_TYPE_COMMAND_REFUSED,
            at_ms=now_ms,
            command_id=event.command_id,
            reason=refusal,
        )
    return event


def _promote(ledger: Ledger, promote: PromoteCommand, event: ModelEvent) -> str:
    """Fill in the promotion; why it is refused, else empty."""
    event.type = ModelEventType.MODEL_EVENT_TYPE_PROMOTED
    event.model_version, event.previous_version = promote.model_version, ledger.champion
    return _against_promotion(ledger, promote) or _as_made(ledger, event)


def _roll_back(ledger: Ledger, roll_back: RollBackCommand, event: ModelEvent) -> str:
    """Fill in the rollback; why it is refused, else empty."""
    event.type = ModelEventType.MODEL_EVENT_TYPE_ROLLED_BACK
    event.checkpoint_id, event.previous_version = roll_back.checkpoint_id, ledger.champion
    event.model_version = _target(ledger, roll_back)
    return _against_rollback(ledger, roll_back, event.model_version) or _as_made(ledger, event)


def _as_made(ledger: Ledger, event: ModelEvent) -> str:
    made = ledger.checkpoints.get(event.checkpoint_id) or ledger.versions[event.model_version]
    event.run_id, event.artifact_uri, event.sha256 = made.run_id, made.artifact_uri, made.sha256
    return ""


def _cancel(ledger: Ledger, event: ModelEvent) -> str:
    """Fill in the end of the retraining under way; why there is none, else empty."""
    present = ledger.retrainings.under_way
    if present is None:
        return "no retraining is under way"
    event.type = ModelEventType.MODEL_EVENT_TYPE_RETRAINING_ENDED
    event.retraining_id, event.model_version = present.retraining_id, present.version
    event.reason = f"cancelled: {event.reason or 'no reason given'}"
    return ""


def _first_version(ledger: Ledger, view: RegistryView, now_ms: int) -> Step:
    step = step_id(ledger.model_name, "first-version")
    made = view.made_by(step)
    if made is None:
        return LogFirstVersion(step)
    return Append(
        ModelEvent(
            event_id=step,
            model_name=ledger.model_name,
            model_version=made.version,
            type=ModelEventType.MODEL_EVENT_TYPE_REGISTERED,
            at_ms=now_ms,
            reason=FIRST_VERSION_REASON,
            artifact_uri=made.artifact_uri,
            run_id=made.run_id,
            sha256=bytes.fromhex(made.sha256),
        )
    )


def _trained(ledger: Ledger, view: RegistryView, now_ms: int) -> ModelEvent | None:
    """What is said of a version that a training job made, by the gates' verdict in its tags; None if all is said."""
    for made in view.versions:
        event_id = step_id(ledger.model_name, f"trained/{made.version}")
        if GATES_TAG not in made.tags or made.version in ledger.versions or ledger.took(event_id):
            continue
        problem = against_serving(made.tags)
        present = ledger.retrainings.under_way
        ours = present is not None and made.step_id == present.retraining_id
        kind = ModelEventType.MODEL_EVENT_TYPE_REJECTED if problem else ModelEventType.MODEL_EVENT_TYPE_REGISTERED
        return ModelEvent(
            event_id=event_id,
            model_name=ledger.model_name,
            model_version=made.version,
            type=kind,
            at_ms=now_ms,
            reason=problem or made.tags.get(REASON_TAG, "trained"),
            artifact_uri=made.artifact_uri,
            run_id=made.run_id,
            sha256=bytes.fromhex(made.sha256),
            figures=figures(made.tags),
            retraining_id=made.step_id if ours else "",
        )
    return None


def _first_promotion(ledger: Ledger, now_ms: int) -> ModelEvent:
    registered = next(iter(ledger.versions.values()))
    return ModelEvent(
        event_id=step_id(ledger.model_name, "first-promotion"),
        model_name=ledger.model_name,
        model_version=registered.model_version,
        type=ModelEventType.MODEL_EVENT_TYPE_PROMOTED,
        at_ms=now_ms,
        reason="the only version",
        artifact_uri=registered.artifact_uri,
        run_id=registered.run_id,
        sha256=registered.sha256,
    )


def _reason(command: Command) -> str:
    asked = f"asked by {command.issued_by}" if command.issued_by else ""
    return ", ".join(part for part in (command.reason, asked) if part)


def _against_promotion(ledger: Ledger, promote: PromoteCommand) -> str:
    if promote.model_version not in ledger.versions:
        return ledger.unknown(promote.model_version)
    if promote.model_version == ledger.champion:
        return f"version {promote.model_version} is the champion already"
    return ""


def _target(ledger: Ledger, roll_back: RollBackCommand) -> str:
    """The version that a rollback leads to; empty if there is none."""
    if roll_back.model_version:
        return roll_back.model_version
    if roll_back.checkpoint_id:
        checkpoint = ledger.checkpoints.get(roll_back.checkpoint_id)
        return checkpoint.model_version if checkpoint else ""
    return ledger.former[-1] if ledger.former else ""


def _against_rollback(ledger: Ledger, roll_back: RollBackCommand, target: str) -> str:
    if roll_back.checkpoint_id:
        return _against_checkpoint(ledger, roll_back.checkpoint_id, target)
    if not target:
        return "there is no earlier champion to roll back to"
    if target not in ledger.versions:
        return ledger.unknown(target)
    if target == ledger.champion:
        return f"version {target} is the champion already"
    if target not in ledger.former:
        earlier = ", ".join(dict.fromkeys(reversed(ledger.former))) or "none"
        return f"version {target} is no earlier champion (earlier champions: {earlier}); promote it instead"
    return ""


def _against_checkpoint(ledger: Ledger, checkpoint_id: str, target: str) -> str:
    checkpoint = ledger.checkpoints.get(checkpoint_id)
    if checkpoint is None:
        kept = ", ".join(reversed(ledger.checkpoints)) or "none yet"
        return f"model {ledger.model_name!r} has no checkpoint {checkpoint_id!r} (the last {CHECKPOINTS_KEPT}: {kept})"
    if target not in ledger.versions:
        return ledger.unknown(target)
    if target != checkpoint.model_version:
        return f"checkpoint {checkpoint_id!r} is one of version {checkpoint.model_version}, not {target}"
    return ""
