"""Arms that the tracker stops, and a split that it does not believe: what happened is said, and why."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest

from benchmarks.answers import outcome
from millrace.experiments.life import RUNNING
from millrace.experiments.outlook import items_shown, on_guardrails
from millrace.experiments.record import differences, verdict
from millrace.v1.experiment_pb2 import DecisionKind
from millrace.v1.impression_pb2 import AnswerStatus, Fallback
from tests.experiment_support import NEGATIVE, POSITIVE, answer, definition, figures, running, traffic
from tests.outcome_support import T0


def test_answers_that_fall_back_stop_an_arm() -> None:
    given = definition(minimum_users=50)
    given.guardrails.fallback_margin = 0.05
    tracker = running(given)
    for number in range(2_000):
        shown = answer(given, f"u{number}", f"r{number}", T0 + number)
        if shown.arm == "b" and number % 3 == 0:
            shown.fallback = Fallback.FALLBACK_ARM_UNAVAILABLE
        tracker.outcome(outcome(shown, [POSITIVE if number % 5 == 0 else NEGATIVE]), 0, T0 + number)
    assert figures(tracker, "b").failures > 0
    decision = tracker.experiments["test"].decision
    assert decision.kind == DecisionKind.DECISION_KIND_STOP_FOR_HARM
    assert "answers that failed or fell back" in decision.reason


def test_an_arm_that_shows_a_few_items_is_stopped_and_its_sums_are_those_of_its_slots() -> None:
    """Two partitions, each with counts of its own; 5 of 30 and of 10 items, an answer each."""
    given = definition()
    given.guardrails.coverage_margin = 0.2
    tracker, shown = running(given), defaultdict[tuple[int, str], Counter[str]](Counter)
    for number, each in enumerate(traffic(given, 1_200, dict.fromkeys("ab", 0.1), variety={"a": 30, "b": 10})):
        partition = int(each.user_id.rpartition(".")[2]) % 2
        tracker.outcome(each, partition, each.decided_at_ms)
        shown[partition, each.impression.arm].update(slot.slot.item_id for slot in each.slots)
        if number == 500:
            assert tracker.items == sum(map(len, shown.values()))
    tracker.decide(T0)
    record = tracker.experiments["test"]
    for seen in record.figures:
        counts = [shown[partition, seen.name] for partition in range(2)]
        assert seen.statistics["shown.slots"] == sum(each.total() for each in counts)
        pairs = sum(count * (count - 1) / 2 for each in counts for count in each.values())
        assert seen.statistics["shown.pairs"] == pairs
    assert items_shown(record) == pytest.approx({"a": 30, "b": 10}, rel=0.05)
    ((name, (worse, surely, borne)),) = on_guardrails(record)["b"].items()
    assert worse == pytest.approx((1 / 10 - 1 / 30) / 2, rel=0.1)
    assert worse > surely > borne == pytest.approx(0.25 / 30 / 2, rel=0.05)
    assert record.decision.kind == DecisionKind.DECISION_KIND_STOP_FOR_HARM
    assert record.decision.reason.split(": ")[1].startswith(f"{name} is worse by at least {surely:.3g}")
    assert differences(record.decision, verdict(record, record.decision.at_ms)) == []


def test_arms_whose_clicks_are_below_the_floor_are_stopped_though_they_are_alike() -> None:
    given = definition(expected_rate=0.1)
    given.guardrails.click_floor = 0.08
    tracker = running(given)
    for each in traffic(given, 2_000, dict.fromkeys("ab", 0.05)):
        tracker.outcome(each, 0, each.decided_at_ms)
    seen = figures(tracker, "b")
    record = tracker.experiments["test"]
    assert record.decision.kind == DecisionKind.DECISION_KIND_STOP_FOR_HARM
    ((name, (worse, surely, borne)),) = on_guardrails(record)["b"].items()
    assert worse == pytest.approx(0.08 - seen.clicks / seen.slots)
    assert worse > surely > borne == 0
    assert f"{name} is worse by at least {surely:.3g}" in record.decision.reason
    assert differences(record.decision, verdict(record, record.decision.at_ms)) == []


def test_an_arm_whose_answers_fail_is_stopped_and_is_no_broken_split() -> None:
    """Users who never get an answer are users of the arm: left out, the split would look broken."""
    given = definition(minimum_users=50)
    given.guardrails.fallback_margin = 0.05
    tracker = running(given)
    for number in range(2_000):
        shown = answer(given, f"u{number}", f"r{number}", T0 + number)
        labels = [POSITIVE if number % 5 == 0 else NEGATIVE]
        if shown.arm == "b" and number % 3 == 0:
            shown.status, labels = AnswerStatus.ANSWER_STATUS_FAILED, []
        tracker.outcome(outcome(shown, labels), 0, T0 + number)
    seen = figures(tracker, "b")
    assert seen.failures == seen.impressions - seen.slots > 0
    assert seen.users == seen.impressions
    record = tracker.experiments["test"]
    assert record.decision.kind == DecisionKind.DECISION_KIND_STOP_FOR_HARM
    assert "answers that failed or fell back" in record.decision.reason


def test_a_broken_split_blocks_every_decision() -> None:
    given = definition()
    tracker = running(given)
    for number in range(4_000):
        shown = answer(given, f"u{number}", f"r{number}", T0 + number)
        if shown.arm == "b" and number % 2:
            continue  # lost on its way
        tracker.outcome(outcome(shown, [POSITIVE if shown.arm == "b" else NEGATIVE]), 0, T0 + number)
    tracker.decide(T0)
    record = tracker.experiments["test"]
    assert record.decision.kind == DecisionKind.DECISION_KIND_SAMPLE_RATIO_MISMATCH
    assert record.state == RUNNING
