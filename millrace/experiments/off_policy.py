"""What a new policy would earn, from what another one has logged: before it gets any traffic.

Inverse-propensity weighting (D. G. Horvitz and D. J. Thompson, 1952), self-normalised (A. Swaminathan and T. Joachims,
"The self-normalized estimator for counterfactual learning", NeurIPS 2015) and doubly robust (M. Dudík, J. Langford and
L. Li, "Doubly robust policy evaluation and learning", ICML 2011).

All of them know only what was shown. Where the new policy would do what the old one hardly ever did, no estimate is
better than its weights, and there is none here: it is refused, with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from millrace.errors import InvalidField

Floats = npt.NDArray[np.float64]

EFFECTIVE_MIN = 200.0
"""Least effective sample size: that of the weights (L. Kish, 1965). Below it the normal interval is not to be trusted
where a few per cent of the answers are clicked, and a few of them decide."""
ERRORS_OF_WEIGHTS = 4.0
"""Weights have the mean 1 where propensities are right and the old policy did whatever the new one does. A mean that
is further away than so many standard errors says that one of the two is not so (1 in 16,000 by chance)."""
# Two-sided 95 %.
_DEVIATIONS = 1.959964


@dataclass(frozen=True)
class Logged:
    """What one policy showed and what came of it, one entry for each decision.

    Attributes
    ----------
    rewards
        float64[n], what came: 1 for a click, or money.
    propensities
        float64[n], probability with which the old policy showed what it showed, in (0, 1].
    wanted
        float64[n], probability with which the new policy shows the same, in [0, 1].
    units
        Who the decisions were made for, n ids or numbers: decisions for one user are alike. None: all are independent.
    """

    rewards: Floats
    propensities: Floats
    wanted: Floats
    units: Sequence[str] | npt.NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        n = len(self.rewards)
        for name in ("propensities", "wanted", "units"):
            values = getattr(self, name)
            if values is not None and len(values) != n:
                raise InvalidField(name, f"{len(values)} entries", f"{n}, one for each reward")
        if not n:
            raise InvalidField("rewards", "none", "one or more")
        if not np.isfinite(self.rewards).all():
            raise InvalidField("rewards", "not finite", "finite numbers")
        # NaN fails every comparison.
        if not ((self.propensities > 0) & (self.propensities <= 1)).all():
            raise InvalidField("propensities", "out of range", "above 0, at most 1")
        if not ((self.wanted >= 0) & (self.wanted <= 1)).all():
            raise InvalidField("wanted", "out of range", "0 to 1")

    @property
    def weights(self) -> Floats:
        """float64[n], how much more often the new policy would have shown it."""
        return self.wanted / self.propensities

    @property
    def effective(self) -> float:
        """Effective sample size: as many decisions of the new policy would tell as much (by the weights alone)."""
        weights = self.weights
        squares = float((weights**2).sum())
        return float(weights.sum()) ** 2 / squares if squares else 0.0

    def refusal(self) -> str:
        """Why nothing can be said; empty if something can."""
        weights = self.weights
        if self.effective < EFFECTIVE_MIN:
            return (
                f"the logged decisions are worth {self.effective:,.0f} of the new policy, of {EFFECTIVE_MIN:g} at "
                "least: it does what was hardly ever logged"
            )
        mean, error = float(weights.mean()), self._error(weights)
        if abs(mean - 1) > ERRORS_OF_WEIGHTS * error and abs(mean - 1) > 1e-9:
            why = "it does what was never logged, or propensities are wrong" if mean < 1 else "propensities are wrong"
            return f"the mean weight is {mean:.3f} ± {error:.3f} and should be 1: {why}"
        return ""

    def _error(self, values: Floats) -> float:
        """Standard error of the mean of ``values``, by unit."""
        return math.sqrt(self.covariance(values, values))

    def covariance(self, one: Floats, other: Floats) -> float:
        """Covariance of the means of two values of each decision, float64[n], by unit."""
        return float(self._by_unit(one) @ self._by_unit(other)) / len(one) ** 2

    def _by_unit(self, values: Floats) -> Floats:
        centred: Floats = values - values.mean()
        if self._numbers is None:
            return centred
        return np.asarray(np.bincount(self._numbers, weights=centred), dtype=np.float64)

    @cached_property
    def _numbers(self) -> npt.NDArray[np.intp] | None:
        """The unit of each decision, numbered from 0."""
        return None if self.units is None else np.unique(np.asarray(self.units), return_inverse=True)[1]


@dataclass(frozen=True, slots=True)
class Estimate:
    """Mean reward of the new policy.

    Attributes
    ----------
    value, low, high
        With the ends of its 95 % interval; NaN where it is refused.
    effective
        See ``Logged.effective``.
    refusal
        Why there is none; empty if there is one.
    """

    value: float
    low: float
    high: float
    effective: float
    refusal: str = ""


def ipw(logged: Logged) -> Estimate:
    """Inverse-propensity weighted: without bias, and wide."""
    return _estimate(logged, logged.weights * logged.rewards)


def snips(logged: Logged) -> Estimate:
    """Self-normalised: inside the range of the rewards, nearly without bias, and narrower where weights vary."""
    weights = logged.weights
    mean = float(weights.mean())
    if not mean:
        return _estimate(logged, weights)
    value = float((weights * logged.rewards).mean()) / mean
    # By the delta method.
    return _estimate(logged, value + weights * (logged.rewards - value) / mean)


def doubly_robust(logged: Logged, expected: Floats, expected_wanted: Floats) -> Estimate:
    """Doubly robust: without bias if the propensities are right or the expectations are; narrow if both are.

    Parameters
    ----------
    expected
        float64[n], reward that a model expects of what was shown. It must not have seen these decisions.
    expected_wanted
        float64[n], what it expects of the new policy in the same place.
    """
    return _estimate(logged, doubly_robust_terms(logged, expected, expected_wanted))


def doubly_robust_terms(logged: Logged, expected: Floats, expected_wanted: Floats) -> Floats:
    """float64[n], of which :func:`doubly_robust` is the mean."""
    for name, values in (("expected", expected), ("expected_wanted", expected_wanted)):
        if len(values) != len(logged.rewards) or not np.isfinite(values).all():
            raise InvalidField(name, f"{len(values)} entries", f"{len(logged.rewards)} finite numbers")
    return expected_wanted + logged.weights * (logged.rewards - expected)


def relative(logged: Logged, terms: Floats, base: Logged, base_terms: Floats) -> Estimate:
    """How much more one policy earns than another, as a fraction of what the other earns, from one log of clicks.

    The interval is that of a ratio (E. C. Fieller, 1954): it leaves out 0 exactly where that of the difference does.
    Where few clicks make the difference a normal interval is too short; each of the two variances is that of one more
    click (as two successes and failures are added to a share: A. Agresti and B. A. Coull, 1998).

    Parameters
    ----------
    terms, base_terms
        float64[n], of which the values of the two policies are the means.
    """
    refusal = logged.refusal() or base.refusal()
    n = len(terms)
    click = float(max(logged.weights.max(), base.weights.max())) / n
    value, against = float(terms.mean()), float(base_terms.mean())
    squared = _DEVIATIONS**2
    of_value = squared * (logged.covariance(terms, terms) + click**2)
    of_against = squared * (logged.covariance(base_terms, base_terms) + click**2)
    of_both = squared * logged.covariance(terms, base_terms)
    known = against**2 - of_against
    if not refusal and (against <= 0 or known <= 0):
        refusal = "there are too few clicks to say what anything is worth"
    if refusal:
        return Estimate(math.nan, math.nan, math.nan, logged.effective, refusal)
    middle = (value * against - of_both) / known
    half = math.sqrt(max(0.0, middle**2 - (value**2 - of_value) / known))
    return Estimate(value / against - 1, middle - half - 1, middle + half - 1, logged.effective)


def _estimate(logged: Logged, values: Floats) -> Estimate:
    refusal = logged.refusal()
    if refusal:
        return Estimate(math.nan, math.nan, math.nan, logged.effective, refusal)
    value, half = float(values.mean()), _DEVIATIONS * logged._error(values)
    return Estimate(value, value - half, value + half, logged.effective)
