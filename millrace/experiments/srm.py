"""Sequential test for a sample-ratio mismatch: whether the arms have the users that they should have.

M. Lindon and A. Malek, "Anytime-valid inference for multinomial count data" (NeurIPS 2022): the Bayes factor of a
Dirichlet-multinomial against the intended shares is a martingale with mean 1 while the shares are right, so that it
exceeds ``1 / alpha`` at any time with probability at most alpha (Ville). The chi-square test, looked at repeatedly,
has no such bound.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from millrace.errors import InvalidField

ALPHA = 0.01
"""A mismatch blocks every decision, so a false alarm is dear; a real one is found soon enough."""
CONCENTRATION = 1_000.0
"""Weight of the intended shares in the prior, in users: splits that are off by one or two points (the standard
deviation at 50/50 is 1.6) are what bugs make, and are found soonest with it."""


def log_evidence(counts: npt.ArrayLike, shares: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Logarithm of the e-value against ``shares``.

    Parameters
    ----------
    counts
        Users by arm, along the last axis; earlier axes are independent tests.
    shares
        Intended, each above 0, adding up to 1, by arm along the last axis; the same for all tests, or for each its own.

    Notes
    -----
    Where shares change between periods, each period has counts of its own and the logarithms add up: the product of
    such e-values is one.
    """
    # Here, because commands that only read experiments would wait half a second for it.
    from scipy.special import gammaln

    users, intended = np.asarray(counts, dtype=float), np.asarray(shares, dtype=float)
    if users.shape[-1] != intended.shape[-1]:
        raise InvalidField("shares", f"{intended.shape[-1]} of them", f"{users.shape[-1]}, one for each count")
    if not (intended > 0).all() or (np.abs(intended.sum(axis=-1) - 1) > 1e-9).any():
        raise InvalidField("shares", str(intended.tolist()), "above 0, adding up to 1")
    prior = CONCENTRATION * intended
    total = users.sum(axis=-1)
    evidence = (
        gammaln(CONCENTRATION)
        - gammaln(CONCENTRATION + total)
        + (gammaln(prior + users) - gammaln(prior) - users * np.log(intended)).sum(axis=-1)
    )
    return np.asarray(evidence, dtype=float)


def mismatch(evidence: float, alpha: float = ALPHA) -> bool:
    """Whether the evidence is enough, for good: an e-value that was high once has said it."""
    return evidence >= -math.log(alpha)
