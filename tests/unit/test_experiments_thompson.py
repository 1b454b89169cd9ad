"""Thompson sampling's probabilities against closed forms and draws."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta, norm

from millrace.errors import InvalidField
from millrace.experiments.assignment import assign
from millrace.experiments.thompson import bernoulli_best, by_name, gaussian_best, shares

NARROW = [(50.0, 1_000.0), (4_000.0, 100_000.0), (700.0, 10_000.0)]


def test_two_gaussian_arms_are_the_closed_form() -> None:
    """P(B > A) is the normal distribution function of the difference over its error; widths differ tenfold."""
    means, errors = [[0.05, 0.06], [1.0, 1.0], [0.0, 0.3]], [[0.004, 0.003], [0.1, 1.0], [0.1, 0.1]]
    expected = [norm.cdf((m[1] - m[0]) / np.hypot(e[0], e[1])) for m, e in zip(means, errors, strict=True)]
    assert gaussian_best(means, errors)[:, 1] == pytest.approx(expected, abs=1e-5)


def test_two_bernoulli_arms_are_the_published_sum() -> None:
    """E. Miller, "Formulas for Bayesian A/B testing" (2015): P(B > A) as a finite sum of beta functions."""
    from scipy.special import betaln

    a, b, c, d = 21, 381, 31, 371
    ways = np.arange(c)
    terms = np.exp(betaln(a + ways, b + d) - np.log(d + ways) - betaln(1 + ways, d) - betaln(a, b))
    assert bernoulli_best([20, 30], [400, 400])[1] == pytest.approx(terms.sum(), abs=1e-5)


def test_several_bernoulli_arms_are_what_draws_say() -> None:
    """200,000 draws: four standard errors of a share of one half are 0.0045."""
    rng = np.random.default_rng(1)
    draws = np.array([beta.rvs(k + 1, n - k + 1, size=200_000, random_state=rng) for k, n in NARROW])
    drawn = np.bincount(draws.argmax(axis=0), minlength=3) / 200_000
    best = bernoulli_best([k for k, _ in NARROW], [n for _, n in NARROW])
    assert best == pytest.approx(drawn, abs=0.0045)
    assert best.sum() == pytest.approx(1.0)


def test_nothing_known_is_an_equal_split_and_the_floor_holds() -> None:
    assert bernoulli_best([0, 0, 0], [0, 0, 0]) == pytest.approx([1 / 3] * 3)
    sure = bernoulli_best([500, 900], [10_000, 10_000])
    given = shares(sure, 0.05)
    assert given == pytest.approx([0.05, 0.95], abs=1e-9)
    assert shares(sure, 0.5) == pytest.approx([0.5, 0.5])
    assert assign("salt", "anna", by_name(["a", "b"], given), 3).propensity in set(given)


def test_what_cannot_be_is_refused() -> None:
    for floor in (0.6, 0.0):
        with pytest.raises(InvalidField, match=rf"floor: {floor:g}; allowed: above 0, at most 0.5"):
            shares([0.5, 0.5], floor)
    with pytest.raises(InvalidField, match="clicks"):
        bernoulli_best([3, 1], [2, 2])
    with pytest.raises(InvalidField, match="errors"):
        gaussian_best([0.0, 1.0], [0.0, 1.0])
