"""What the present figures say in plain words, and how long it will take to know more."""

from __future__ import annotations

import math

from millrace.experiments.comparison import Sums
from millrace.experiments.definition import CLICKS, challengers, control, pair
from millrace.experiments.plan import Plan
from millrace.experiments.record import activity_of, boundary, guardrails, shown_index, sums_of
from millrace.experiments.sequence import Boundary
from millrace.settings import DAY_MS, HOUR_MS, MINUTE_MS
from millrace.v1.experiment_pb2 import DecisionKind, Experiment, ExperimentState

# Normal quantile of the power with which a difference is found within the time that is said.
_POWER, _POWER_DEVIATIONS = 0.9, 1.281552
# Beyond that nobody waits, and traffic is not what it is today.
_YEARS_MS = 10 * 365 * DAY_MS


def slots_until_known(sums: Sums, at: Boundary, difference: float) -> float:
    """Slots of both arms, those seen included, at which such a difference is found with 90 % power.

    Variance goes on as it was so far. Infinity where nothing was seen, or it takes more than 2^60.
    """
    if not (sums.slots and sums.variance > 0 and difference > 0):
        return math.inf
    each = sums.variance / sums.slots

    def told(slots: float) -> float:
        variance = each * slots
        return (at.two_sided(variance) + _POWER_DEVIATIONS * math.sqrt(variance)) / slots

    enough = sums.slots
    while told(enough) > difference:
        enough *= 2
        if enough > 2.0**60:
            return math.inf
    low, high = enough / 2, enough
    if enough == sums.slots:
        return sums.slots
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if told(middle) > difference else (low, middle)
    return high


def remaining_ms(experiment: Experiment, arm: str) -> float:
    """Time until a difference of the size that is looked for, or of the one that is seen if it is larger, is found.

    At the traffic since the start; infinity while there is none, or if it takes years; 0 if it should be found by now.
    """
    figures = {one.name: one for one in experiment.figures}
    sums = sums_of(figures[arm], CLICKS)
    lasted_ms = experiment.decision.at_ms - experiment.started_at_ms
    if lasted_ms <= 0 or not sums.control_rate:
        return math.inf
    difference = max(abs(sums.effect), experiment.definition.expected_lift * sums.control_rate)
    more = slots_until_known(sums, boundary(experiment), difference) - sums.slots
    late_ms = experiment.definition.minimum_duration_ms - lasted_ms
    wanted_ms = max(more * lasted_ms / sums.slots, late_ms, 0.0)
    return wanted_ms if wanted_ms < _YEARS_MS else math.inf


def relative_intervals(experiment: Experiment) -> dict[str, tuple[float, float, float]]:
    """Of each challenger: relative difference, and the ends of its confidence sequence; those that are known."""
    by_name = {figures.name: figures for figures in experiment.figures}
    found: dict[str, tuple[float, float, float]] = {}
    for arm in challengers(experiment.definition):
        if arm.name in by_name:
            sums = sums_of(by_name[arm.name], CLICKS)
            if rate := sums.control_rate:
                low, high = sums.interval(boundary(experiment))
                found[arm.name] = sums.effect / rate, low / rate, high / rate
    return found


def on_guardrails(experiment: Experiment) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Of each challenger and guardrail: how much worse it is, surely at least, and how much is borne; for each slot
    or answer. Empty before the start."""
    definition = experiment.definition
    arms = [arm.name for arm in challengers(definition)] if experiment.figures else []
    found = {}
    for arm in arms:
        rails = guardrails(experiment, arm)
        alpha = definition.alpha / len(arms) / max(1, len(rails))
        found[arm] = {rail.name: (rail.effect, rail.surely(alpha), rail.margin) for rail in rails if rail.sums.slots}
    return found


def explained(experiment: Experiment) -> float | None:
    """Share of the variance of a slot's clicks that earlier activity explains, 0 to 1; None where not asked for."""
    against = control(experiment.definition).name
    figures = next((one for one in experiment.figures if one.name == against), None)
    if figures is None or not experiment.definition.earlier_activity:
        return None
    return 1 - activity_of(figures).remaining


