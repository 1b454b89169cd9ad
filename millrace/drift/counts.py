"""How often values fall into fixed cells: all that is kept of a window of a feature, a score or a category.

Cells are fixed by the reference, so that counts of any two windows add up, in any order, to those of both together:
several workers may watch one stream. Numbers are counted between quantiles of the reference, which makes every cell
about as likely as the next; the distribution function is known without error at each edge.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from millrace.errors import InvalidField

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

BINS = 128
"""Cells of a number without frequent values: the largest step of the distribution function that is not seen is 1 in
128, a sixth of the smallest effect that is an alarm by default."""
SORTED_FROM = 4_096
"""From so many values on, sorting them and finding the edges is faster than finding each value's cell: 1 and 5 ms for
100,000."""
NAMES_MAX = 100
"""Categories that are told apart; rarer ones count as new, so that one feature never takes more than a kilobyte."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Values of a window by cell.

    Attributes
    ----------
    cells
        int64[k].
    missing
        Values that were not there: NaN or None. Infinities count as missing too: no feature may be infinite.
    """

    cells: Ints
    missing: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.cells + other.cells, self.missing + other.missing)

    @property
    def present(self) -> int:
        """Values that were there."""
        return int(self.cells.sum())


@dataclass(frozen=True, slots=True)
class Edges:
    """Cells of a number: (-inf, e_0], (e_0, e_1], ..., (e_last, inf).

    Numbers are float32, as features and scores are served: a frequent value that a training job holds in 64 bits would
    lie beside its own edge.

    Attributes
    ----------
    edges
        float32[k - 1], ascending.
    """

    edges: Singles

    def __post_init__(self) -> None:
        if self.edges.ndim != 1 or not np.isfinite(self.edges).all() or (np.diff(self.edges) <= 0).any():
            raise InvalidField("edges", f"{self.edges.shape} numbers", "finite and ascending")

    @classmethod
    def of(cls, values: npt.ArrayLike, bins: int = BINS) -> Edges:
        """Edges at quantiles of the values that are there; none if no value is.

        A value as frequent as a whole cell or more is a cell of its own, so that a constant feature that moves
        either way is seen.
        """
        given = _singles(values)
        given = given[np.isfinite(given)]
        if not len(given):
            return cls(np.empty(0, dtype=np.float32))
        at = np.quantile(given, np.arange(1, bins + 1) / bins, method="inverted_cdf")
        frequent = at[:-1][np.diff(at) == 0]
        with np.errstate(over="ignore"):
            below = np.nextafter(frequent, np.float32(-np.inf))
        return cls(np.unique(np.concatenate([at, below[np.isfinite(below)]])))

    @property
    def size(self) -> int:
        """How many cells."""
        return len(self.edges) + 1

    def count(self, values: npt.ArrayLike) -> Counts:
        """Count numbers, of any shape; NaN is missing."""
        given = _singles(values)
        there = given[np.isfinite(given)]
        if len(there) < SORTED_FROM:
            cells = np.bincount(np.searchsorted(self.edges, there), minlength=self.size)
        else:
            up_to = np.searchsorted(np.sort(there), self.edges, side="right")
            cells = np.diff(up_to, prepend=0, append=len(there))
        return Counts(cells.astype(np.int64), len(given) - len(there))


def _singles(values: npt.ArrayLike) -> Singles:
    """The values as float32[n]; one that is too large for it is infinite."""
    with np.errstate(over="ignore"):
        return np.asarray(values).astype(np.float32).ravel()


@dataclass(frozen=True, slots=True)
class Categories:
    """Cells of a category: each name, and all that are new.

    Attributes
    ----------
    names
        The most frequent first.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(set(self.names)) < len(self.names):
            raise InvalidField("names", "the same one twice", "each once")

    @classmethod
    def of(cls, values: Sequence[str | None]) -> Categories:
        """The names that are there, at most ``NAMES_MAX``."""
        seen = Counter(value for value in values if value is not None)
        return cls(tuple(sorted(seen, key=lambda name: (-seen[name], name))[:NAMES_MAX]))

    @property
    def size(self) -> int:
        """How many cells."""
        return len(self.names) + 1

    def count(self, values: Sequence[str | None]) -> Counts:
        """Count names; None is missing."""
        seen = Counter(values)
        missing = seen.pop(None, 0)
        known = [seen.get(name, 0) for name in self.names]
        return Counts(np.array([*known, seen.total() - sum(known)], dtype=np.int64), missing)
