"""The record of an experiment on topic ``experiments``: sums into it, and the decision out of nothing but it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields

from millrace import __version__
from millrace.experiments.comparison import Sums
from millrace.experiments.decide import Arm, Guardrail, Rule, decide
from millrace.experiments.definition import CLICKS, FALLBACKS, SLOW, control, outcomes, shares
from millrace.experiments.sequence import Boundary
from millrace.experiments.srm import log_evidence
from millrace.v1.experiment_pb2 import ArmFigures, Decision, Experiment

CODE_VERSION = f"millrace {__version__}"

_SUMS = tuple(each.name for each in fields(Sums))
_NAMES = {FALLBACKS: "answers that failed or fell back", SLOW: "slow answers"}


def put_sums(figures: ArmFigures, outcome: str, sums: Sums) -> None:
    """Write an arm's sums into its figures."""
    for name in _SUMS:
        figures.statistics[f"{outcome}.{name}"] = getattr(sums, name)


def sums_of(figures: ArmFigures, outcome: str) -> Sums:
    """An arm's sums; those of nothing where none stand."""
    statistics: Mapping[str, float] = figures.statistics
    return Sums(*(statistics.get(f"{outcome}.{name}", 0.0) for name in _SUMS))


def boundary(experiment: Experiment) -> Boundary:
    """How far the clicks' weighted difference may be from its mean, for each comparison."""
    definition = experiment.definition
    return Boundary(definition.alpha / (len(definition.arms) - 1), experiment.best_at[CLICKS])


def split_evidence(experiment: Experiment) -> float:
    """Evidence against the split as the figures stand: the logarithm of an e-value."""
    users = {figures.name: figures.users for figures in experiment.figures}
    intended = shares(experiment.definition)
    return float(log_evidence([users.get(name, 0) for name in intended], list(intended.values())))


def verdict(experiment: Experiment, newest_ms: int) -> Decision:
    """What the rule says of the record. It depends on nothing else: the same record, the same decision, to the digit.

    Parameters
    ----------
    newest_ms
        Event time of the newest outcome included, Unix milliseconds.
    """
    definition = experiment.definition
    by_name = {figures.name: figures for figures in experiment.figures}
    rule = Rule(
        alpha=definition.alpha,
        best_at=experiment.best_at[CLICKS],
        minimum_users=definition.minimum_users,
        minimum_duration_ms=definition.minimum_duration_ms,
        worthwhile=definition.worthwhile,
    )
    control_name = control(definition).name
    arms = [
        Arm(name, figures.users, sums_of(figures, CLICKS), _guardrails(experiment, figures))
        for name, figures in by_name.items()
        if name != control_name
    ]
    lasted_ms = max(0, newest_ms - experiment.started_at_ms)
    found = decide(rule, by_name[control_name].users, arms, experiment.split_evidence, lasted_ms)
    return Decision(
        kind=found.kind,
        arm=found.arm,
        effect=found.effect,
        effect_low=found.low,
        effect_high=found.high,
        at_ms=newest_ms,
        reason=found.reason,
        code_version=CODE_VERSION,
    )


def differences(stands: Decision, recomputed: Decision) -> list[str]:
    """Fields in which two decisions are not the same to the digit. Nothing about one arm (NaN) equals itself."""
    found = []
    for name in ("kind", "arm", "effect", "effect_low", "effect_high", "at_ms", "reason", "seed"):
        one, other = getattr(stands, name), getattr(recomputed, name)
        if one != other and not (isinstance(one, float) and math.isnan(one) and math.isnan(other)):
            found.append(f"{name}: {one!r} stands, {other!r} follows from the figures")
    return found


def _guardrails(experiment: Experiment, figures: ArmFigures) -> list[Guardrail]:
    rails = experiment.definition.guardrails
    margins = {FALLBACKS: rails.fallback_margin, SLOW: rails.slow_margin}
    return [
        Guardrail(_NAMES[name], sums_of(figures, name), 1, margins[name], experiment.best_at[name])
        for name in outcomes(experiment.definition)
        if name != CLICKS
    ]
