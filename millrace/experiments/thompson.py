"""Thompson sampling: an arm's share is the probability that it is the best one.

W. R. Thompson (1933); O. Chapelle and L. Li, "An empirical evaluation of Thompson sampling" (NeurIPS 2011). Shares
move at period borders only and are the exact propensities of the period (``millrace.experiments.assignment``); the
floor keeps every arm's weight ``1 / share`` bounded. The posteriors decide who sees what and nothing else: promotion
needs the confidence sequence, for pooled posteriors promote winners that do not exist where rates move in time.

The probabilities are integrals over one dimension, done by the Gauss-Legendre rule, and not drawn: the same figures
give the same shares. Whatever error is in them moves who sees what, and never the propensities, which are the shares.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from millrace.errors import InvalidField

Floats = npt.NDArray[np.float64]

NODES = 64
"""Enough for an error below 1e-5 between posteriors whose widths differ tenfold (held by the tests); at a hundredfold,
against an arm that nearly always had the floor, it is .01."""
TAIL = 1e-9
"""What of a posterior is left out at each end."""
DEVIATIONS = 6.0
"""The same for the normal distribution."""
_AT, _WEIGHT = np.polynomial.legendre.leggauss(NODES)


def bernoulli_best(clicks: npt.ArrayLike, slots: npt.ArrayLike) -> Floats:
    """Probability that each arm has the highest rate, under uniform priors: float64[..., arms].

    Parameters
    ----------
    clicks, slots
        By arm along the last axis; earlier axes are independent experiments.
    """
    # Here, because commands that only read experiments would wait half a second for it.
    from scipy.special import betainc, betaincinv, betaln

    a = np.asarray(clicks, dtype=float) + 1
    b = np.asarray(slots, dtype=float) - a + 2
    if (a < 1).any() or (b < 1).any():
        raise InvalidField("clicks", "more than slots, or below 0", "0 to slots")
    low, high = betaincinv(a, b, TAIL), betaincinv(a, b, 1 - TAIL)
    at, weight = _nodes(low, high)
    log_density = (a - 1)[..., None] * np.log(at) + (b - 1)[..., None] * np.log1p(-at) - betaln(a, b)[..., None]
    # Of each arm j, the distribution function at the nodes of arm i: [..., i, j, node].
    below = betainc(a[..., None, :, None], b[..., None, :, None], at[..., :, None, :])
    return _integrate(np.exp(log_density) * weight, below)


def gaussian_best(means: npt.ArrayLike, errors: npt.ArrayLike) -> Floats:
    """Probability that each arm has the highest mean, given estimates and standard errors: float64[..., arms].

    For money and other outcomes that are no yes or no.
    """
    from scipy.special import ndtr

    mean, error = np.asarray(means, dtype=float), np.asarray(errors, dtype=float)
    if not (error > 0).all():
        raise InvalidField("errors", str(errors), "above 0")
    at, weight = _nodes(mean - DEVIATIONS * error, mean + DEVIATIONS * error)
    density = np.exp(-(((at - mean[..., None]) / error[..., None]) ** 2) / 2) / (error[..., None] * np.sqrt(2 * np.pi))
    below = ndtr((at[..., :, None, :] - mean[..., None, :, None]) / error[..., None, :, None])
    return _integrate(density * weight, below)


def shares(best: npt.ArrayLike, floor: float) -> Floats:
    """Shares of the next period, at least ``floor`` each: what is above the floors follows the probabilities.

    Parameters
    ----------
    best
        Probability that each arm is the best one, along the last axis.
    floor
        In (0, 1 / arms]. Not 0: what has no chance of being shown cannot be compared.
    """
    probabilities = np.asarray(best, dtype=float)
    arms = probabilities.shape[-1]
    if not 0 < floor <= 1 / arms:
        raise InvalidField("floor", f"{floor:g}", f"above 0, at most {1 / arms:g}, one over the number of arms")
    return np.asarray(floor + (1 - arms * floor) * probabilities, dtype=float)


def by_name(names: Sequence[str], values: Floats) -> dict[str, float]:
    """Shares of one experiment in the form that assignment takes."""
    return {name: float(value) for name, value in zip(names, values, strict=True)}


def _nodes(low: Floats, high: Floats) -> tuple[Floats, Floats]:
    half = (high - low)[..., None] / 2
    return (low + high)[..., None] / 2 + half * _AT, half * _WEIGHT


def _integrate(mass: Floats, below: Floats) -> Floats:
    """``mass``: [..., i, node]; ``below``: [..., i, j, node]."""
    arms = mass.shape[-2]
    others = np.where(np.eye(arms, dtype=bool)[..., None], 1.0, below).prod(axis=-2)
    best = (mass * others).sum(axis=-1)
    return np.asarray(best / best.sum(axis=-1, keepdims=True), dtype=float)
