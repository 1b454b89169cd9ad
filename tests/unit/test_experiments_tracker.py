"""The tracker without a broker: what counts, what does not, and that a restart changes no digit."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given as with_any
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as some

from benchmarks.answers import outcome
from millrace.errors import InvalidField
from millrace.experiments.comparison import Comparison
from millrace.experiments.definition import CLICKS
from millrace.experiments.life import STOPPED
from millrace.experiments.outlook import explained
from millrace.experiments.record import differences, sums_of, verdict
from millrace.experiments.tracker import Tracker, TrackerLimits
from millrace.v1.experiment_pb2 import DecisionKind, Experiment, ExperimentDefinition
from millrace.v1.interaction_pb2 import Interaction, InteractionType
from millrace.v1.outcome_pb2 import Outcome
from tests.experiment_support import (
    LIMITS,
    NEGATIVE,
    POSITIVE,
    TOPIC_IDS,
    UNSEEN,
    TrackerLog,
    answer,
    definition,
    figures,
    ledgers,
    running,
    stop,
    traffic,
)
from tests.outcome_support import T0, act

HOUR = 3_600_000


def user_in(given: ExperimentDefinition, arm: str) -> str:
    return next(user for n in range(100) if answer(given, user := f"user {n}", "r").arm == arm)


def test_an_answer_counts_once_all_of_its_slots_are_decided() -> None:
    given = definition()
    tracker, shown = running(given), answer(given, "anna", "r1")
    assert tracker.outcome(outcome(shown, [POSITIVE], final=False), 0, T0) == "counted"
    assert figures(tracker, shown.arm).impressions == 0
    tracker.outcome(outcome(shown, [NEGATIVE, NEGATIVE, UNSEEN], first=False, rank=1), 0, T0)
    seen = figures(tracker, shown.arm)
    assert (seen.users, seen.impressions, seen.slots, seen.clicks) == (1, 1, 3, 1)
    # 3 ms: at or above 100 µs * 2^(9/2), below 100 µs * 2^(10/2).
    assert seen.serve_counts[10] == sum(seen.serve_counts) == 1
    late = outcome(answer(given, "anna", "r0"), [NEGATIVE], first=False)
    assert tracker.outcome(late, 0, T0) == "first part unknown"
    assert figures(tracker, shown.arm).impressions == 1


def test_sums_of_an_answer_are_those_of_its_slots() -> None:
    one, all_at_once = Comparison(), Comparison()
    for clicked in (1.0, 0.0, 0.0):
        one.add("u", False, (0.2, 0.8), clicked)
    all_at_once.add("u", False, (0.2, 0.8), 1.0, slots=3)
    # The centre is 0 before the first answer, and moves inside it when slots come one by one.
    assert all_at_once.sums.difference == 1 / 0.2
    for name in ("slots", "clicks", "size"):
        assert getattr(one.sums, name) == getattr(all_at_once.sums, name)


def test_an_answer_of_a_period_before_does_not_end_the_present_one() -> None:
    """Of a user: in period 1 twice, with one of period 0 in between, known late."""
    comparison = Comparison()
    for clicked, period in ((3.0, 1), (2.0, 0), (1.0, 1)):
        comparison.add("u", False, (0.5, 0.5), clicked, period, expected=0.0)
    assert comparison.sums.assigned == ((3.0 + 1.0) ** 2 + 2.0**2) / 0.25
    assert (comparison.users["u"].period, comparison.users["u"].outcome) == (1, 4.0)


def test_better_is_promoted_worse_is_stopped_and_audited_to_the_digit() -> None:
    given = definition(expected_rate=0.1, expected_lift=0.5)
    for rate, kind in ((0.2, DecisionKind.DECISION_KIND_PROMOTE), (0.05, DecisionKind.DECISION_KIND_STOP_FOR_HARM)):
        tracker = running(given)
        for each in traffic(given, 6_000, {"a": 0.1, "b": rate}):
            if tracker.outcome(each, 0, each.decided_at_ms) == "after the end":
                break
            tracker.decide(each.decided_at_ms)
        record = tracker.experiments["test"]
        assert (record.decision.kind, record.decision.arm, record.state) == (kind, "b", STOPPED)
        assert record.stopped_at_ms
        again = Experiment.FromString(record.SerializeToString())
        assert differences(again.decision, verdict(again, again.decision.at_ms)) == []
        again.figures[1].statistics[f"{CLICKS}.difference"] += 1e-9
        assert differences(again.decision, verdict(again, again.decision.at_ms))


def test_the_order_of_partitions_changes_no_digit() -> None:
    given = definition(versions=("", "2", "1"))
    made = {number: list(traffic(given, 150, dict.fromkeys("abc", 0.2), seed=number)) for number in range(3)}

    def summed(order: Sequence[int]) -> Experiment:
        tracker = running(given)
        queues = {number: iter(made[number]) for number in made}
        for number in order:
            if (each := next(queues[number], None)) is not None:
                tracker.outcome(each, number, each.decided_at_ms)
        tracker.decide(T0)
        return tracker.experiments["test"]

    order = [number for number in made for _ in made[number]]
    straight = summed(order)
    random.Random(1).shuffle(order)
    assert summed(order).figures == straight.figures
    assert sums_of(straight.figures[1], CLICKS).slots + sums_of(straight.figures[2], CLICKS).slots > 5 * 450


@hypothesis_settings(max_examples=15, deadline=None)
@with_any(some.lists(some.booleans(), min_size=120, max_size=120), some.integers(0, 1_000))
def test_a_restart_at_any_moment_changes_no_digit(saved: list[bool], seed: int) -> None:
    """What came after the last save comes again, as the positions inside it say."""
    given = definition(versions=("", "2", "1"), conversion_window_ms=HOUR)
    given.guardrails.coverage_margin, given.guardrails.click_floor = 0.2, 0.01
    given.earlier_activity = True
    variety = {"a": 20, "b": 30, "c": 10}
    made = traffic(given, 80, dict.fromkeys("abc", 0.3), seed=seed, variety=variety)
    outcomes: list[Outcome | Interaction] = list(made)
    buying = random.Random(seed)
    for number in range(20):
        event = act(f"user {seed}.{buying.randrange(80)}", "i0", "purchase", T0 + buying.randrange(2 * HOUR))
        event.event_id = f"purchase {number}"
        outcomes.insert(buying.randrange(len(outcomes)), event)

    def take(tracker: Tracker, place: int) -> None:
        each = outcomes[place]
        if isinstance(each, Outcome):
            tracker.outcome(each, 0, T0)
        else:
            tracker.interaction(each, 0, T0)
        tracker.positions["outcomes", 0] = place + 1
        tracker.tidy(T0)

    straight, log = running(given), TrackerLog(LIMITS)
    for place in range(len(outcomes)):
        take(straight, place)
    straight.decide(T0)

    tracker = running(given)
    log.save(tracker)
    for place in range(len(outcomes)):
        take(tracker, place)
        if place < len(saved) and saved[place]:
            tracker.decide(T0)
            log.save(tracker)
        elif place % 7 == 0:
            tracker = log.restored()
            for again in range(tracker.positions.get(("outcomes", 0), 0), place + 1):
                take(tracker, again)
    tracker.decide(T0)
    ours, theirs = tracker.experiments["test"], straight.experiments["test"]
    assert ours.figures == theirs.figures
    assert differences(ours.decision, theirs.decision) == []


@pytest.mark.parametrize("known_first", [True, False])
def test_purchases_count_in_event_time_within_the_window(known_first: bool) -> None:
    given = definition(conversion_window_ms=HOUR)
    tracker, shown = running(given), answer(given, "anna", "r1")
    bought = [(-1, "before"), (0, "at once"), (HOUR, "at the end"), (HOUR + 1, "after"), (5, "at once")]

    def exposed() -> None:
        tracker.outcome(outcome(shown, [NEGATIVE]), 0, T0)

    if known_first:
        exposed()
    for after_ms, event_id in bought:
        tracker.interaction(act("anna", "i0", "purchase", T0 + after_ms, event_id=event_id), 0, T0)
    if not known_first:
        exposed()
    seen = figures(tracker, shown.arm)
    assert (seen.conversions, seen.conversion_value) == (2, 8.0)


def test_a_purchase_without_an_answer_is_let_go_and_a_user_is_forgotten() -> None:
    given = definition()
    tracker, log = running(given), TrackerLog(LIMITS)
    tracker.interaction(act("ben", "i0", "purchase"), 0, T0)
    tracker.outcome(outcome(answer(given, "anna", "r1"), [POSITIVE]), 0, T0)
    log.save(tracker)
    assert sorted(key.split("\0")[0] for key in log.parts) == ["f", "p", "u", "u"]
    tracker.tidy(T0 + LIMITS.purchase_wait_ms + 1)
    assert tracker.users == 1
    tracker.interaction(
        Interaction(event_id="f", user_id="anna", type=InteractionType.INTERACTION_TYPE_FORGET, occurred_at_ms=T0),
        0,
        T0,
    )
    tracker.decide(T0)
    log.save(tracker)
    assert [key for key in log.parts if key.startswith("u")] == []
    assert sum(one.clicks for one in tracker.experiments["test"].figures) == 1


def test_bad_outcomes_are_refused_and_change_nothing() -> None:
    given = definition()
    tracker = running(given)
    anna = user_in(given, "a")
    good = outcome(answer(given, anna, "r1"), [NEGATIVE])
    tracker.outcome(good, 0, T0)
    before = figures(tracker, "a").SerializeToString(deterministic=True)

    def refused(field: str, **changes: object) -> None:
        bad = Outcome.FromString(good.SerializeToString())
        bad.request_id = "r2"
        late = changes.pop("late", 0)
        assert isinstance(late, int)
        bad.decided_at_ms += late
        for name, value in changes.items():
            setattr(bad.impression, name, value)
        with pytest.raises(InvalidField) as error:
            tracker.outcome(bad, 0, T0)
        assert error.value.field == field

    refused("impression.experiment_id", experiment_id="who")
    refused("impression.arm", arm="z")
    refused("impression.arm", arm="b")
    refused("impression.propensity", propensity=0.1)
    refused("decided_at_ms", late=HOUR)
    assert figures(tracker, "a").SerializeToString(deterministic=True) == before
    organic = Outcome.FromString(good.SerializeToString())
    organic.impression.experiment_id = ""
    assert tracker.outcome(organic, 0, T0) == "of no experiment"


def test_after_the_end_nothing_counts_and_nothing_is_kept() -> None:
    given = definition()
    given.guardrails.coverage_margin = 0.5
    tracker, log = running(given), TrackerLog(LIMITS)
    tracker.outcome(outcome(answer(given, "anna", "r1"), [NEGATIVE]), 0, T0)
    tracker.outcome(outcome(answer(given, "ben", "r2"), [POSITIVE], final=False), 0, T0)
    tracker.decide(T0)
    log.save(tracker)
    assert [key.split("\0")[3] for key in log.parts if key.startswith("i")] == ["i0"]
    tracker.command(stop(), ledgers(), T0 + 5)
    log.save(tracker)
    assert list(log.parts) == ["p"]
    assert (log.records["test"].state, log.records["test"].stopped_at_ms) == (STOPPED, T0 + 5)
    assert sum(one.impressions for one in log.records["test"].figures) == 1
    assert tracker.outcome(outcome(answer(given, "carl", "r3"), [NEGATIVE]), 0, T0) == "after the end"


def test_memory_is_bounded() -> None:
    given = definition()
    tracker = running(given, TrackerLimits(0.0, users_max=2, answers_max=1, purchase_wait_ms=HOUR))
    said = [tracker.outcome(outcome(answer(given, f"u{n}", f"r{n}"), [POSITIVE], final=False), 0, T0) for n in range(3)]
    assert said == ["counted", "counted", "too many users"]
    assert tracker.tidy(T0) == 1
    assert tracker.answers == 1
    rest = outcome(answer(given, "u0", "r0"), [NEGATIVE], first=False, rank=1)
    assert tracker.outcome(rest, 0, T0) == "first part unknown"


def test_earlier_activity_is_that_of_the_first_answer_that_says_it() -> None:
    """And leaves less to chance: who did much before clicks much."""
    asked, plain = definition(earlier_activity=True), definition()
    trackers = running(asked), running(plain)
    chance = random.Random(4)
    for number in range(900):
        user = number % 300
        shown = answer(plain, f"u{user}", f"r{number}", T0 + number)
        if number >= 300 or user % 10:
            # What is said later is not what was before the start.
            shown.earlier_activity = user % 5 if number < 600 else 77
        labels = [POSITIVE if chance.random() < (user % 5) / 5 else NEGATIVE for _ in range(3)]
        for tracker in trackers:
            tracker.outcome(outcome(shown, labels), 0, T0 + number)
    ours, theirs = (sums_of(figures(tracker, "b"), CLICKS) for tracker in trackers)
    assert ours.variance < 0.6 * theirs.variance
    assert ours.control_rate == theirs.control_rate
    seen = figures(trackers[0], "a").statistics
    # All slots but those of the 30 users of whom nothing was known at first, in their first answer.
    assert seen["earlier.units"] == 3 * (900 - 30)
    assert seen["earlier.x"] == pytest.approx(9 * sum(math.log1p(user % 5) for user in range(300)))
    assert explained(trackers[0].experiments["test"]) == pytest.approx(0.4, abs=0.1)
    assert explained(trackers[1].experiments["test"]) is None


def test_positions_of_a_topic_that_was_made_anew_are_dropped() -> None:
    tracker, log = running(definition()), TrackerLog(LIMITS)
    tracker.positions |= {("outcomes", 1): 7, ("interactions", 0): 3}
    log.save(tracker)
    again = Tracker(LIMITS)
    again.restore(log.records, log.parts, TOPIC_IDS | {"outcomes": "another"})
    assert again.positions == {("interactions", 0): 3}


def test_what_has_ended_keeps_the_positions_of_its_end() -> None:
    tracker, log = running(definition()), TrackerLog(LIMITS)
    tracker.positions["outcomes", 1] = 7
    tracker.command(stop(), ledgers(), T0)
    tracker.positions["outcomes", 1] = 9
    log.save(tracker)
    assert [(one.partition, one.offset) for one in log.records["test"].included] == [(1, 6)]
    assert log.restored().positions == {("outcomes", 1): 9}
