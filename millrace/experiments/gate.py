"""The gate: what is known of a version before it gets any traffic, and whether that is enough. Pure.

It is in the way of versions that are not the champion. Settings, checkpoints and popularity need no gate: they are the
champion's own parameters, or none.

The rule, on the 95 % interval of the relative difference to the champion (doubly robust, on answers in random order):
a version **fails** if the upper end is below 0, **passes** if the lower end is above ``-MARGIN``, and is **refused**
in between, for too little is known: it gets traffic only if it is shown to no more than ``UNKNOWN_SHARE`` of the users,
or if somebody says why all the same. An equal version fails in one of 40 looks, and one that is worse by the margin
passes in one of 40. What is judged is the order of the items that the champion chose: what a version would show
beside them was never logged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from millrace.enums import name_of
from millrace.errors import InvalidField
from millrace.experiments.assignment import TOLERANCE
from millrace.experiments.definition import is_thompson
from millrace.v1.experiment_pb2 import ExperimentDefinition, Gate, GateEvidence, GateVerdict

MARGIN = 0.1
"""Worse by so much is borne: an experiment shows a version to a tenth of the users and finds it out, for a hundredth of
the clicks meanwhile."""

UNKNOWN_SHARE = 0.01
"""A version of which too little is known may be one that nobody ever clicks on. Shown to so many users it costs a
hundredth of the clicks as well."""

ANSWERS_MIN, USERS_MIN = 200, 100
"""Least answers in random order, and users who got them: intervals are normal ones, by user."""

PASSED = GateVerdict.GATE_VERDICT_PASSED
FAILED = GateVerdict.GATE_VERDICT_FAILED
REFUSED = GateVerdict.GATE_VERDICT_REFUSED


def gated(definition: ExperimentDefinition, champion: str) -> list[str]:
    """Versions among the arms that need the gate, in the order of the arms."""
    return list(dict.fromkeys(arm.model_version for arm in definition.arms if arm.model_version not in ("", champion)))


def too_few(evidence: GateEvidence) -> str:
    """Why there are too few answers to say anything; empty if there are enough."""
    if evidence.answers >= ANSWERS_MIN and evidence.users >= USERS_MIN:
        return ""
    known = f"{evidence.answers:,} answers in random order to {evidence.users:,} users are known"
    return f"{known}, of {ANSWERS_MIN} to {USERS_MIN} at least"


def judge(evidence: GateEvidence) -> Gate:
    """What follows from the evidence by the rule."""
    low, high = evidence.effect_low, evidence.effect_high
    verdict, between = PASSED, f"by {low:+.1%} to {high:+.1%} of the champion's clicks"
    refusal = evidence.refusal or too_few(evidence)
    if refusal:
        verdict, reason = REFUSED, refusal
    elif high < 0:
        verdict, reason = FAILED, f"it is surely worse, {between}"
    elif low > -MARGIN:
        reason = f"it differs {between}; {-MARGIN:.0%} would be borne"
    else:
        verdict, reason = REFUSED, f"it differs {between}, and {-MARGIN:.0%} would be borne{_would_do(evidence)}"
    return Gate(evidence=evidence, verdict=verdict, reason=reason)


def gates(
    definition: ExperimentDefinition,
    champion: str,
    evidence: Sequence[GateEvidence],
    override_reason: str,
    asked_by: str,
) -> list[Gate]:
    """The gate of each version that needs one.

    Raises
    ------
    InvalidField
        A version did not pass, and there is no reason to start it all the same.
    """
    given: Mapping[str, GateEvidence] = {one.model_version: one for one in evidence}
    found: list[Gate] = []
    unknown = 0.0
    for version in gated(definition, champion):
        known = given.get(version)
        if known is None:
            known = GateEvidence(model_version=version, refusal="nothing was measured")
        elif known.champion_version != champion:
            problem = f"measured against version {known.champion_version}, and {champion} is the champion"
            known = GateEvidence(model_version=version, refusal=problem)
        gate = judge(known)
        if gate.verdict != PASSED:
            unknown += exposure(definition, version)
            borne = gate.verdict == REFUSED and unknown <= UNKNOWN_SHARE + TOLERANCE
            if not override_reason and not borne:
                raise InvalidField(
                    "evidence",
                    f"version {version} {'failed' if gate.verdict == FAILED else 'is refused'} at the gate: "
                    f"{gate.reason}",
                    f"versions that pass; refused ones to {UNKNOWN_SHARE:.0%} of all users; others with a reason "
                    "(--override)",
                )
            if override_reason:
                gate.override_reason, gate.overridden_by = override_reason, asked_by
        found.append(gate)
    return found


def exposure(definition: ExperimentDefinition, version: str) -> float:
    """Share of all users who may be shown a version: those of the experiment where shares move."""
    if is_thompson(definition):
        return definition.traffic
    return definition.traffic * sum(arm.share for arm in definition.arms if arm.model_version == version)


def gate_differences(recorded: Sequence[Gate]) -> list[str]:
    """What in the gates of a record does not follow from their evidence; empty if all does."""
    found = []
    for gate in recorded:
        anew = judge(gate.evidence)
        if (anew.verdict, anew.reason) != (gate.verdict, gate.reason):
            found.append(
                f"gate of version {gate.evidence.model_version}: {_named(gate)} stands, and {_named(anew)} follows"
            )
    return found


def _named(gate: Gate) -> str:
    return f"{name_of(GateVerdict.DESCRIPTOR, gate.verdict)} ({gate.reason})"


def _would_do(evidence: GateEvidence) -> str:
    """How many answers would be enough, if the difference is what it seems to be."""
    room = evidence.effect + MARGIN
    if room <= 0:
        return ""
    half = evidence.effect - evidence.effect_low
    needed = evidence.answers * (half / room) ** 2
    return f"; some {needed:,.0f} answers in random order would say, and {evidence.answers:,} are known"
