"""What the ranker's linear model sees beside the logged features: hinges and products of them.

Log-odds are not straight lines of the features. A hinge, max(0, x - knot), lets the slope change at a knot; a product
lets the slope of one feature depend on another. Friedman (1991): Multivariate adaptive regression splines. Here they
are chosen once and belong to the model, so that what is logged stays short and any version can have its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from millrace.compiled import compiled
from millrace.ranking.features import FloatMatrix, Floats, Ints


@dataclass(frozen=True, slots=True)
class Hinge:
    """max(0, feature - knot)."""

    feature: str
    knot: float

    @property
    def name(self) -> str:
        """For people: around_log>-3."""
        return f"{self.feature}>{self.knot:g}"

    @property
    def features(self) -> tuple[str, ...]:
        """What it is made of."""
        return (self.feature,)


@dataclass(frozen=True, slots=True)
class Product:
    """(first - first_centre) * (second - second_centre)."""

    first: str
    second: str
    first_centre: float
    second_centre: float

    @property
    def name(self) -> str:
        """For people: around_log*trend."""
        return f"{self.first}*{self.second}"

    @property
    def features(self) -> tuple[str, ...]:
        """What it is made of."""
        return self.first, self.second


Term: TypeAlias = Hinge | Product


def term_to_words(term: Term) -> dict[str, Any]:
    """A term as JSON holds it."""
    # A knot that was written as 3 and read as 3.0 is the same knot, and gives the same bytes.
    return {name: float(value) if isinstance(value, int) else value for name, value in asdict(term).items()}


def term_from_words(words: Mapping[str, Any]) -> Term:
    """The term of ``term_to_words``. Raises KeyError, TypeError or ValueError if it is none."""
    if "knot" in words:
        return Hinge(str(words["feature"]), float(words["knot"]))
    return Product(
        str(words["first"]), str(words["second"]), float(words["first_centre"]), float(words["second_centre"])
    )


class Expansion:
    """Makes the columns of a linear model from logged features: the features themselves, then the terms.

    Parameters
    ----------
    feature_names
        Names of the d features, in order.
    terms
        e of them, in order. ValueError if one is made of an unknown feature or has a number that is not finite.

    Attributes
    ----------
    columns
        Names of the d + e columns.
    """

    def __init__(self, feature_names: Sequence[str], terms: Sequence[Term]) -> None:
        self.columns = (*feature_names, *(term.name for term in terms))
        place = {name: at for at, name in enumerate(feature_names)}
        for term in terms:
            unknown = [name for name in term.features if name not in place]
            if unknown:
                raise ValueError(f"term {term.name} is made of {unknown[0]!r}, which is no feature")
        first: Ints = np.array([place[term.features[0]] for term in terms], dtype=np.int64)
        second: Ints = np.array([place[term.features[-1]] for term in terms], dtype=np.int64)
        hinge = np.array([isinstance(term, Hinge) for term in terms], dtype=np.bool_)
        first_centre = np.array(
            [term.knot if isinstance(term, Hinge) else term.first_centre for term in terms], dtype=np.float64
        )
        second_centre = np.array(
            [0.0 if isinstance(term, Hinge) else term.second_centre for term in terms], dtype=np.float64
        )
        if not np.isfinite(first_centre).all() or not np.isfinite(second_centre).all():
            raise ValueError("knots and centres of terms must be finite")
        self._arrays = first, second, hinge, first_centre, second_centre

    def __call__(self, features: FloatMatrix | Floats) -> Floats:
        """float64[n, d + e] of logged features, float[n, d]."""
        expanded = np.empty((len(features), len(self.columns)))
        _expand(features, *self._arrays, expanded)
        return expanded

    def probabilities(self, features: FloatMatrix | Floats, slopes: Floats, offset: float) -> FloatMatrix:
        """float32[n], of log-odds that are offset + columns @ slopes (float64[d + e]); nothing but the sum is kept."""
        found = np.empty(len(features), dtype=np.float32)
        _probabilities(features, *self._arrays, slopes, offset, found)
        return found

    def expand_one(self, features: Mapping[str, float]) -> dict[str, float]:
        """The same for one example as river has it, by names; those that are no features are left out."""
        d = len(self.columns) - len(self._arrays[0])
        row = np.array([[features[name] for name in self.columns[:d]]])
        return dict(zip(self.columns, self(row)[0].tolist(), strict=True))


@lru_cache
def expansion(feature_names: tuple[str, ...], terms: tuple[Term, ...]) -> Expansion:
    """The expansion of a model; one for all its versions. Raises as ``Expansion`` does."""
    return Expansion(feature_names, terms)


@compiled
def _term(row: Floats, first: int, second: int, hinge: bool, first_centre: float, second_centre: float) -> float:
    value = float(row[first]) - first_centre
    if hinge:
        return max(value, 0.0)
    return value * (float(row[second]) - second_centre)


@compiled
def _expand(
    features: FloatMatrix | Floats,
    first: Ints,
    second: Ints,
    hinge: npt.NDArray[np.bool_],
    first_centre: Floats,
    second_centre: Floats,
    expanded: Floats,
) -> None:
    d = features.shape[1]
    for n in range(len(features)):
        row = expanded[n]
        for column in range(d):
            row[column] = features[n, column]
        for term in range(len(first)):
            row[d + term] = _term(row, first[term], second[term], hinge[term], first_centre[term], second_centre[term])


@compiled
def _probabilities(
    features: FloatMatrix | Floats,
    first: Ints,
    second: Ints,
    hinge: npt.NDArray[np.bool_],
    first_centre: Floats,
    second_centre: Floats,
    slopes: Floats,
    offset: float,
    found: FloatMatrix,
) -> None:
    d = features.shape[1]
    row = np.empty(d)
    for n in range(len(features)):
        odds = offset
        for column in range(d):
            row[column] = features[n, column]
            odds += slopes[column] * row[column]
        for term in range(len(first)):
            odds += slopes[d + term] * _term(
                row, first[term], second[term], hinge[term], first_centre[term], second_centre[term]
            )
        # Beyond 30 the probability is 0 in float32 (and river says so too); exp cannot overflow.
        found[n] = 1.0 / (1.0 + math.exp(min(-odds, 30.0)))
