"""Arms and their figures: who meets what, and whether the intervals hold what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from millrace.errors import MillraceError
from millrace.simulation.arms import Arm, assign, parse_arms
from millrace.simulation.clicks import Looked
from millrace.simulation.figures import Count, Estimate, Figures, ratio
from millrace.simulation.world import make_world
from tests.simulation_support import play, random_pages


def test_arms_as_they_are_written() -> None:
    assert parse_arms([]) == [Arm("recommended", "recommended")]
    assert parse_arms(["recommended:0.8", "popular:0.1", "flat=random"]) == [
        Arm("recommended", "recommended", "", 0.8),
        Arm("popular", "popular", "", 0.1),
        Arm("flat", "random"),
    ]
    assert parse_arms(["a=recommended@localhost:50051", "b=recommended@[::1]:50052:0.5"]) == [
        Arm("a", "recommended", "localhost:50051"),
        Arm("b", "recommended", "[::1]:50052", 0.5),
    ]


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["best"], "POLICY is recommended, popular or random"),
        (["recommended@nowhere"], "expected"),
        (["popular@localhost:1"], "leave out @localhost:1"),
        (["random:0"], "above 0"),
        (["random:0.5.5"], "above 0"),
        (["recommended@a:1", "recommended@b:1"], "two arms are called recommended"),
    ],
)
def test_mistakes_are_named(texts: list[str], says: str) -> None:
    with pytest.raises(MillraceError, match=says):
        parse_arms(texts)


def test_shoppers_are_split_as_asked_and_stay_where_they_are() -> None:
    """10,000 shoppers: each share within five standard errors (0.02)."""
    arms = [Arm("a", "recommended", share=8), Arm("b", "popular", share=1), Arm("c", "random", share=1)]
    placed = assign(arms, 10_000, seed=1)
    assert np.bincount(placed) / 10_000 == pytest.approx([0.8, 0.1, 0.1], abs=0.02)
    assert np.array_equal(placed[:100], assign(arms, 100, seed=1))
    assert not np.array_equal(placed, assign(arms, 10_000, seed=2))


def test_the_ratio_estimator_by_hand() -> None:
    """r = 3/12; residuals 1-1, 2-1, 0-1; variance 3/2 * 2 / 144."""
    found = ratio(np.array([1.0, 2.0, 0.0, 0.0]), np.array([4.0, 4.0, 4.0, 0.0]))
    assert found.value == 0.25
    assert found.error == pytest.approx(math.sqrt(3 / 144))
    assert found.high - found.low == pytest.approx(2 * 1.96 * found.error, rel=1e-4)
    assert found.minus(Estimate(0.05, 0.0)).value == pytest.approx(0.2)
    assert math.isnan(ratio(np.zeros(3), np.zeros(3)).value)
    assert math.isnan(ratio(np.ones(1), np.ones(1)).error)


def test_counts_go_to_the_shoppers_arm() -> None:
    figures = Figures(np.array([0, 1, 0]), 2)
    for shopper in range(3):
        figures.add(shopper, Count.SESSIONS)
        figures.add(shopper, Count.SLOTS, 10)
    figures.add(2, Count.CLICKS)
    assert figures.sums(0)[Count.SLOTS] == 20
    assert figures.shoppers(0) == 2
    assert figures.estimate(0, "click_through").value == 0.05
    assert figures.estimate(1, "click_through").value == 0


def test_a_warm_up_is_left_out_of_figures_and_not_of_sums() -> None:
    figures = Figures(np.array([0, 0, 0]), 1)
    for shopper, clicks in ((0, 8), (1, 0)):
        figures.add(shopper, Count.SESSIONS)
        figures.add(shopper, Count.SLOTS, 10)
        figures.add(shopper, Count.CLICKS, clicks)
    figures.warmed_up()
    # One in the middle of a session, one new.
    figures.add(0, Count.PAGES)
    figures.add(0, Count.SLOTS, 10)
    figures.add(2, Count.SESSIONS)
    figures.add(2, Count.SLOTS, 10)
    figures.add(2, Count.CLICKS)
    assert figures.estimate(0, "click_through").value == 1 / 20
    assert figures.shoppers(0) == 2
    assert (figures.told(0)[Count.SLOTS], figures.sums(0)[Count.SLOTS]) == (20, 40)


def test_a_relative_difference_by_hand() -> None:
    """3 % +- 0.3 against 2 % +- 0.1: half more; the error is hypot(0.3, 1.5 x 0.1) / 2."""
    found = Estimate(0.03, 0.003).relative_to(Estimate(0.02, 0.001))
    assert found.value == pytest.approx(0.5)
    assert found.error == pytest.approx(math.hypot(0.3, 0.15) / 2)
    assert Estimate(0.0, 0.003).relative_to(Estimate(0.02, 0.001)).error == pytest.approx(0.15)
    assert math.isnan(Estimate(0.03, 0.003).relative_to(Estimate(0.0, 0.0)).value)


def test_the_interval_of_a_relative_difference_holds_the_truth() -> None:
    """Shoppers as below, of the same true ratio in both arms: 2,000 trials, 95 % within 2 points."""
    rng = np.random.default_rng(2)

    def arm() -> Estimate:
        slots = 10 * rng.geometric(0.1, 300).astype(np.float64)
        return ratio(rng.binomial(slots.astype(int), rng.beta(2, 38, 300)).astype(np.float64), slots)

    misses = 0
    for _ in range(2_000):
        found = arm().relative_to(arm())
        misses += not found.low <= 0 <= found.high
    assert coverage(misses, 2_000) == pytest.approx(0.95, abs=0.02)


def coverage(misses: int, trials: int) -> float:
    return 1 - misses / trials


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Shoppers with click-throughs of their own (beta) and activities of their own; the true ratio is 5 %.

    2,000 trials: 95 % within 2 points, four standard errors of the simulation. Without regard to shoppers the
    interval would be half as wide.
    """
    rng = np.random.default_rng(1)
    misses = naive = 0
    for _ in range(2_000):
        slots = 10 * rng.geometric(0.1, 300).astype(np.float64)
        clicks = rng.binomial(slots.astype(int), rng.beta(0.5, 9.5, 300)).astype(np.float64)
        found = ratio(clicks, slots)
        misses += not found.low <= 0.05 <= found.high
        binomial = 1.96 * math.sqrt(found.value * (1 - found.value) / slots.sum())
        naive += abs(found.value - 0.05) > binomial
    assert coverage(misses, 2_000) == pytest.approx(0.95, abs=0.02)
    assert coverage(naive, 2_000) < 0.7, "the check can fail"


def test_two_equal_policies_differ_as_rarely_as_promised() -> None:
    """A null simulation: 2,000 shoppers see random pages; 1,000 times 300 of them are split into two equal arms.

    (Two samples without replacement from one pool differ with exactly the variance of independent samples.)
    """
    world = make_world(3, 200, 2_000)
    figures = Figures(np.zeros(2_000, np.int64), 1)
    show = random_pages(world)
    for shopper in range(2_000):
        figures.add(shopper, Count.SESSIONS)
        for step in play(world, shopper, 0, show):
            if isinstance(step, Looked):
                figures.add(shopper, Count.SLOTS, step.shown)
                figures.add(shopper, Count.CLICKS, step.clicked is not None)
    clicks, slots = figures.totals[:, Count.CLICKS], figures.totals[:, Count.SLOTS]
    rng = np.random.default_rng(1)
    misses = 0
    for _ in range(1_000):
        chosen = rng.permutation(2_000)[:300]
        one, other = (ratio(clicks[half], slots[half]) for half in (chosen[:150], chosen[150:]))
        difference = other.minus(one)
        misses += not difference.low <= 0 <= difference.high
    assert coverage(misses, 1_000) == pytest.approx(0.95, abs=0.025)
