"""Assignment: uniform, independent across salts, sticky, and with the propensity that it says."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare

from millrace.errors import InvalidField
from millrace.experiments.assignment import Span, assign, check_shares, find_span, held_out, point, takes_part

USERS = [f"user-{number}" for number in range(20_000)]
HALVES = {"a": 0.5, "b": 0.5}


def test_points_are_uniform() -> None:
    """Chi-square over 100 cells; the hash is fixed, so that the test is."""
    cells = np.histogram([point("salt", user) for user in USERS], bins=100, range=(0, 1))[0]
    assert chisquare(cells).pvalue > 0.001


@pytest.mark.parametrize("other", [("salt-2", None), ("salt-1", 1), ("salt-1", 2)])
def test_salts_and_periods_are_independent(other: tuple[str, int | None]) -> None:
    pairs = Counter(
        (assign("salt-1", user, HALVES, 0).arm, assign(other[0], user, HALVES, other[1]).arm) for user in USERS
    )
    table = [[pairs[one, two] for two in "ab"] for one in "ab"]
    assert chi2_contingency(table).pvalue > 0.001


@given(st.text(), st.text(), st.integers(0, 10**6))
def test_an_assignment_is_sticky(salt: str, unit: str, period: int) -> None:
    assert assign(salt, unit, HALVES, period) == assign(salt, unit, HALVES, period)
    assert 0 <= point(salt, unit) < 1


def test_the_propensity_is_the_realised_share() -> None:
    shares = {"control": 0.9, "b": 0.07, "c": 0.03}
    given = [assign("salt", user, shares) for user in USERS]
    counts = Counter(each.arm for each in given)
    assert chisquare([counts[arm] for arm in shares], [share * len(USERS) for share in shares.values()]).pvalue > 0.001
    assert {(each.arm, each.propensity) for each in given} == set(shares.items())


def test_with_moving_shares_each_period_has_its_own_propensity() -> None:
    """Users who had ``a`` at .9 get it at .2 with probability .2: nobody's history moves the chance."""
    first = [user for user in USERS if assign("salt", user, {"a": 0.9, "b": 0.1}, 0).arm == "a"]
    again = sum(assign("salt", user, {"a": 0.2, "b": 0.8}, 1).arm == "a" for user in first)
    assert chisquare([again, len(first) - again], [0.2 * len(first), 0.8 * len(first)]).pvalue > 0.001


def test_experiments_of_a_layer_share_nobody_and_leave_the_holdout_alone() -> None:
    one = find_span([], 0.1)
    two = find_span([one], 0.3)
    assert (one, two) == (Span(0.0, 0.1), Span(0.1, 0.3))
    inside = {span: {user for user in USERS if takes_part(user, "ranking", span, 0.05)} for span in (one, two)}
    held = {user for user in USERS if held_out(user, 0.05)}
    assert not inside[one] & inside[two]
    assert not held & (inside[one] | inside[two])
    for span, users in inside.items():
        assert chisquare([len(users), len(USERS) - len(users)], _split(0.95 * span.traffic)).pvalue > 0.001
    other = {user for user in USERS if takes_part(user, "candidates", one, 0.05)}
    assert len(other & inside[two]) == pytest.approx(0.95 * 0.1 * 0.3 * len(USERS), rel=0.15), "layers are independent"


def _split(share: float) -> list[float]:
    return [share * len(USERS), (1 - share) * len(USERS)]


def test_a_gap_of_a_layer_is_used_again_and_a_full_one_says_so() -> None:
    assert find_span([Span(0.0, 0.2), Span(0.5, 0.5)], 0.3) == Span(0.2, 0.3)
    with pytest.raises(InvalidField, match=r"traffic: 0.4 has no room in the layer; allowed: at most 0.3"):
        find_span([Span(0.0, 0.2), Span(0.5, 0.5)], 0.4)
    with pytest.raises(InvalidField, match="above 0, at most 1"):
        find_span([], 1.2)


@pytest.mark.parametrize(
    ("shares", "problem"),
    [
        ({"a": 1.0}, "arms: 1; allowed: two or more"),
        ({"a": 0.7, "b": 0.7}, "shares that add up to 1.4"),
        ({"a": 0.0, "b": 1.0}, r"arms\[a\].share: 0"),
        ({"a": float("nan"), "b": 1.0}, r"arms\[a\].share: nan"),
    ],
)
def test_shares_that_cannot_be_are_refused(shares: dict[str, float], problem: str) -> None:
    with pytest.raises(InvalidField, match=problem):
        check_shares(shares)
