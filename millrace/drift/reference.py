"""What a feature was like when the model was made: its cells, and the counts of each block of the training window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from millrace.drift.counts import Categories, Counts, Edges, Ints
from millrace.drift.dispersion import Dispersion, of_cells, of_distribution
from millrace.errors import InvalidField

Cells = TypeVar("Cells", Edges, Categories)


@dataclass(frozen=True)
class Reference(Generic[Cells]):
    """A feature, score or category before.

    Attributes
    ----------
    name
        Of the feature.
    cells
        Where values fall.
    blocks
        int64[blocks, k]: counts of each block, for example each day. They tell how much the feature varies while
        nothing changes (``millrace.drift.dispersion``); one block, and values are taken as independent.
    missing
        int64[blocks].
    """

    name: str
    cells: Cells
    blocks: Ints
    missing: Ints

    def __post_init__(self) -> None:
        if self.blocks.ndim != 2 or self.blocks.shape[1] != self.cells.size or len(self.blocks) != len(self.missing):
            raise InvalidField(
                f"{self.name}.blocks",
                f"{self.blocks.shape} with {self.missing.shape} missing",
                f"(blocks, {self.cells.size}) with (blocks,) missing",
            )
        if (self.blocks < 0).any() or (self.missing < 0).any():
            raise InvalidField(f"{self.name}.blocks", "a count below 0", "0 and more")

    @staticmethod
    def of_numbers(name: str, values: npt.ArrayLike, blocks: npt.ArrayLike | None = None) -> Reference[Edges]:
        """The reference of a number.

        Parameters
        ----------
        values
            float[n]; NaN is missing.
        blocks
            int[n], the block of each value, for example its day; by default one for all.
        """
        given = np.asarray(values, dtype=float)
        edges = Edges.of(given)
        return _reference(name, edges, [edges.count(given[rows]) for rows in _rows(name, len(given), blocks)])

    @staticmethod
    def of_names(name: str, values: Sequence[str | None], blocks: npt.ArrayLike | None = None) -> Reference[Categories]:
        """The reference of a category; None is missing."""
        categories = Categories.of(values)
        rows = _rows(name, len(values), blocks)
        return _reference(name, categories, [categories.count([values[row] for row in block]) for block in rows])

    @cached_property
    def counts(self) -> Counts:
        """Of all blocks together."""
        return Counts(self.blocks.sum(axis=0), int(self.missing.sum()))

    @cached_property
    def dispersion(self) -> Dispersion:
        """Of the distribution function of a number, where it varies most."""
        return of_distribution(self.blocks)

    @cached_property
    def missing_dispersion(self) -> Dispersion:
        """Of the share of missing values."""
        return of_cells(np.stack([self.blocks.sum(axis=1), self.missing], axis=1))


AnyReference: TypeAlias = Reference[Edges] | Reference[Categories]


def _reference(name: str, cells: Cells, parts: Sequence[Counts]) -> Reference[Cells]:
    missing = np.array([part.missing for part in parts], dtype=np.int64)
    return Reference(name, cells, np.array([part.cells for part in parts], dtype=np.int64), missing)


def _rows(name: str, size: int, blocks: npt.ArrayLike | None) -> list[npt.NDArray[np.intp]]:
    """The rows of each block."""
    if blocks is None:
        return [np.arange(size)]
    given = np.asarray(blocks)
    if given.shape != (size,):
        raise InvalidField(f"{name}.blocks", f"{given.shape}", f"one for each of {size} values")
    return [np.flatnonzero(given == block) for block in np.unique(given)]
