"""The gate: what answers in random order say of a version, when it is refused, and what stands in the record."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.gated import EXAMINATION, FIRST, SECOND, Shop, at_the_gate, logged, looks, ranker, truth
from millrace.errors import InfrastructureError, InvalidField
from millrace.experiments.gate import FAILED, PASSED, REFUSED, gate_differences, gated, gates, judge
from millrace.experiments.gate_evidence import measure
from millrace.experiments.policy_values import line_up, policy_values
from millrace.experiments.shuffled import ShuffledAnswer, ShuffledAnswers
from millrace.ranking.features import FEATURE_NAMES, FEATURE_SCHEMA
from millrace.ranking.model import RankingModel
from millrace.v1.experiment_pb2 import AllocationPolicy, GateEvidence
from millrace.v1.impression_pb2 import Slot
from millrace.v1.outcome_pb2 import DecidedSlot, ImpressionOrigin, Label, Outcome
from tests.experiment_support import definition

POSITIVE, NEGATIVE, UNSEEN = Label.LABEL_POSITIVE, Label.LABEL_NEGATIVE, Label.LABEL_UNSEEN


@pytest.mark.parametrize(("noise", "verdict"), [(0.0, PASSED), (3.0, FAILED)])
def test_estimates_are_right_whatever_users_look_at_first(noise: float, verdict: int) -> None:
    """Places get from 1 to a quarter of the attention; orders and clicks are nothing alike."""
    shop, runs = Shop(answers=800, users=400, noise=noise), 30
    found = looks(shop, runs, 1)
    effects = np.array([one.evidence.effect for one in found])
    true = truth(shop, 50_000)
    # The truth is known to .003.
    assert abs(effects.mean() - true) < 4 * effects.std() / math.sqrt(runs) + 0.003
    held = sum(one.evidence.effect_low <= true <= one.evidence.effect_high for one in found)
    assert held >= 24, "95 %; of 30, fewer come by chance once in 2,000 times"
    assert sum(one.verdict == verdict for one in found) > 15
    assert sum(one.verdict == (FAILED if verdict == PASSED else PASSED) for one in found) <= 4


def test_three_estimators_say_what_either_order_earns() -> None:
    shop = Shop(answers=8_000, users=8_000)
    values = policy_values(line_up(logged(shop, np.random.default_rng(2)).answers, ranker(SECOND)))
    assert values.refusal == ""
    # What a list in the champion's order brings, from 8,000 others.
    answers = logged(shop, np.random.default_rng(3)).answers
    shown = np.array([one.clicked[np.argsort(one.places)] for one in answers])
    by_place = shown.mean(axis=0)
    assert by_place / by_place[0] == pytest.approx(EXAMINATION, abs=0.1), "random items: what is left is attention"
    ranks = np.argsort(np.argsort([-one.scores for one in answers]))
    rates = np.array([one.clicked for one in answers])
    earned = sum(rates[ranks == rank].mean() * EXAMINATION[rank] for rank in range(10)) / 10 / EXAMINATION.mean()
    for policy in (values.champion, values.version):
        for estimator in ("ipw", "snips", "dr"):
            found = policy[estimator]
            assert found.low < earned < found.high
            assert found.high - found.low < 0.1 * earned
    assert values.effect.effective > 40_000


def test_the_order_in_which_items_stood_says_nothing_of_what_is_wanted() -> None:
    """Ties are broken by the items, also where no score tells any two apart."""
    (one,) = logged(Shop(answers=1, users=1), np.random.default_rng(4)).answers
    alike = replace(one, scores=np.zeros_like(one.scores), features=np.zeros_like(one.features))
    turned = replace(alike, places=alike.places[::-1].copy())
    for seen in (alike, turned):
        items = line_up([seen], ranker(SECOND))
        assert items.meant.tolist() == items.wanted.tolist() == list(range(10))


def test_an_order_that_was_not_random_is_refused() -> None:
    answers = logged(Shop(), np.random.default_rng(5))
    for place, one in enumerate(answers.answers):
        answers.answers[place] = replace(one, places=np.argsort(np.argsort(-one.scores)))
    refused = judge(measure(answers, lambda: ranker(SECOND)))
    assert refused.verdict == REFUSED
    assert "and should be 1: propensities are wrong" in refused.reason


@pytest.mark.parametrize(
    ("shop", "why"),
    [
        (Shop(answers=199), "199 answers in random order to 180 users are known, of 200 to 100 at least"),
        (Shop(answers=2_000, users=50), "2,000 answers in random order to 50 users are known"),
        (Shop(answers=300, users=300, base=-12.0), "there are too few clicks to say what anything is worth"),
        (Shop(answers=300, users=300), "would be borne; some "),
    ],
)
def test_too_little_is_refused(shop: Shop, why: str) -> None:
    found = at_the_gate(shop, np.random.default_rng(8))
    assert found.verdict == REFUSED
    assert why in found.reason


def test_a_version_that_cannot_be_had_or_ranks_by_other_features_is_refused() -> None:
    answers = logged(Shop(), np.random.default_rng(7))
    other = judge(measure(answers, lambda: replace(ranker(FIRST), feature_schema="older")))
    assert (other.verdict, other.reason) == (REFUSED, f"it ranks by features older, and {FEATURE_SCHEMA} are logged")

    def away() -> RankingModel:
        raise InfrastructureError("mlflow", "nobody listens")

    assert "nobody listens" in judge(measure(answers, away)).reason
    few = ShuffledAnswers("ranker", "1")
    few.others = 7
    assert "; 7 of other versions, or with other features, do not count" in measure(few, away).refusal


def test_the_same_model_passes_with_few_answers() -> None:
    answers = logged(Shop(answers=400), np.random.default_rng(6))
    same = judge(measure(answers, lambda: ranker(FIRST)))
    assert same.verdict == PASSED
    assert same.evidence.effect == 0
    assert -0.1 < same.evidence.effect_low < 0 < same.evidence.effect_high


def evidence(low: float, high: float, version: str = "2", champion: str = "1") -> GateEvidence:
    return GateEvidence(
        model_version=version,
        champion_version=champion,
        answers=1_000,
        users=500,
        effect=(low + high) / 2,
        effect_low=low,
        effect_high=high,
    )


@pytest.mark.parametrize(
    ("low", "high", "verdict", "reason"),
    [
        (0.02, 0.08, PASSED, "it differs by +2.0% to +8.0% of the champion's clicks; -10% would be borne"),
        (-0.09, 0.03, PASSED, "it differs by -9.0% to +3.0% of the champion's clicks; -10% would be borne"),
        (-0.09, -0.01, FAILED, "it is surely worse, by -9.0% to -1.0% of the champion's clicks"),
        (-0.3, 0.1, REFUSED, ""),
        (-0.15, 0.15, REFUSED, "; some 2,250 answers in random order would say, and 1,000 are known"),
    ],
)
def test_the_rule(low: float, high: float, verdict: int, reason: str) -> None:
    found = judge(evidence(low, high))
    assert found.verdict == verdict
    assert found.reason.endswith(reason)
    assert found.evidence.effect_high == high


def test_only_versions_that_are_not_the_champion_need_the_gate() -> None:
    given = definition(versions=("", "1", "2", "3", "2"))
    assert gated(given, "1") == ["2", "3"]
    settings = definition(versions=("", "", "1", ""))
    settings.arms[1].settings["fresh_items"] = "0"
    settings.arms[2].settings["parameters"] = "registered"
    settings.arms[3].settings["ranking"] = "popular"
    assert gates(settings, "1", [], "", "me") == []


def test_what_does_not_pass_is_stopped_or_overridden_with_a_reason() -> None:
    given = definition(versions=("", "2", "3"))
    good, bad = evidence(-0.01, 0.1), evidence(-0.2, -0.1, "3")
    with pytest.raises(InvalidField, match="version 3 failed at the gate: it is surely worse"):
        gates(given, "1", [good, bad], "", "me")
    with pytest.raises(InvalidField, match="version 3 is refused at the gate: nothing was measured"):
        gates(given, "1", [good], "", "me")
    with pytest.raises(InvalidField, match="measured against version 1, and 4 is the champion"):
        gates(given, "4", [good], "", "me")
    passed, overridden = gates(given, "1", [good, bad], "the shop is new", "me")
    assert (passed.verdict, passed.override_reason, passed.overridden_by) == (PASSED, "", "")
    assert (overridden.verdict, overridden.override_reason) == (FAILED, "the shop is new")
    assert overridden.overridden_by == "me"
    assert gate_differences([passed, overridden]) == []
    passed.evidence.effect_low = -0.5
    (found,) = gate_differences([passed, overridden])
    assert found.startswith("gate of version 2: passed (it differs by -1.0%")
    assert "stands, and refused (it differs by -50.0%" in found
    empty = GateEvidence(model_version="2", champion_version="1")
    assert judge(empty).verdict == REFUSED, "figures that nobody filled in are no evidence"


def part(request_id: str, labels: dict[int, Label.ValueType], first: bool, final: bool, **fields: object) -> Outcome:
    """Some slots of an answer, by place; the items are named so that their order is not that of the places."""
    outcome = Outcome(
        request_id=request_id,
        user_id=f"user of {request_id}",
        origin=ImpressionOrigin.IMPRESSION_ORIGIN_SERVED,
        first=first,
        final=final,
        slots=[
            DecidedSlot(
                slot=Slot(item_id=f"{9 - place}", rank=place, score=place / 10, features=[place] * len(FEATURE_NAMES)),
                label=label,
            )
            for place, label in labels.items()
        ],
    )
    given = {"model_name": "ranker", "model_version": "1", "feature_schema": FEATURE_SCHEMA, "shuffled": True}
    for name, value in (given | fields).items():
        setattr(outcome.impression, name, value)
    return outcome


def test_one_of_which_too_little_is_known_may_be_shown_to_a_hundredth_of_the_users() -> None:
    """Nobody may ever click on it: that costs what is borne. One that is surely worse may not."""
    given = definition(versions=("", "2", "3"), traffic=0.04)
    given.arms[0].share, given.arms[1].share, given.arms[2].share = 0.75, 0.125, 0.125
    unknown = [evidence(-0.5, 0.5), evidence(-0.5, 0.5, "3")]
    both = gates(given, "1", unknown, "", "me")
    assert [(gate.verdict, gate.override_reason) for gate in both] == [(REFUSED, "")] * 2
    assert gate_differences(both) == []
    with pytest.raises(InvalidField, match="failed at the gate"):
        gates(given, "1", [unknown[0], evidence(-0.2, -0.1, "3")], "", "me")
    given.arms[2].share += 0.01
    with pytest.raises(InvalidField, match="version 3 is refused at the gate") as refused:
        gates(given, "1", unknown, "", "me")
    assert refused.value.allowed.startswith("versions that pass; refused ones to 1% of all users")
    moving = definition(traffic=0.04, policy=AllocationPolicy.ALLOCATION_POLICY_THOMPSON)
    with pytest.raises(InvalidField, match="is refused"):
        gates(moving, "1", unknown, "", "me")


def test_answers_are_put_together_from_the_log() -> None:
    log = ShuffledAnswers("ranker", "1")
    for outcome in (
        part("cut off", {1: NEGATIVE}, first=False, final=True),
        part("whole", {2: POSITIVE}, first=True, final=False),
        part("not random", {0: NEGATIVE}, first=True, final=True, shuffled=False),
        part("of another", {0: NEGATIVE}, first=True, final=True, model_version="2"),
        part("of another schema", {0: NEGATIVE}, first=True, final=True, feature_schema="older"),
        part("of another model", {0: NEGATIVE}, first=True, final=True, model_name="other"),
        part("without a place", {0: NEGATIVE, 2: NEGATIVE}, first=True, final=True),
        part("whole", {0: NEGATIVE, 1: UNSEEN}, first=False, final=True),
        part("open", {0: POSITIVE}, first=True, final=False),
    ):
        log.take(outcome)
    (whole,) = log.answers
    assert whole.user_id == "user of whole"
    assert whole.places.tolist() == [2, 1, 0]
    assert whole.clicked.tolist() == [True, False, False]
    assert whole.scores.tolist() == pytest.approx([0.2, 0.1, 0.0])
    assert whole.features[:, 0].tolist() == [2, 1, 0]
    assert log.others == 2


def test_memory_is_bounded_by_the_newest_answers() -> None:
    log = ShuffledAnswers("ranker", "1", slots_max=7)
    for number in range(5):
        log.take(part(f"r{number}", {0: NEGATIVE, 1: POSITIVE, 2: NEGATIVE}, first=True, final=True))
    kept: list[ShuffledAnswer] = list(log.answers)
    assert [one.user_id for one in kept] == ["user of r3", "user of r4"]
