"""The experiment of a version that a retraining made: its definition, and where it stands. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from textwrap import shorten

from millrace.errors import InvalidField
from millrace.experiments.assignment import Span, find_span
from millrace.experiments.definition import completed
from millrace.experiments.gate import UNKNOWN_SHARE
from millrace.experiments.life import ENDING
from millrace.registry.retraining import Retraining
from millrace.v1.command_pb2 import Command
from millrace.v1.experiment_pb2 import (
    Arm,
    DecisionKind,
    Experiment,
    ExperimentDefinition,
    ExperimentState,
    Gate,
)

OLD, NEW = "old", "new"
ISSUED_BY = "retrain_orchestrator"

# As `definition_of` names them; people have no reason to.
_OF_A_RETRAINING = re.compile(r"retrain-\d+-[0-9a-f]{8}")

# In UTF-8 four times as many bytes, at most.
_DESCRIPTION_MAX_CHARS = 200

RUNNING = ExperimentState.EXPERIMENT_STATE_RUNNING
STOPPED = ExperimentState.EXPERIMENT_STATE_STOPPED


def definition_of(
    model_name: str, present: Retraining, challenged: float, unknown: bool = False
) -> ExperimentDefinition:
    """The version against the champion.

    Parameters
    ----------
    challenged
        Share of all users who get the version; as many get the champion beside it.
    unknown
        The gate knows too little of the version: it gets no more users than such a one may, and the champion the others
        of the same part.
    """
    traffic = min(2 * challenged, 1.0)
    share = min(0.5, UNKNOWN_SHARE / traffic) if unknown else 0.5
    return completed(
        ExperimentDefinition(
            # Also of a registry that was made anew, and numbers versions as the one before.
            experiment_id=f"retrain-{present.version}-{present.retraining_id[:8]}",
            description=shorten(present.reason, _DESCRIPTION_MAX_CHARS),
            model_name=model_name,
            traffic=traffic,
            arms=[
                Arm(name=OLD, share=1 - share, control=True),
                Arm(name=NEW, share=share, model_version=present.version),
            ],
        )
    )


def room(definition: ExperimentDefinition, experiments: Iterable[Experiment]) -> str:
    """Why there is no room beside the experiments that run; empty if there is."""
    running = [one for one in experiments if one.state == RUNNING and one.definition.layer == definition.layer]
    try:
        find_span([Span(one.layer_start, one.definition.traffic) for one in running], definition.traffic)
    except InvalidField as error:
        names = ", ".join(one.definition.experiment_id for one in running)
        return f"{error.problem} beside {names}"
    return ""


def define(present: Retraining, definition: ExperimentDefinition, now_ms: int) -> Command:
    """What has the tracker define it; sent again with the same id until it has."""
    # A version that is known by now is defined anew: a command counts once.
    command = _command(present, f"define/{definition.arms[-1].share:g}", now_ms)
    command.define_experiment.definition.CopyFrom(definition)
    return command


def commands(present: Retraining, definition: ExperimentDefinition, gate: Gate, now_ms: int) -> list[Command]:
    """What has the tracker define and start it; sent again with the same ids until it runs."""
    start = _command(present, f"start/{definition.arms[-1].share:g}", now_ms)
    start.start_experiment.experiment_id = definition.experiment_id
    start.start_experiment.evidence.append(gate.evidence)
    return [define(present, definition, now_ms), start]


def stop(experiment_id: str, now_ms: int) -> Command:
    """What has the tracker stop it; the same command whichever retraining is the present one."""
    command = Command(command_id=f"{experiment_id}/stop", issued_at_ms=now_ms, issued_by=ISSUED_BY, reason="retraining")
    command.stop_experiment.experiment_id = experiment_id
    return command


def left_behind(model_name: str, present: str, experiments: Iterable[Experiment]) -> list[str]:
    """Experiments of retrainings that run on, though another one (``present``, or none) is the retraining's by now."""
    return [
        one.definition.experiment_id
        for one in experiments
        if one.state == RUNNING
        and one.definition.model_name == model_name
        and one.definition.experiment_id != present
        and _OF_A_RETRAINING.fullmatch(one.definition.experiment_id)
    ]


def without_winner(record: Experiment, version: str) -> str:
    """Why an experiment that is over does not make the version the champion; empty if it runs, or the version won."""
    if record.state != STOPPED:
        return ""
    decision = record.decision
    arms = {arm.name: arm.model_version for arm in record.definition.arms}
    if decision.kind == DecisionKind.DECISION_KIND_PROMOTE and arms.get(decision.arm) == version:
        return ""
    return decision.reason if decision.kind in ENDING else "it was stopped before it decided"


def _command(present: Retraining, step: str, now_ms: int) -> Command:
    command_id = f"{present.retraining_id}/{step}"
    return Command(command_id=command_id, issued_at_ms=now_ms, issued_by=ISSUED_BY, reason="retraining")