def inflation_of(experiment: Experiment) -> float | None:
    """How many times larger the variance is than that of independent slots in the shares at the start.

    All is in it: users whose slots are alike, shares that move (Thompson sampling), and what earlier activity takes
    away (CUPED). Of several challengers it is the largest; None while nothing is known.
    """
    by_name = {figures.name: figures for figures in experiment.figures}
    found = []
    for arm in challengers(experiment.definition):
        sums = sums_of(by_name[arm.name], CLICKS) if arm.name in by_name else Sums()
        if sums.slots and 0 < sums.control_rate < 1:
            # Of arms that are nearly alike: the variance hardly depends on the difference.
            independent = Plan(sums.control_rate, 1e-6, pair(experiment.definition, arm)[0]).variance
            found.append(sums.variance / sums.slots / independent)
    return max(found, default=None)


def items_shown(experiment: Experiment) -> dict[str, float]:
    """Of each arm, the number of items that, shown alike, would be as varied as what it shows; where that is known."""
    indices = {figures.name: shown_index(figures) for figures in experiment.figures}
    return {name: 1 / index for name, index in indices.items() if index}


def in_words(experiment: Experiment) -> list[str]:
    """A sentence on each arm, and on what may be done."""
    decision = experiment.decision
    if experiment.state == ExperimentState.EXPERIMENT_STATE_DRAFT:
        return ["not started yet"]
    if decision.kind == DecisionKind.DECISION_KIND_SAMPLE_RATIO_MISMATCH:
        return [f"stop it and find out why: {decision.reason}"]
    return [_of_arm(experiment, arm.name) for arm in challengers(experiment.definition)]


def _of_arm(experiment: Experiment, name: str) -> str:
    figures = {one.name: one for one in experiment.figures}
    sums = sums_of(figures[name], CLICKS)
    decision, running = experiment.decision, experiment.state == ExperimentState.EXPERIMENT_STATE_RUNNING
    rate = sums.control_rate
    if rate:
        low, high = (end / rate for end in sums.interval(boundary(experiment)))
        enough = min(one.users for one in figures.values()) >= experiment.definition.minimum_users
        if enough and low > 0:
            late_ms = experiment.definition.minimum_duration_ms - (decision.at_ms - experiment.started_at_ms)
            wait = f"; it runs for {duration(late_ms)} more, as defined" if running and late_ms > 0 else ""
            return f"{name} is better by {_between(low, high)}{wait or '; you may stop'}"
        if enough and high < 0:
            return f"{name} is worse by {_between(-high, -low)}; stop it"
    if not running:
        return f"{name}: {decision.reason}" if decision.arm == name else f"{name}: not known when it ended"
    left_ms = remaining_ms(experiment, name)
    if not left_ms:
        size = max(abs(sums.effect) / rate, experiment.definition.expected_lift)
        found = f"a difference of {size * 100:.3g} % would be found by now in {_POWER * 100:g} % of cases"
        return f"{name}: not known yet; {found}, a smaller one takes longer"
    when = "no telling when" if math.isinf(left_ms) else f"at today's traffic in about {duration(left_ms)}"
    return f"{name}: not known yet; {when}"


def _between(low: float, high: float) -> str:
    """Two ends of an interval, both at or above 0."""
    return f"{low * 100:.3g} % to {high * 100:.3g} %"


def duration(ms: float) -> str:
    """A time as people say it: 3 days, 5 hours, 12 minutes."""
    for unit, name in ((DAY_MS, "day"), (HOUR_MS, "hour"), (MINUTE_MS, "minute")):
        if ms >= unit:
            count = round(ms / unit)
            return f"{count} {name}{'' if count == 1 else 's'}"
    return "a minute"
