"""The sequential sample-ratio test against scipy's Dirichlet-multinomial."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import dirichlet_multinomial, multinomial

from millrace.errors import InvalidField
from millrace.experiments.srm import CONCENTRATION, log_evidence, mismatch


@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.1, 0.9], [0.2, 0.3, 0.5]])
def test_the_evidence_is_the_bayes_factor(shares: list[float]) -> None:
    """The coefficients of the two probabilities of the same counts cancel: what is left is that of their order."""
    counts = np.random.default_rng(1).multinomial(500, shares)
    mixed = dirichlet_multinomial(CONCENTRATION * np.array(shares), 500).logpmf(counts)
    assert float(log_evidence(counts, shares)) == pytest.approx(
        mixed - multinomial(500, shares).logpmf(counts), abs=1e-8
    )


def test_the_evidence_is_a_martingale_with_mean_one() -> None:
    """Its mean after the next user is what it was: exactly, by enumeration."""
    shares = [0.3, 0.7]
    now = math.exp(log_evidence([40, 60], shares))
    following = 0.3 * math.exp(log_evidence([41, 60], shares)) + 0.7 * math.exp(log_evidence([40, 61], shares))
    assert following == pytest.approx(now, rel=1e-9)
    assert float(log_evidence([0, 0], shares)) == 0.0


def test_a_split_that_is_off_is_found_and_a_right_one_is_not() -> None:
    tests = log_evidence([[10_000, 10_000], [10_400, 9_600], [10_500, 9_500]], [0.5, 0.5])
    assert [mismatch(float(evidence)) for evidence in tests] == [False, True, True]
    assert not mismatch(math.log(99.0))
    assert mismatch(math.log(101.0))


def test_shares_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InvalidField, match="one for each count"):
        log_evidence([1, 2, 3], [0.5, 0.5])
    with pytest.raises(InvalidField, match="adding up to 1"):
        log_evidence([1, 2], [0.5, 0.6])
