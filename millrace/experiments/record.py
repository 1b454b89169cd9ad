"""The record of an experiment on topic ``experiments``: sums into it, and the decision out of nothing but it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields

from millrace import __version__
from millrace.experiments.comparison import Sums
from millrace.experiments.coverage import Shown, margin
from millrace.experiments.cuped import Activity
from millrace.experiments.decide import Arm, Guardrail, Rule, decide
from millrace.experiments.definition import CLICKS, COVERAGE, FALLBACKS, FLOOR, SLOW, control, outcomes, shares
from millrace.experiments.sequence import Boundary
from millrace.experiments.srm import log_evidence
from millrace.v1.experiment_pb2 import ArmFigures, Decision, Experiment

CODE_VERSION = f"millrace {__version__}"

_SUMS = tuple(each.name for each in fields(Sums))
_NAMES = {
    FALLBACKS: "answers that failed or fell back",
    SLOW: "slow answers",
    COVERAGE: "coverage of the catalogue",
    FLOOR: "click-through against its floor",
}


def put_sums(figures: ArmFigures, outcome: str, sums: Sums) -> None:
    """Write an arm's sums into its figures."""
    for name, value in statistics_of(outcome, sums).items():
        figures.statistics[name] = value


def statistics_of(outcome: str, sums: Sums) -> dict[str, float]:
    """Sums by their names in the figures."""
    return {f"{outcome}.{name}": getattr(sums, name) for name in _SUMS}


def activity_sums(activity: Activity) -> dict[str, float]:
    """What is known of earlier activity, by its names in the control's figures."""
    return {f"earlier.{each.name}": getattr(activity, each.name) for each in fields(Activity)}


def activity_of(figures: ArmFigures) -> Activity:
    """What is known of earlier activity, from the control's figures."""
    statistics: Mapping[str, float] = figures.statistics
    return Activity(*(statistics.get(f"earlier.{each.name}", 0.0) for each in fields(Activity)))


def shown_sums(shown: Shown) -> dict[str, float]:
    """What an arm has shown, by its names in the figures."""
    return {"shown.slots": float(shown.slots), "shown.pairs": float(shown.pairs), "shown.possible": shown.possible}


def shown_index(figures: ArmFigures) -> float:
    """Simpson's index of what an arm has shown, pairs inside partitions only; 0 while there are none."""
    statistics: Mapping[str, float] = figures.statistics
    possible = statistics.get("shown.possible", 0.0)
    return statistics.get("shown.pairs", 0.0) / possible if possible else 0.0


def sums_of(figures: ArmFigures, outcome: str) -> Sums:
    """An arm's sums; those of nothing where none stand."""
    statistics: Mapping[str, float] = figures.statistics
    return Sums(*(statistics.get(f"{outcome}.{name}", 0.0) for name in _SUMS))


def boundary(experiment: Experiment) -> Boundary:
    """How far the clicks' weighted difference may be from its mean, for each comparison."""
    definition = experiment.definition
    return Boundary(definition.alpha / (len(definition.arms) - 1), experiment.best_at[CLICKS])


def split_evidence(experiment: Experiment) -> float:
    """Evidence against the split as the figures stand: the logarithm of an e-value, of all periods together."""
    if experiment.periods:
        came = [list(period.users) for period in experiment.periods]
        return float(log_evidence(came, [list(period.shares) for period in experiment.periods]).sum())
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
        Arm(name, figures.users, sums_of(figures, CLICKS), guardrails(experiment, name))
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


def guardrails(experiment: Experiment, arm: str) -> list[Guardrail]:
    """What an arm (not the control) must not make worse, as the record stands."""
    rails = experiment.definition.guardrails
    by_name = {figures.name: figures for figures in experiment.figures}
    against = shown_index(by_name[control(experiment.definition).name])
    margins = {
        FALLBACKS: rails.fallback_margin,
        SLOW: rails.slow_margin,
        COVERAGE: margin(against, rails.coverage_margin),
        FLOOR: 0.0,
    }
    return [
        Guardrail(
            name=_NAMES[name],
            sums=sums_of(by_name[arm], name),
            worse=-1 if name == FLOOR else 1,
            margin=margins[name],
            best_at=experiment.best_at[name],
        )
        for name in outcomes(experiment.definition)
        if name != CLICKS
    ]
