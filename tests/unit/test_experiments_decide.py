"""The rule, value by value: what is decided, in which order, and why."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from millrace.errors import InvalidField
from millrace.experiments.comparison import Sums
from millrace.experiments.decide import Arm, Guardrail, Rule, Verdict, decide
from millrace.v1 import experiment_pb2 as pb

RULE = Rule(alpha=0.05, best_at=8_000.0, minimum_duration_ms=86_400_000, worthwhile=0.01)
DAY = 86_400_000


def sums(effect: float, slots: float = 40_000.0) -> Sums:
    """Independent slots at 50/50 and 5 %: the variance of each is 0.2."""
    return Sums(
        slots=slots,
        clicks=0.05 * slots,
        difference=effect * slots,
        square=0.2 * slots + effect**2 * slots,
        product=effect * slots,
        size=slots,
        control_weight=slots,
        control_clicks=0.05 * slots,
    )


def arm(effect: float, name: str = "b", users: int = 2_000, slots: float = 40_000.0, *rails: Guardrail) -> Arm:
    return Arm(name, users, sums(effect, slots), rails)


def said(*arms: Arm, control_users: int = 2_000, split: float = 0.0, lasted_ms: int = DAY) -> Verdict:
    return decide(RULE, control_users, arms, split, lasted_ms)


def test_better_is_promoted_worse_is_stopped_and_between_is_not_known() -> None:
    assert said(arm(0.01)).kind == pb.DECISION_KIND_PROMOTE
    assert said(arm(-0.01)).kind == pb.DECISION_KIND_STOP_FOR_HARM
    unknown = said(arm(0.002))
    assert unknown.kind == pb.DECISION_KIND_CONTINUE
    assert unknown.low < 0 < unknown.effect < unknown.high
    assert unknown.effect == pytest.approx(0.04)
    assert unknown.reason == "b -9.6% to +17.6%: not known yet"


def test_the_interval_is_the_one_computed_by_hand() -> None:
    """V = 8,000 = best_at, so h = V / (2 ln 20 + ln(2 ln 20) + 1) and the bound on the sum is 3.03 sqrt(V)."""
    verdict = said(arm(0.01))
    mixture = 8_000 / (2 * math.log(20) + math.log(2 * math.log(20)) + 1)
    half = math.sqrt((8_000 + mixture) * math.log((8_000 + mixture) / (mixture * 0.0025))) / 40_000
    assert (verdict.low, verdict.high) == pytest.approx(((0.01 - half) / 0.05, (0.01 + half) / 0.05))
    assert half / math.sqrt(8_000) * 40_000 == pytest.approx(3.03, abs=0.01)


def test_what_is_surely_not_worthwhile_is_rejected() -> None:
    many = arm(0.0, slots=4e7)
    assert said(many).kind == pb.DECISION_KIND_REJECT
    assert "no arm is better by 1.0% or more" in said(many).reason
    assert said(many, arm(0.002, "c")).kind == pb.DECISION_KIND_CONTINUE, "of the other one it is not known"


def test_a_broken_split_blocks_everything() -> None:
    verdict = said(arm(0.01), split=math.log(200.0))
    assert verdict.kind == pb.DECISION_KIND_SAMPLE_RATIO_MISMATCH
    assert "e-value 200" in verdict.reason
    assert math.isnan(verdict.effect)
    assert said(arm(0.01), split=1e6).kind == pb.DECISION_KIND_SAMPLE_RATIO_MISMATCH


def test_nothing_is_said_of_few_users_or_of_a_control_without_clicks() -> None:
    for verdict in (said(arm(-0.01, users=199)), said(arm(-0.01), control_users=199)):
        assert verdict.kind == pb.DECISION_KIND_CONTINUE
        assert "of 200 each" in verdict.reason
    silent = Arm("b", 2_000, replace(sums(0.01), control_clicks=0.0))
    assert said(silent).reason == "the control has no clicks yet"


def test_a_promotion_waits_for_the_minimum_duration_and_harm_does_not() -> None:
    assert said(arm(0.01), lasted_ms=DAY - 1).reason.endswith("decided after 24 h at the earliest")
    assert said(arm(-0.01), lasted_ms=0).kind == pb.DECISION_KIND_STOP_FOR_HARM


def test_of_several_arms_harm_comes_first_and_the_best_is_promoted_at_a_stricter_level() -> None:
    assert said(arm(0.01, "b"), arm(-0.01, "c")).arm == "c"
    best = said(arm(0.012, "b"), arm(0.015, "c"))
    assert (best.kind, best.arm) == (pb.DECISION_KIND_PROMOTE, "c")
    alone, among = said(arm(0.004)), said(arm(0.004, "b"), arm(0.0, "c"))
    assert among.low < alone.low


@pytest.mark.parametrize(("worse", "effect", "breached"), [(1, 0.02, True), (1, -0.02, False), (-1, -0.02, True)])
def test_a_guardrail_looks_to_one_side(worse: int, effect: float, breached: bool) -> None:
    rail = Guardrail("failures", sums(effect), worse, margin=0.005, best_at=8_000.0)
    verdict = said(arm(0.01, "b", 2_000, 40_000.0, rail))
    assert verdict.kind == (pb.DECISION_KIND_STOP_FOR_HARM if breached else pb.DECISION_KIND_PROMOTE)
    assert ("failures is worse by at least" in verdict.reason) == breached


def test_a_guardrail_within_its_margin_or_without_data_stops_nothing() -> None:
    borne = Guardrail("latency", sums(0.02), 1, margin=0.02, best_at=8_000.0)
    empty = Guardrail("errors", Sums(), 1, margin=0.0, best_at=8_000.0)
    assert said(arm(0.01, "b", 2_000, 40_000.0, borne, empty)).kind == pb.DECISION_KIND_PROMOTE


def test_an_experiment_without_arms_is_refused() -> None:
    with pytest.raises(InvalidField, match="arms: none"):
        said()
