"""What a version predicts beside the champion: which slots count, when something is sure, and that it stays so."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pytest

from millrace.experiments.paired import BOUNDARY, CLICKS_MIN, USERS_MIN, Paired
from millrace.learning.learner import OnlineRanker
from millrace.learning.state import fresh
from millrace.ranking.first import first_ranker
from millrace.training.measure import Line
from millrace.training.shadow import Shadow
from millrace.v1.impression_pb2 import AnswerStatus, Fallback
from millrace.v1.outcome_pb2 import ImpressionOrigin, Label, Outcome
from tests.learning_support import served


def shadow() -> Shadow:
    return Shadow("ranker", "1", Line(OnlineRanker(fresh(first_ranker(), "2", "", 0))))


def decided(found: Shadow, made: Iterable[Outcome]) -> str:
    """What it says at the end, or as soon as it is sure."""
    for outcome in made:
        if found.take(outcome) and found.verdict.better is not None:
            break
    return found.verdict.reason


def test_a_version_that_learns_what_the_champion_does_not_know_is_better() -> None:
    found = shadow()
    reason = decided(found, served(20_000, 3.0))
    assert reason.startswith("better: saves ")
    assert "of what version 1 lost on" in reason
    figures = found.verdict.figures
    assert 0 < figures["low"] < figures["gain"] < figures["high"]
    assert figures["users"] >= USERS_MIN
    assert figures["clicks"] >= CLICKS_MIN
    again = shadow()
    decided(again, served(20_000, 3.0))
    assert again.verdict == found.verdict, "whoever reads the log again finds the same"


def test_one_that_knows_less_is_not() -> None:
    assert decided(shadow(), served(5_000, 0.0)).startswith("not better: saves -")


def test_before_enough_was_seen_nothing_is_sure() -> None:
    found = shadow()
    assert decided(found, served(4_000, 3.0, users=USERS_MIN - 1)).startswith("not sure yet")


def test_what_is_asked_for_has_to_be_saved_for_sure() -> None:
    line = Line(OnlineRanker(fresh(first_ranker(), "2", "", 0)))
    assert decided(Shadow("ranker", "1", line, gain_min=5.0), served(3_000, 3.0)).startswith("not better")


@pytest.mark.parametrize(
    "change",
    [
        {"model_version": "7"},
        {"model_name": "another"},
        {"experiment_id": "colours"},
        {"status": AnswerStatus.ANSWER_STATUS_DEGRADED},
        {"fallback": Fallback.FALLBACK_UNKNOWN_USER},
    ],
)
def test_only_the_champions_own_answers_count_and_all_are_learned(change: dict[str, object]) -> None:
    ranker = OnlineRanker(fresh(first_ranker(), "2", "", 0))
    found = Shadow("ranker", "1", Line(ranker))
    for outcome in served(100, 0.5):
        for name, value in change.items():
            setattr(outcome.impression, name, value)
        found.take(outcome)
    assert found.verdict.figures["slots"] == 0
    assert ranker.examples == 400, "in steps of 200 slots"


def test_slots_nobody_saw_clicks_without_answers_and_bad_numbers_do_not_count() -> None:
    made = list(served(200, 0.5))
    for place, outcome in enumerate(made):
        kind = place % 5
        if kind == 0:
            outcome.origin = ImpressionOrigin.IMPRESSION_ORIGIN_ORGANIC
        elif kind == 1:
            outcome.slots[0].label = Label.LABEL_UNSEEN
        elif kind == 2:
            outcome.slots[0].slot.score = math.nan
        elif kind == 3:
            outcome.slots[0].slot.features[0] = math.nan
    found = shadow()
    for outcome in made:
        found.take(outcome)
    # Of five outcomes one is refused and two count, one with a slot less; 200 slots in a step.
    assert found.refused == 40
    assert 0.4 < found.verdict.figures["slots"] / 600 < 0.5


def test_the_sums_are_those_of_all_slots_by_user() -> None:
    random = np.random.default_rng(1)
    found, totals, counts = Paired(), np.zeros(40), np.zeros(40)
    for _ in range(500):
        user, saved, slots = int(random.integers(40)), float(random.normal()), int(random.integers(1, 9))
        found.add(f"u{user}", saved, slots, 1)
        totals[user] += saved
        counts[user] += slots
    effect = totals.sum() / counts.sum()
    half = BOUNDARY.two_sided(((totals - effect * counts) ** 2).sum()) / counts.sum()
    assert found.sums.effect == pytest.approx(effect)
    assert found.interval == pytest.approx((effect - half, effect + half))
    assert found.users == 40


def test_two_predictions_that_are_as_good_are_told_apart_in_few_runs() -> None:
    """Users differ in which of the two suits them and come back; looked at after every answer. The bound is .05."""
    runs, false = 50, 0
    for run in range(runs):
        random = np.random.default_rng(run)
        users, clicks = random.integers(0, 600, 1_500), random.binomial(5, 0.05, 1_500)
        suits = random.choice((-1.0, 1.0), 600)
        # Probabilities of .06 and .042 for a slot that is clicked with one of .05.
        click, none = math.log(0.06 / 0.042), math.log(0.94 / 0.958)
        found = Paired()
        for user, clicked in zip(users.tolist(), clicks.tolist(), strict=True):
            found.add(str(user), float(suits[user] * (clicked * click + (5 - clicked) * none)), 5, clicked)
            low, high = found.interval
            if found.is_enough and (low > 0 or high < 0):
                false += 1
                break
    assert false <= 6, "more of them in one case of a hundred at .05"
