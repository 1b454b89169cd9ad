"""The search for the highest rate that a service holds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.search import STRIDE, highest_held


@given(count=st.integers(1, 40), limit=st.integers(0, 41), known=st.integers(0, 41))
def test_it_finds_the_last_rate_that_holds_and_tries_none_twice(count: int, limit: int, known: int) -> None:
    rates = list(range(1, count + 1))
    known = min(known, limit, count)
    tried = []

    def attempt(rate: float) -> float | None:
        tried.append(rate)
        return rate if rate <= limit else None

    found = highest_held(rates, attempt, known)
    reachable = min(limit, count)
    assert (found or known) == reachable
    assert len(set(tried)) == len(tried)
    assert all(rate > known for rate in tried)
    assert len(tried) <= (reachable - known) / STRIDE + 3


def test_nothing_holds() -> None:
    assert highest_held([1.0, 2.0], lambda rate: None) is None
