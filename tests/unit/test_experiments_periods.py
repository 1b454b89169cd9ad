"""Thompson sampling through the tracker: shares that move, exact propensities, and a recount that says the same."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from benchmarks.answers import outcome
from millrace.errors import InvalidField
from millrace.experiments.periods import PERIODS_MAX, follow, period_differences
from millrace.experiments.record import differences, split_evidence, verdict
from millrace.experiments.recount import Recount, counted_anew
from millrace.experiments.srm import mismatch
from millrace.experiments.tracker import Tracker, TrackerLimits
from millrace.v1.experiment_pb2 import (
    AllocationPolicy,
    DecisionKind,
    Experiment,
    ExperimentDefinition,
    Period,
    Reward,
)
from millrace.v1.impression_pb2 import Impression
from millrace.v1.outcome_pb2 import Outcome
from tests import experiment_support
from tests.experiment_support import NEGATIVE, POSITIVE, TrackerLog, answer, definition
from tests.outcome_support import T0, act

LIMITS = TrackerLimits(holdout=0.0, users_max=100_000, answers_max=10_000, purchase_wait_ms=10**12)
MINUTE = 60_000


def thompson(versions: tuple[str, ...] = ("", "2"), **fields: object) -> ExperimentDefinition:
    given = definition(versions=versions, **({"minimum_users": 10**6} | fields))  # type: ignore[arg-type]
    given.policy = AllocationPolicy.ALLOCATION_POLICY_THOMPSON
    given.period_ms, given.floor = MINUTE, 0.1
    return given


def running(given: ExperimentDefinition) -> Tracker:
    return experiment_support.running(given, LIMITS)


class Shop(TrackerLog):
    """The topic of outcomes, and shoppers who come back, assigned by the records that the tracker wrote."""

    def __init__(self, given: ExperimentDefinition, rates: Mapping[str, float], seed: int = 1) -> None:
        super().__init__(LIMITS)
        self.given = given
        self.chance = random.Random(seed)
        self.rates = rates
        self.log: list[Outcome] = []

    @property
    def periods(self) -> list[Period]:
        return list(self.records["test"].periods)

    def ask(self, user: str, number: int) -> Impression:
        return answer(self.given, user, f"r{number}", T0 + number, self.periods)

    def come(self, number: int, users: int = 60) -> None:
        """Somebody comes, and sees three slots."""
        shown = self.ask(f"u{self.chance.randrange(users)}", number)
        clicked = sum(self.chance.random() < self.rates[shown.arm] for _ in range(3))
        if 0 < clicked < 3:
            self.log.append(outcome(shown, [POSITIVE] * clicked, final=False))
        labels = [POSITIVE] * 3 if clicked == 3 else [NEGATIVE] * (3 - clicked)
        first = clicked in (0, 3)
        self.log.append(outcome(shown, labels, first=first, rank=0 if first else clicked))


def visit(tracker: Tracker, shop: Shop, number: int, users: int = 60) -> None:
    """Somebody comes, and the tracker hears of it."""
    before = len(shop.log)
    shop.come(number, users)
    for place in range(before, len(shop.log)):
        take(tracker, shop, place)


def take(tracker: Tracker, shop: Shop, place: int) -> None:
    each = shop.log[place]
    assert tracker.outcome(each, 0, each.decided_at_ms) == "counted"
    tracker.positions["outcomes", 0] = place + 1


@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_killed_the_record_is_that_of_the_log(seed: int) -> None:
    """Shares that nobody was told of are gone; those of the record are what everything is counted by."""
    given = thompson(("", "2", "1"))
    given.guardrails.coverage_margin = 0.2
    shop, tracker = Shop(given, {"a": 0.2, "b": 0.4, "c": 0.1}, seed), running(given)
    shop.save(tracker)
    for number, turn in enumerate(random.Random(seed).choices(["save", "kill", "decide", "go on"], k=200)):
        visit(tracker, shop, number)
        if turn != "go on":
            tracker.decide(T0 + number * MINUTE // 10)
        if turn == "save":
            shop.save(tracker)
        elif turn == "kill":
            tracker = shop.restored()
            for place in range(tracker.positions.get(("outcomes", 0), 0), len(shop.log)):
                take(tracker, shop, place)
    tracker.decide(T0 + 10_000 * MINUTE)
    shop.save(tracker)
    record = shop.records["test"]
    assert len(record.periods) > 2
    recount = Recount(record, 0)
    for place, each in enumerate(shop.log):
        recount.take(each, place, each.decided_at_ms)
    counted = counted_anew(record, [recount])
    assert counted.figures == record.figures
    assert counted.periods == record.periods
    assert period_differences(record) == []
    assert differences(record.decision, verdict(record, record.decision.at_ms)) == []
    shares = np.array([list(period.shares) for period in record.periods])
    assert shares.sum(axis=1) == pytest.approx(1)
    assert shares.min() >= 0.1
    assert [one.weight for one in record.figures] == list(record.periods[-1].shares)


def test_the_better_arm_gets_more_and_is_promoted_and_the_split_looks_right_all_the_time() -> None:
    given = thompson(minimum_users=200, expected_rate=0.2, expected_lift=0.5)
    shop, tracker = Shop(given, {"a": 0.2, "b": 0.4}), running(given)
    shop.save(tracker)
    for number in range(6_000):
        visit(tracker, shop, number, users=2_000)
        if number % 100 == 99:
            tracker.decide(T0 + number // 100 * MINUTE)
            shop.save(tracker)
            record = shop.records["test"]
            assert not mismatch(record.split_evidence)
            if record.stopped_at_ms:
                break
    assert (record.decision.kind, record.decision.arm) == (DecisionKind.DECISION_KIND_PROMOTE, "b")
    assert record.periods[-1].shares[1] == pytest.approx(0.9, abs=1e-6)
    # All users together would look as if the split were broken.
    together = Experiment()
    together.CopyFrom(record)
    del together.periods[:]
    assert mismatch(split_evidence(together))


def test_a_split_that_is_broken_blocks_decisions_and_shares_stay() -> None:
    given = thompson()
    shop, tracker = Shop(given, {"a": 0.3, "b": 0.3}), running(given)
    shop.save(tracker)
    for number in range(4_000):
        shown = shop.ask(f"u{number}", number)
        if shown.arm == "b" and number % 2:
            continue  # lost on its way
        tracker.outcome(outcome(shown, [NEGATIVE]), 0, T0 + number)
    for later in (1, 2):
        tracker.decide(T0 + later * MINUTE)
    record = tracker.experiments["test"]
    assert record.decision.kind == DecisionKind.DECISION_KIND_SAMPLE_RATIO_MISMATCH
    assert len(record.periods) == 1


def test_a_period_lasts_its_time_and_until_more_is_known() -> None:
    given = thompson()
    shop, tracker = Shop(given, {"a": 0.3, "b": 0.3}), running(given)
    shop.save(tracker)

    def periods(now_ms: int) -> int:
        tracker.decide(now_ms)
        shop.save(tracker)
        return len(shop.periods)

    assert periods(T0 + 5 * MINUTE) == 1, "nothing is known"
    visit(tracker, shop, 0)
    assert periods(T0 + MINUTE - 1) == 1
    # All that is known was written before its time was over.
    assert not tracker.is_due(T0 + MINUTE - 1)
    assert tracker.is_due(T0 + MINUTE)
    before = tracker.figures_only
    tracker.decide(T0 + MINUTE)
    assert before > tracker.figures_only, "the recommender waits for the shares"
    shop.save(tracker)
    assert [one.from_ms for one in shop.periods] == [T0, T0 + MINUTE]
    assert not tracker.is_due(T0 + 9 * MINUTE)
    full = tracker.experiments["test"].periods
    full.extend(full[-1] for _ in range(PERIODS_MAX - len(full)))
    visit(tracker, shop, 1)
    assert periods(T0 + 500 * MINUTE) == PERIODS_MAX


@pytest.mark.parametrize(
    ("field", "spoil"),
    [
        ("impression.period", lambda shown: setattr(shown, "period", 2)),
        ("impression.propensity", lambda shown: setattr(shown, "period", 0)),
        ("impression.arm", lambda shown: None),
    ],
)
def test_an_answer_that_the_shares_did_not_give_is_refused(field: str, spoil: Callable[[Impression], None]) -> None:
    given = thompson()
    shop, tracker = Shop(given, {"a": 0.0, "b": 1.0}), running(given)
    shop.save(tracker)
    for number in range(40):
        visit(tracker, shop, number)
    tracker.decide(T0 + MINUTE)
    shop.save(tracker)
    arms = {shop.ask(name, 50).arm: name for name in (f"new {n}" for n in range(99))}
    user, other = arms["b"], arms["a"]
    shown = shop.ask(user, 50)
    spoil(shown)
    bad = outcome(shown, [NEGATIVE])
    if field == "impression.arm":
        bad.user_id = other
    with pytest.raises(InvalidField) as error:
        tracker.outcome(bad, 0, T0 + 50)
    assert error.value.field == field
    assert tracker.outcome(outcome(shop.ask(user, 50), [NEGATIVE]), 0, T0 + 50) == "counted"


def test_a_period_means_nothing_where_shares_stay() -> None:
    given = definition()
    tracker, shown = running(given), answer(given, "anna", "r")
    shown.period = 1
    with pytest.raises(InvalidField, match=r"impression.period: 1; allowed: 0 to 0"):
        tracker.outcome(outcome(shown, [NEGATIVE]), 0, T0)


def test_purchases_count_for_the_arm_of_the_newest_answer_before() -> None:
    given = thompson(conversion_window_ms=1_000)
    shop, tracker = Shop(given, {"a": 0.5, "b": 0.5}), running(given)
    shop.save(tracker)
    shop.records["test"].periods.append(Period(from_ms=T0 + MINUTE, shares=[0.5, 0.5]))
    tracker = shop.restored()
    user = next(user for n in range(99) if moved(shop, user := f"u{n}"))
    first, second = (answer(given, user, f"r{n}", T0 + 600 * n, shop.periods[: n + 1]) for n in range(2))
    for shown in (first, second):
        tracker.outcome(outcome(shown, [NEGATIVE]), 0, T0 + 5_000)
    for after_ms in (300, 800, 1_500, 1_700):
        tracker.interaction(act(user, "i0", "purchase", T0 + after_ms, event_id=str(after_ms)), 0, T0 + 5_000)
    tracker.decide(T0)
    bought = {one.name: one.conversions for one in tracker.experiments["test"].figures}
    assert bought == {first.arm: 1, second.arm: 2}
    assert {one.name: one.users for one in tracker.experiments["test"].figures} == {"a": 1, "b": 1}
    assert [list(one.users) for one in tracker.experiments["test"].periods] == [
        [int(shown.arm == arm) for arm in "ab"] for shown in (first, second)
    ]


def moved(shop: Shop, user: str) -> bool:
    one, other = (answer(shop.given, user, "r", T0, shop.periods[: n + 1]).arm for n in range(2))
    return one != other


def test_shares_by_money_follow_what_answers_bring() -> None:
    """Of two arms, the closed form of normal means with the same variance; where nobody bought is no certainty."""
    given = thompson(reward=Reward.REWARD_VALUE)
    assert follow(given, Period(rewards=[0, 0], squares=[0, 0], trials=[50, 50])) == pytest.approx([0.5, 0.5])
    assert follow(given, Period(rewards=[0, 0], squares=[0, 0], trials=[0, 0])) == pytest.approx([0.5, 0.5])
    known = Period(rewards=[0, 30], squares=[0, 900], trials=[100, 100])
    share = follow(given, known)
    variance = 900 / 200 - 0.15**2
    from scipy.stats import norm

    assert share[1] == pytest.approx(0.1 + 0.8 * norm.cdf(0.3 / np.sqrt(2 * variance / 100)), abs=1e-5)
    never = follow(given, Period(rewards=[0, 30], squares=[0, 900], trials=[0, 100]))
    assert never[0] == pytest.approx(0.5, abs=0.01), "what was never shown is as good as all together"


def test_money_goes_through_the_tracker_and_back() -> None:
    given = thompson(reward=Reward.REWARD_VALUE)
    shop, tracker = Shop(given, {"a": 0.5, "b": 0.5}), running(given)
    shop.save(tracker)
    for number in range(300):
        shown = shop.ask(f"u{number}", number)
        tracker.outcome(outcome(shown, [NEGATIVE]), 0, T0 + number)
        if shown.arm == "b" and number % 4 == 0:
            tracker.interaction(act(shown.user_id, "i0", "purchase", T0 + number), 0, T0 + number)
        if number == 150:
            tracker.decide(T0 + number)
            shop.save(tracker)
            tracker = shop.restored()
    tracker.decide(T0 + MINUTE)
    record = tracker.experiments["test"]
    bought = record.figures[1].conversions
    assert list(record.periods[1].rewards) == [0, bought * 4.0]
    assert list(record.periods[1].squares) == [0, bought * 16.0]
    assert list(record.periods[1].trials) == [one.impressions for one in record.figures]
    assert record.periods[1].shares[1] > 0.85
    assert period_differences(record) == []
    record.periods[1].rewards[0] += 1
    assert [line.split(":")[0] for line in period_differences(record)] == ["period 1"]
