"""The rule: what follows from what is known. The same figures give the same verdict, at any time and however often.

Every comparison has its own confidence sequence at ``alpha`` over the number of comparisons (Bonferroni), so that a
promotion of any arm that is not better has at most the probability ``alpha`` over the whole life of the experiment.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from millrace.errors import InvalidField
from millrace.experiments.comparison import Sums
from millrace.experiments.sequence import Boundary
from millrace.experiments.srm import mismatch
from millrace.v1 import experiment_pb2 as pb

Kind: TypeAlias = pb.DecisionKind.ValueType


@dataclass(frozen=True, slots=True)
class Rule:
    """What has to be so before something is decided.

    Attributes
    ----------
    alpha
        Probability of a false promotion, however often one looks.
    best_at
        See ``Boundary``; fixed before the first look.
    minimum_users
        In the control and in an arm, before anything is said of the arm: the sequence holds for many users.
    minimum_duration_ms
        Before an arm is promoted or rejected, so that a day or a week is seen whole. Harm does not wait.
    worthwhile
        An arm whose lift is surely below this is rejected.
    """

    alpha: float
    best_at: float
    minimum_users: int = 200
    minimum_duration_ms: int = 0
    worthwhile: float = 0.0


@dataclass(frozen=True, slots=True)
class Guardrail:
    """Something that an arm must not make worse: latency, failures, click-through, coverage.

    Attributes
    ----------
    sums
        Of the outcome, as for clicks.
    worse
        1 if more of it is worse (failures), -1 if less is (click-through).
    margin
        How much worse, in the outcome's units for each slot, is still borne.
    best_at
        See ``Boundary``, in the outcome's units.
    """

    name: str
    sums: Sums
    worse: int
    margin: float
    best_at: float

    @property
    def effect(self) -> float:
        """How much worse it is by the estimate, for each slot."""
        return self.worse * self.sums.effect

    def surely(self, alpha: float) -> float:
        """How much worse it is at least, for each slot: wrong at any time with probability alpha at most."""
        if not self.sums.slots:
            return -math.inf
        return self.effect - Boundary(alpha, self.best_at).one_sided(self.sums.variance) / self.sums.slots


@dataclass(frozen=True, slots=True)
class Arm:
    """What is known of an arm that is not the control."""

    name: str
    users: int
    sums: Sums
    guardrails: Sequence[Guardrail] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision with its reason.

    Attributes
    ----------
    arm
        Which one it is about; empty if none.
    effect, low, high
        Relative to the control's rate, with the confidence sequence; NaN if there is nothing to say of one arm. The
        ends are those of the difference over the estimated rate of the control, whose own error is not in them: their
        signs, on which decisions rest, are exact.
    """

    kind: Kind
    arm: str
    effect: float
    low: float
    high: float
    reason: str


def decide(rule: Rule, control_users: int, arms: Sequence[Arm], split_evidence: float, lasted_ms: int) -> Verdict:
    """Promote, reject, stop for harm, continue, or say that the split is broken.

    Parameters
    ----------
    control_users
        Users in the control.
    arms
        The others, one or more.
    split_evidence
        The highest ``millrace.experiments.srm.log_evidence`` that was ever seen.
    lasted_ms
        Event time since the start.
    """
    if not arms:
        raise InvalidField("arms", "none", "one or more besides the control")
    if mismatch(split_evidence):
        evidence = f"e-value {math.exp(min(split_evidence, 700.0)):,.0f}"
        return _nobody(
            pb.DECISION_KIND_SAMPLE_RATIO_MISMATCH,
            f"the arms do not have the users that they should have ({evidence}): no figure can be trusted",
        )
    boundary = Boundary(rule.alpha / len(arms), rule.best_at)
    enough = [arm for arm in arms if min(arm.users, control_users) >= rule.minimum_users]
    for arm in enough:
        breach = _breach(arm, rule.alpha / len(arms))
        if breach:
            return _about(pb.DECISION_KIND_STOP_FOR_HARM, arm, boundary, breach)
    told = [arm for arm in enough if arm.sums.control_clicks > 0]
    ends = {arm.name: arm.sums.interval(boundary) for arm in told}
    worst = min(told, key=lambda arm: ends[arm.name][1], default=None)
    if worst and ends[worst.name][1] < 0:
        return _about(pb.DECISION_KIND_STOP_FOR_HARM, worst, boundary, "surely worse than the control")
    if len(told) < len(arms):
        few = next(arm for arm in arms if arm not in told)
        return _nobody(
            pb.DECISION_KIND_CONTINUE,
            f"{few.name}: {few.users} users and {control_users} in the control, of {rule.minimum_users} each"
            if min(few.users, control_users) < rule.minimum_users
            else "the control has no clicks yet",
        )
    best = max(told, key=lambda arm: arm.sums.effect)
    if lasted_ms < rule.minimum_duration_ms:
        hours = rule.minimum_duration_ms / 3_600_000
        return _about(pb.DECISION_KIND_CONTINUE, best, boundary, f"decided after {hours:g} h at the earliest")
    if ends[best.name][0] > 0:
        return _about(pb.DECISION_KIND_PROMOTE, best, boundary, "surely better than the control")
    if all(ends[arm.name][1] < rule.worthwhile * arm.sums.control_rate for arm in told):
        return _about(
            pb.DECISION_KIND_REJECT, best, boundary, f"no arm is better by {rule.worthwhile:.1%} or more, surely"
        )
    return _about(pb.DECISION_KIND_CONTINUE, best, boundary, "not known yet")


def _breach(arm: Arm, alpha: float) -> str:
    for guardrail in arm.guardrails:
        surely = guardrail.surely(alpha / len(arm.guardrails))
        if surely > guardrail.margin:
            return f"{guardrail.name} is worse by at least {surely:.3g}; {guardrail.margin:.3g} would be borne"
    return ""


def _about(kind: Kind, arm: Arm, boundary: Boundary, reason: str) -> Verdict:
    rate = arm.sums.control_rate
    if not rate:
        return Verdict(kind, arm.name, math.nan, math.nan, math.nan, f"{arm.name}: {reason}")
    low, high = (end / rate for end in arm.sums.interval(boundary))
    effect = arm.sums.effect / rate
    return Verdict(kind, arm.name, effect, low, high, f"{arm.name} {low:+.1%} to {high:+.1%}: {reason}")


def _nobody(kind: Kind, reason: str) -> Verdict:
    return Verdict(kind, "", math.nan, math.nan, math.nan, reason)
