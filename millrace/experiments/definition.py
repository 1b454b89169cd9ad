"""What a valid experiment is, and what follows from its definition before anything was seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from millrace.errors import InvalidField
from millrace.events.rules import check_id
from millrace.experiments.arms import read_arm
from millrace.experiments.assignment import TOLERANCE, check_shares
from millrace.experiments.coverage import margin
from millrace.experiments.plan import Plan, slots_to_find
from millrace.settings import DAY_MS
from millrace.v1.experiment_pb2 import AllocationPolicy, Arm, ExperimentDefinition, Reward

ARMS_MAX = 16
DESCRIPTION_MAX_BYTES = 1_024
TIME_MAX_MS = 366 * DAY_MS
PERIOD_MIN_MS = 1_000
"""Of THOMPSON. Shares are known everywhere within a second."""

CLICKS, FALLBACKS, SLOW, COVERAGE, FLOOR = "clicks", "fallbacks", "slow", "coverage", "floor"
"""What is looked at: clicks by slot; answers that failed or fell back, and slow ones, by answer; what slots show; and
clicks by slot against a bound."""

# For the width of an interval, not for its validity: how often answers fail or are slow where nothing is wrong, and
# the items that a control shows (the reciprocal of Simpson's index; a tenth as many cost a fifth of the width,
# ten times as many make it nearly three times as wide).
USUALLY_BAD = 0.01
USUAL_ITEMS = 1_000

DEFAULTS: Mapping[str, float] = {
    "alpha": 0.05,
    "minimum_users": 200,
    "conversion_window_ms": DAY_MS,
    "expected_rate": 0.05,
    "expected_lift": 0.1,
}
"""Of the fields that a definition may leave at 0."""


def completed(given: ExperimentDefinition) -> ExperimentDefinition:
    """The definition with every default written out, so that the record says what holds."""
    definition = ExperimentDefinition()
    definition.CopyFrom(given)
    for name, value in DEFAULTS.items():
        if not getattr(definition, name):
            setattr(definition, name, type(getattr(definition, name))(value))
    definition.salt = definition.salt or definition.experiment_id
    definition.layer = definition.layer or "default"
    definition.policy = definition.policy or AllocationPolicy.ALLOCATION_POLICY_FIXED
    if is_thompson(definition):
        definition.reward = definition.reward or Reward.REWARD_CLICKS
    return definition


def check_definition(definition: ExperimentDefinition) -> None:
    """Check a completed definition by itself. Raises InvalidField.

    Whether versions exist and the layer has room is for those to say who know the registry and the other experiments.
    """
    for name in ("experiment_id", "salt", "layer", "model_name"):
        check_id(name, getattr(definition, name))
    if len(definition.description.encode()) > DESCRIPTION_MAX_BYTES:
        raise InvalidField("description", "too long", f"at most {DESCRIPTION_MAX_BYTES} bytes")
    _check_arms(definition)
    _check_policy(definition)
    for name, most in (("traffic", 1.0), ("alpha", 0.5)):
        if not 0 < getattr(definition, name) <= most:
            raise InvalidField(name, f"{getattr(definition, name):g}", f"above 0, at most {most:g}")
    for name, least in (("minimum_duration_ms", 0), ("conversion_window_ms", 1)):
        if not least <= getattr(definition, name) <= TIME_MAX_MS:
            raise InvalidField(name, str(getattr(definition, name)), f"{least} to {TIME_MAX_MS} (a year)")
    if not 0 <= definition.worthwhile <= 1:
        raise InvalidField("worthwhile", f"{definition.worthwhile:g}", "0 to 1, a relative difference")
    if not 0 < definition.expected_rate < 1:
        raise InvalidField("expected_rate", f"{definition.expected_rate:g}", "above 0, below 1")
    rails = definition.guardrails
    for name in ("fallback_margin", "slow_margin"):
        # With the usual share of bad answers it has to stay a share.
        if not 0 <= getattr(rails, name) < 1 - USUALLY_BAD:
            raise InvalidField(f"guardrails.{name}", f"{getattr(rails, name):g}", f"0, or below {1 - USUALLY_BAD:g}")
    if bool(rails.slow_margin) != bool(rails.slow_micros):
        raise InvalidField("guardrails.slow_micros", str(rails.slow_micros), "given with slow_margin, and only then")
    if not 0 <= rails.coverage_margin < 1:
        raise InvalidField("guardrails.coverage_margin", f"{rails.coverage_margin:g}", "0, or below 1")
    if not 0 <= rails.click_floor < definition.expected_rate:
        allowed = f"0, or below expected_rate, which is {definition.expected_rate:g}"
        raise InvalidField("guardrails.click_floor", f"{rails.click_floor:g}", allowed)
    best_at(definition)


def _check_policy(definition: ExperimentDefinition) -> None:
    """Whether shares move, and how; arms are checked."""
    if definition.policy not in (AllocationPolicy.ALLOCATION_POLICY_FIXED, AllocationPolicy.ALLOCATION_POLICY_THOMPSON):
        raise InvalidField("policy", f"unknown value {definition.policy}", "FIXED or THOMPSON")
    if not is_thompson(definition):
        for name in ("floor", "period_ms", "reward"):
            if getattr(definition, name):
                raise InvalidField(name, "given", "with the policy THOMPSON only")
        return
    if definition.reward not in (Reward.REWARD_CLICKS, Reward.REWARD_VALUE):
        raise InvalidField("reward", f"unknown value {definition.reward}", "CLICKS or VALUE")
    if not PERIOD_MIN_MS <= definition.period_ms <= TIME_MAX_MS:
        allowed = f"{PERIOD_MIN_MS} to {TIME_MAX_MS} (a year)"
        raise InvalidField("period_ms", str(definition.period_ms), allowed)
    most = 1 / len(definition.arms)
    if not 0 < definition.floor <= most:
        allowed = f"above 0, at most {most:g}, one over the number of arms"
        raise InvalidField("floor", f"{definition.floor:g}", allowed)
    for name, share in shares(definition).items():
        if share < definition.floor - TOLERANCE:
            raise InvalidField(f"arms[{name}].share", f"{share:g}", f"the floor or more, which is {definition.floor:g}")


def _check_arms(definition: ExperimentDefinition) -> None:
    if len(definition.arms) > ARMS_MAX:
        raise InvalidField("arms", f"{len(definition.arms)}", f"2 to {ARMS_MAX}")
    names: set[str] = set()
    for place, arm in enumerate(definition.arms):
        try:
            check_id("name", arm.name)
            if arm.name in names:
                raise InvalidField("name", f"{arm.name!r} again", "a name of its own for each arm")
            read_arm(arm)
        except InvalidField as error:
            raise InvalidField(f"arms[{place}].{error.field}", error.problem, error.allowed) from None
        names.add(arm.name)
    check_shares(shares(definition))
    controls = [arm.name for arm in definition.arms if arm.control]
    if len(controls) != 1:
        raise InvalidField("arms", f"{len(controls)} controls", "exactly one arm with control")
    what = [(arm.model_version, tuple(sorted(arm.settings.items()))) for arm in definition.arms]
    if len(set(what)) < len(what) and not _is_a_a(definition):
        raise InvalidField("arms", "two that are the same", "arms that differ; all the same for an A/A test")


def _is_a_a(definition: ExperimentDefinition) -> bool:
    first = definition.arms[0]
    return all(arm.model_version == first.model_version and arm.settings == first.settings for arm in definition.arms)


def is_thompson(definition: ExperimentDefinition) -> bool:
    """Whether shares move between periods."""
    return definition.policy == AllocationPolicy.ALLOCATION_POLICY_THOMPSON


def shares(definition: ExperimentDefinition) -> dict[str, float]:
    """Share of each arm, in the order of the definition; under THOMPSON, in the first period."""
    return {arm.name: arm.share for arm in definition.arms}


def control(definition: ExperimentDefinition) -> Arm:
    """The arm that the others are compared with."""
    return next(arm for arm in definition.arms if arm.control)


def challengers(definition: ExperimentDefinition) -> Iterator[Arm]:
    """The others."""
    return (arm for arm in definition.arms if not arm.control)


def pair(definition: ExperimentDefinition, arm: Arm) -> tuple[float, float]:
    """Probabilities of the arm, and of the control, given that it is one of the two; see ``shares``."""
    both = arm.share + control(definition).share
    return arm.share / both, control(definition).share / both


def outcomes(definition: ExperimentDefinition) -> tuple[str, ...]:
    """What is looked at of each arm."""
    rails = definition.guardrails
    asked = {
        FALLBACKS: rails.fallback_margin,
        SLOW: rails.slow_margin,
        COVERAGE: rails.coverage_margin,
        FLOOR: rails.click_floor,
    }
    return CLICKS, *(name for name, bound in asked.items() if bound)


def best_at(definition: ExperimentDefinition) -> dict[str, float]:
    """For each outcome, the variance at which its interval is narrowest: where what is looked for will be found.

    One number for all arms (a factor of four off costs less than a tenth of the width): that of the smallest share.
    """
    share = min(pair(definition, arm)[0] for arm in challengers(definition))
    alpha = definition.alpha / (len(definition.arms) - 1)
    return {name: _best_at(definition, name, share, alpha) for name in outcomes(definition)}


def _best_at(definition: ExperimentDefinition, outcome: str, share: float, alpha: float) -> float:
    rails = definition.guardrails
    if outcome == COVERAGE:
        # The outcome's standard deviation is about its mean.
        index = 1 / USUAL_ITEMS
        variance = index**2 / (share * (1 - share))
        return variance * slots_to_find(margin(index, rails.coverage_margin), variance, alpha)
    if outcome == FLOOR:
        bound = rails.click_floor
        variance = bound * (1 - bound)
        return variance * slots_to_find(bound * definition.expected_lift, variance, alpha)
    margins = {FALLBACKS: rails.fallback_margin, SLOW: rails.slow_margin}
    rate, lift = definition.expected_rate, definition.expected_lift
    if outcome in margins:
        rate, lift = USUALLY_BAD, margins[outcome] / USUALLY_BAD
    try:
        plan = Plan(rate, lift, share, alpha)
    except InvalidField as error:
        raise InvalidField(f"expected_{error.field}", error.problem, error.allowed) from None
    return plan.variance * plan.slots_needed()
