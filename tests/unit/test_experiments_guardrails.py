"""Coverage and the click-through's lower bound: what they measure, and how often they alarm where nothing is wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from millrace.errors import InvalidField
from millrace.experiments.comparison import Comparison, Sums
from millrace.experiments.coverage import Shown, margin, outcome
from millrace.experiments.decide import Arm, Guardrail, Rule, decide
from millrace.experiments.floor import Floor
from millrace.experiments.sequence import Floats
from millrace.v1 import experiment_pb2 as pb

SHARES = (0.3, 0.7)
RUNS = 100
AT_MOST = int(binom.ppf(0.999, RUNS, 0.05))
ITEMS = [f"i{place}" for place in range(50)]


def zipf(exponent: float) -> Floats:
    weights = np.arange(1, len(ITEMS) + 1) ** -exponent
    return np.asarray(weights / weights.sum())


def breached(guardrail: Guardrail) -> bool:
    """As ``decide`` has it, of one guardrail at .05."""
    return guardrail.surely(0.05) > guardrail.margin


class Shop:
    """Users who come back, each with tastes of their own, and an arm each."""

    def __init__(self, seed: int, arm: Floats, control: Floats, users: int = 200) -> None:
        self.random = np.random.default_rng(seed)
        self.controls = self.random.random(users) >= SHARES[0]
        own = self.random.gamma(2.0, 0.5, (users, len(ITEMS)))
        shown = own * np.where(self.controls[:, None], control, arm)
        self.chances = (shown / shown.sum(axis=1, keepdims=True)).cumsum(axis=1)
        self.shown, self.comparison = {True: Shown(), False: Shown()}, Comparison()

    def answer(self, slots: int = 3) -> None:
        user = int(self.random.integers(len(self.controls)))
        places = np.searchsorted(self.chances[user], self.random.random(slots)).clip(max=len(ITEMS) - 1)
        control = bool(self.controls[user])
        items = [ITEMS[place] for place in places]
        self.comparison.add(
            str(user), control, SHARES, outcome(self.shown[False], self.shown[True], items), slots=slots
        )
        self.shown[control].take(items)

    def rail(self, borne: float = 0.0) -> Guardrail:
        best_at = 3_000 * 0.005
        allowed = margin(self.shown[True].index, borne)
        return Guardrail("coverage", self.comparison.sums, 1, allowed, best_at)


def test_the_index_is_simpsons() -> None:
    """His estimate of lambda: sum of n (n - 1) over N (N - 1)."""
    shown = [ITEMS[place] for place in np.random.default_rng(1).integers(0, 7, 200)]
    counted = Shown()
    for start in range(0, 200, 5):
        counted.take(shown[start : start + 5])
    counts = np.unique(shown, return_counts=True)[1]
    assert counted.index == pytest.approx((counts * (counts - 1)).sum() / (200 * 199))
    assert Shown().index == 0


def test_the_effect_is_half_the_difference_of_the_indices_at_any_split() -> None:
    """Of items drawn independently the indices are known; 30,000 slots tell the effect to five standard errors."""
    narrow, wide = zipf(1.2), zipf(0.6)
    for arm, control in ((narrow, wide), (wide, narrow)):
        random, shown, comparison = np.random.default_rng(2), {True: Shown(), False: Shown()}, Comparison()
        for number in range(30_000):
            is_control = random.random() >= SHARES[0]
            item = ITEMS[random.choice(len(ITEMS), p=control if is_control else arm)]
            comparison.add(str(number), is_control, SHARES, outcome(shown[False], shown[True], [item]))
            shown[is_control].take([item])
        expected = ((arm**2).sum() - (control**2).sum()) / 2
        error = comparison.sums.variance**0.5 / comparison.sums.slots
        assert comparison.sums.effect == pytest.approx(expected, abs=5 * error)
        assert error < abs(expected) / 10
        assert shown[True].index == pytest.approx((control**2).sum(), rel=0.05)


def test_arms_that_show_alike_are_stopped_no_more_often_than_promised_and_a_narrow_one_is() -> None:
    alarms = 0
    for seed in range(RUNS):
        shop = Shop(seed, zipf(0.8), zipf(0.8))
        for number in range(1_000):
            shop.answer()
            if number > 300 and breached(shop.rail()):
                alarms += 1
                break
    assert alarms <= AT_MOST
    found = 0
    for seed in range(10):
        shop = Shop(seed, zipf(1.6), zipf(0.8))
        for _ in range(1_000):
            shop.answer()
        found += breached(shop.rail(borne=0.1))
        assert not breached(shop.rail(borne=0.9))
    assert found >= 9


def test_items_that_are_not_counted_are_new_ones() -> None:
    control = Shown()
    control.take(["a", "b", "b"], items_max=1)
    assert control == Shown(slots=3, items={"a": 1}, pairs=0)
    assert outcome(Shown(), control, ["b"]) == 0
    assert outcome(Shown(), control, ["a"]) == pytest.approx((0 + 1 / 3) / 2)


def test_margins_are_of_the_number_of_items() -> None:
    """A tenth fewer of 20 items: the index goes from .05 to .05556."""
    assert margin(0.05, 0.1) == pytest.approx((1 / 18 - 1 / 20) / 2)
    assert margin(0.05, 0.0) == 0
    with pytest.raises(InvalidField, match="coverage"):
        margin(0.05, 1.0)


def test_the_sums_of_a_floor_are_those_of_its_users() -> None:
    random, floor = np.random.default_rng(3), Floor(0.1)
    users = random.integers(0, 40, 500)
    clicks, slots = random.binomial(4, 0.15, 500), np.full(500, 4)
    for user, clicked in zip(users, clicks, strict=True):
        floor.add(str(user), float(clicked), slots=4)
    differences = np.bincount(users, clicks - 0.1 * slots)
    sizes = np.bincount(users, slots)
    effect = clicks.sum() / slots.sum() - 0.1
    assert floor.sums.effect == pytest.approx(effect)
    assert floor.sums.variance == pytest.approx(((differences - effect * sizes) ** 2).sum())
    silent = Floor(0.1)
    silent.add("u", 0.0, slots=50)
    assert silent.sums.variance == pytest.approx(50 * 0.1 * 0.9), "no clicks are no certainty"
    with pytest.raises(InvalidField, match="click_floor"):
        Floor(0.0)


@pytest.mark.parametrize(("rate", "least", "most"), [(0.1, 0, AT_MOST), (0.07, 90, RUNS)])
def test_a_rate_at_the_floor_is_left_alone_and_one_below_is_found(rate: float, least: int, most: int) -> None:
    """Users of 5 slots at a time who come back, their own rates Beta with a correlation of .05; looked at each time."""
    alarms = 0
    for seed in range(RUNS):
        random, floor = np.random.default_rng(seed), Floor(0.1)
        rates = random.beta(rate * 19, (1 - rate) * 19, 600)
        for number, user in enumerate(random.integers(0, 600, 2_000).tolist()):
            floor.add(str(user), float(random.binomial(5, rates[user])), slots=5)
            if number > 200 and breached(Guardrail("click-through", floor.sums, -1, 0.0, 5_000 * 0.09)):
                alarms += 1
                break
    assert least <= alarms <= most


def test_a_floor_stops_an_arm_whose_control_is_as_bad() -> None:
    random, floor, comparison = np.random.default_rng(1), Floor(0.1), Comparison()
    for number in range(4_000):
        control, clicked = number % 2 == 0, float(random.random() < 0.05)
        comparison.add(str(number), control, (0.5, 0.5), clicked)
        if not control:
            floor.add(str(number), clicked)
    rail = Guardrail("click-through", floor.sums, -1, 0.0, 450.0)
    rule = Rule(alpha=0.05, best_at=2_000.0)
    alone = decide(rule, 2_000, [Arm("b", 2_000, comparison.sums)], 0.0, 0)
    assert alone.kind == pb.DECISION_KIND_CONTINUE
    stopped = decide(rule, 2_000, [Arm("b", 2_000, comparison.sums, [rail])], 0.0, 0)
    assert stopped.kind == pb.DECISION_KIND_STOP_FOR_HARM
    assert "click-through is worse by at least" in stopped.reason


def test_arms_without_any_click_are_stopped_by_a_floor() -> None:
    """Nothing is to be said of the difference, and nobody waits for it."""
    floor = Floor(0.1)
    for number in range(400):
        floor.add(str(number), 0.0, slots=5)
    rail = Guardrail("click-through", floor.sums, -1, 0.0, 450.0)
    stopped = decide(Rule(0.05, 2_000.0), 400, [Arm("b", 400, Sums(slots=4_000.0), [rail])], 0.0, 0)
    assert (stopped.kind, stopped.arm) == (pb.DECISION_KIND_STOP_FOR_HARM, "b")
    assert math.isnan(stopped.effect)
    assert stopped.reason.startswith("b: click-through is worse by at least 0.08")
