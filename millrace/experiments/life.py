"""The life of experiments: what a command makes of a record, and why it may be refused. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from millrace.enums import name_of
from millrace.errors import InvalidField
from millrace.experiments import definition as defined
from millrace.experiments.arms import LATEST
from millrace.experiments.assignment import Span, find_span
from millrace.experiments.gate import gates
from millrace.experiments.periods import first_period
from millrace.experiments.tally import SERVE_BOUNDS
from millrace.registry.ledger import Ledger
from millrace.v1.command_pb2 import Command
from millrace.v1.experiment_pb2 import ArmFigures, DecisionKind, Experiment, ExperimentDefinition, ExperimentState

DRAFT = ExperimentState.EXPERIMENT_STATE_DRAFT
RUNNING = ExperimentState.EXPERIMENT_STATE_RUNNING
STOPPED = ExperimentState.EXPERIMENT_STATE_STOPPED

ENDING = (
    DecisionKind.DECISION_KIND_PROMOTE,
    DecisionKind.DECISION_KIND_REJECT,
    DecisionKind.DECISION_KIND_STOP_FOR_HARM,
)
"""Decisions that end an experiment. A mismatch of the split blocks decisions, and people look into it."""

# Commands that were acted on and are remembered: people send a handful.
_ACCEPTED_MAX = 20


def target(command: Command) -> str:
    """Id of the experiment that a command is about; empty if it is for others."""
    action = command.WhichOneof("action")
    if action == "define_experiment":
        return command.define_experiment.definition.experiment_id
    if action == "start_experiment":
        return command.start_experiment.experiment_id
    return command.stop_experiment.experiment_id if action == "stop_experiment" else ""


def obey(
    command: Command, experiments: Mapping[str, Experiment], ledgers: Mapping[str, Ledger], at_ms: int
) -> Experiment | None:
    """The record after a command; None if it was acted on before.

    Parameters
    ----------
    ledgers
        What has happened to each model, by name.
    at_ms
        When the broker appended the command, Unix milliseconds.

    Raises
    ------
    InvalidField
        It is refused; nothing changes.
    """
    name = target(command)
    stands = experiments.get(name)
    if stands is not None and command.command_id in stands.accepted_command_ids:
        return None
    action = command.WhichOneof("action")
    if action == "define_experiment":
        changed = _defined(command.define_experiment.definition, stands, ledgers)
    elif stands is None:
        known = ", ".join(experiments) or "none yet"
        raise InvalidField("experiment_id", f"{name!r} is unknown", f"one that was defined ({known})")
    elif action == "start_experiment":
        changed = _started(command, stands, experiments.values(), ledgers, at_ms)
    else:
        changed = _stopped(stands, at_ms)
    changed.accepted_command_ids.append(command.command_id)
    del changed.accepted_command_ids[:-_ACCEPTED_MAX]
    return changed


def _defined(given: ExperimentDefinition, stands: Experiment | None, ledgers: Mapping[str, Ledger]) -> Experiment:
    if stands is not None and stands.state != DRAFT:
        state = name_of(ExperimentState.DESCRIPTOR, stands.state)
        raise InvalidField("experiment_id", f"{given.experiment_id!r} is {state}", "changes before it starts only")
    definition = defined.completed(given)
    defined.check_definition(definition)
    _check_versions(definition, ledgers)
    accepted = stands.accepted_command_ids if stands is not None else ()
    return Experiment(definition=definition, state=DRAFT, accepted_command_ids=accepted)


def _started(
    command: Command,
    stands: Experiment,
    experiments: Iterable[Experiment],
    ledgers: Mapping[str, Ledger],
    at_ms: int,
) -> Experiment:
    name = stands.definition.experiment_id
    if stands.state != DRAFT:
        raise InvalidField("experiment_id", f"{name!r} was started before", "a draft; define another one")
    changed = Experiment()
    changed.CopyFrom(stands)
    definition = changed.definition
    ledger = _check_versions(definition, ledgers)
    for arm in definition.arms:
        if arm.settings.get("checkpoint") == LATEST:
            if not ledger.checkpoints:
                raise InvalidField(f"arms[{arm.name}].settings[checkpoint]", "none is stored yet", "to start later")
            arm.settings["checkpoint"] = next(reversed(ledger.checkpoints))
    running = [one for one in experiments if one.state == RUNNING and one.definition.layer == definition.layer]
    try:
        span = find_span([Span(one.layer_start, one.definition.traffic) for one in running], definition.traffic)
    except InvalidField as error:
        others = ", ".join(repr(one.definition.experiment_id) for one in running)
        raise InvalidField(error.field, f"{error.problem} beside {others}", error.allowed) from None
    asked = command.start_experiment
    changed.gates.extend(gates(definition, ledger.champion, asked.evidence, asked.override_reason, command.issued_by))
    changed.layer_start = span.start
    changed.state = RUNNING
    changed.started_at_ms = at_ms
    changed.champion_version = ledger.champion
    for outcome, variance in defined.best_at(definition).items():
        changed.best_at[outcome] = variance
    if defined.is_thompson(definition):
        changed.periods.append(first_period(definition, at_ms))
    changed.figures.extend(
        ArmFigures(name=arm.name, weight=arm.share, serve_counts=[0] * (len(SERVE_BOUNDS) + 1))
        for arm in definition.arms
    )
    return changed


def _stopped(stands: Experiment, at_ms: int) -> Experiment:
    if stands.state != RUNNING:
        raise InvalidField("experiment_id", f"{stands.definition.experiment_id!r} is not running", "a running one")
    changed = Experiment()
    changed.CopyFrom(stands)
    changed.state, changed.stopped_at_ms = STOPPED, at_ms
    return changed


def _check_versions(definition: ExperimentDefinition, ledgers: Mapping[str, Ledger]) -> Ledger:
    """The ledger of the experiment's model, which has every version and checkpoint that the arms name."""
    ledger = ledgers.get(definition.model_name)
    if ledger is None or not ledger.champion:
        known = ", ".join(name for name, one in ledgers.items() if one.champion) or "none yet"
        raise InvalidField("model_name", f"{definition.model_name!r} has no champion", f"a model with one ({known})")
    versions = dict.fromkeys((*ledger.versions, *ledger.former, ledger.champion))
    for arm in definition.arms:
        if arm.model_version and arm.model_version not in versions:
            failed = arm.model_version in ledger.refused
            problem = ledger.unknown(arm.model_version) if failed else f"{arm.model_version!r} is unknown"
            raise InvalidField(f"arms[{arm.name}].model_version", problem, ", ".join(versions))
        checkpoint = arm.settings.get("checkpoint", "")
        if checkpoint not in ("", LATEST) and checkpoint not in ledger.checkpoints:
            kept = ", ".join(reversed(ledger.checkpoints)) or "none yet"
            raise InvalidField(f"arms[{arm.name}].settings[checkpoint]", f"{checkpoint!r} is unknown", kept)
    return ledger
