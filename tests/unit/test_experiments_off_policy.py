"""Off-policy estimates against policies whose worth is known, and refusals where nothing can be known."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as some

from millrace.errors import InvalidField
from millrace.experiments.off_policy import Floats, Logged, doubly_robust, ipw, relative, snips

Places = npt.NDArray[np.int64]

ARMS = 5
RATES = np.array([0.02, 0.05, 0.08, 0.11, 0.3])
OLD = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
NEW = np.array([0.05, 0.1, 0.15, 0.4, 0.3])
TRUTH = float(RATES @ NEW)


def logged(n: int, seed: int, new: Floats = NEW, users: int = 0) -> tuple[Logged, Places]:
    """Decisions of the old policy, and which arm each showed."""
    random = np.random.default_rng(seed)
    shown = random.choice(ARMS, n, p=OLD)
    rewards = (random.random(n) < RATES[shown]).astype(float)
    units = [f"u{number}" for number in random.integers(0, users, n)] if users else None
    return Logged(rewards, OLD[shown], new[shown], units), shown


def test_estimates_are_right_and_their_intervals_hold() -> None:
    runs, held, values = 400, np.zeros(3), []
    for seed in range(runs):
        data, shown = logged(3_000, seed)
        model = RATES * 0.8  # too low, which the propensities mend
        found = ipw(data), snips(data), doubly_robust(data, model[shown], np.full(3_000, float(model @ NEW)))
        held += [one.low <= TRUTH <= one.high for one in found]
        values.append([one.value for one in found])
    spread = np.std(values, axis=0)
    assert np.abs(np.mean(values, axis=0) - TRUTH) == pytest.approx(np.zeros(3), abs=4 * spread.max() / math.sqrt(runs))
    # 95 %; with 400 runs the share is within .03 of it nearly always.
    assert (held / runs > 0.92).all()
    # A model of the rewards narrows what it explains.
    assert spread[2] < spread[0]


def test_right_expectations_mend_wrong_propensities() -> None:
    data, shown = logged(50_000, 1)
    wrong = Logged(data.rewards, np.full(50_000, 1 / ARMS), np.full(50_000, 1 / ARMS))
    right = doubly_robust(wrong, RATES[shown], np.full(50_000, TRUTH))
    assert right.low <= TRUTH <= right.high
    assert abs(ipw(wrong).value - TRUTH) > 0.05


def test_the_same_policy_is_worth_what_was_earned() -> None:
    data, _ = logged(1_000, 2, OLD)
    assert data.effective == pytest.approx(1_000)
    for found in (ipw(data), snips(data)):
        assert found.value == pytest.approx(data.rewards.mean())
        assert found.refusal == ""


@given(some.integers(0, 10_000), some.lists(some.floats(0.01, 1), min_size=ARMS, max_size=ARMS))
def test_self_normalised_stays_inside_the_rewards(seed: int, new: list[float]) -> None:
    data, _ = logged(2_000, seed, np.array(new) / sum(new))
    found = snips(data)
    assert found.refusal or data.rewards.min() <= found.value <= data.rewards.max()


def test_decisions_of_one_user_are_not_independent() -> None:
    random = np.random.default_rng(3)
    rates = np.repeat(random.choice([0.0, 0.4], 100), 50)
    rewards = (random.random(5_000) < rates).astype(float)
    half = np.full(5_000, 0.5)
    by_user = ipw(Logged(rewards, half, half, [f"u{number // 50}" for number in range(5_000)]))
    by_decision = ipw(Logged(rewards, half, half))
    assert by_user.high - by_user.low > 3 * (by_decision.high - by_decision.low)


def test_how_much_more_one_policy_earns_than_another() -> None:
    runs, held, true, halves, values = 300, 0, TRUTH / float(RATES @ OLD) - 1, [], []
    for seed in range(runs):
        data, shown = logged(5_000, seed)
        old = Logged(data.rewards, data.propensities, OLD[shown])
        found = relative(data, data.weights * data.rewards, old, data.rewards)
        held += found.low <= true <= found.high
        values.append(found.value)
        halves.append((found.high - found.low) / 2)
    # 95 %; with 300 runs the share is within .035 of it nearly always, and a click more of each is on the safe side.
    assert held / runs > 0.915
    assert np.mean(values) == pytest.approx(true, abs=float(4 * np.std(values) / math.sqrt(runs)))
    assert 1.8 * np.std(values) < np.mean(halves) < 2.6 * np.std(values)


@pytest.mark.parametrize(("more", "known"), [(5, False), (9, True)])
def test_a_few_clicks_make_no_difference(more: int, known: bool) -> None:
    """Five clicks of one policy against none of the other come by chance once in 16 times, nine once in 256."""
    shown = np.repeat([0, 1, 2], [500, 500, 1_000])
    clicked = np.zeros(2_000)
    clicked[:more] = clicked[1_000:1_100] = 1
    propensities = np.array([0.25, 0.25, 0.5])[shown]
    ours = Logged(clicked, propensities, np.array([0.5, 0.0, 0.5])[shown])
    theirs = Logged(clicked, propensities, np.array([0.0, 0.5, 0.5])[shown])
    found = relative(ours, ours.weights * clicked, theirs, theirs.weights * clicked)
    assert found.value == pytest.approx(2 * more / 100)
    assert (found.low > 0) == known


def test_of_nothing_no_difference_is_known() -> None:
    half = np.full(500, 0.5)
    nothing = Logged(np.zeros(500), half, half)
    assert "too few clicks" in relative(nothing, np.zeros(500), nothing, np.zeros(500)).refusal


def test_what_was_never_logged_is_refused() -> None:
    never = np.array([0.5, 0.0, 0.0, 0.0, 0.0])  # the rest of it is an arm that the old policy does not have
    found = ipw(logged(3_000, 4, never)[0])
    assert "should be 1: it does what was never logged" in found.refusal
    assert math.isnan(found.value)
    rare = snips(logged(300, 5, np.eye(ARMS)[4])[0])
    assert "it does what was hardly ever logged" in rare.refusal
    assert rare.effective < 30
    nothing = snips(Logged(np.ones(500), np.full(500, 0.5), np.zeros(500)))
    assert nothing.effective == 0
    assert nothing.refusal


@pytest.mark.parametrize(
    ("field", "rewards", "propensities", "wanted"),
    [
        ("rewards", [], [], []),
        ("rewards", [math.nan], [0.5], [0.5]),
        ("propensities", [1.0], [0.0], [0.5]),
        ("propensities", [1.0], [math.nan], [0.5]),
        ("propensities", [1.0], [0.5, 0.5], [0.5]),
        ("wanted", [1.0], [0.5], [1.5]),
    ],
)
def test_what_cannot_be_logged(
    field: str, rewards: list[float], propensities: list[float], wanted: list[float]
) -> None:
    with pytest.raises(InvalidField) as error:
        Logged(np.array(rewards), np.array(propensities), np.array(wanted))
    assert error.value.field == field
    with pytest.raises(InvalidField, match="expected"):
        doubly_robust(Logged(np.ones(1), np.ones(1), np.ones(1)), np.ones(2), np.ones(1))
