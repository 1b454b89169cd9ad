"""A model's serving parameters as one vector: what parameter updates number and carry.

For a model of d columns (features and terms), float64[3d + 2]: the d weights, the intercept, the d means, the
d variances, and the number of observations behind means and variances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from millrace.errors import InvalidField
from millrace.ranking.model import RankingModel, Vector
from millrace.v1.common_pb2 import SparseValues


def vector_size(columns: int) -> int:
    """Number of parameters of a model with so many columns."""
    return 3 * columns + 2


def weight_names(columns: Sequence[str]) -> tuple[str, ...]:
    """Names of the first d + 1 parameters: the weights, by their columns, and the intercept."""
    return (*columns, "intercept")


def to_vector(model: RankingModel) -> Vector:
    """The parameters of a model."""
    return np.concatenate((model.weights, [model.intercept], model.means, model.variances, [float(model.observations)]))


def from_vector(model: RankingModel, vector: Vector) -> RankingModel:
    """The same model with other parameters. Raises UnusableModel if they are not finite."""
    d = len(model.columns)
    return replace(
        model,
        weights=vector[:d],
        intercept=float(vector[d]),
        means=vector[d + 1 : 2 * d + 1],
        variances=vector[2 * d + 1 : 3 * d + 1],
        observations=round(vector[3 * d + 1]),
    )


def changed(before: Vector, after: Vector) -> SparseValues:
    """The absolute values of the parameters that differ."""
    indices: npt.NDArray[np.intp] = np.flatnonzero(before != after)
    return SparseValues(indices=indices.tolist(), values=after[indices].tolist())


def apply(vector: Vector, values: SparseValues) -> Vector:
    """A vector with the given values in place of its own.

    Raises
    ------
    InvalidField
        The two lists differ in length, or a number lies past the end of the vector.
    """
    if len(values.indices) != len(values.values):
        raise InvalidField(
            "parameters", f"{len(values.indices)} indices, {len(values.values)} values", "as many values as indices"
        )
    indices = np.array(values.indices, dtype=np.intp)
    if len(indices) and indices.max() >= len(vector):
        raise InvalidField("parameters.indices", str(indices.max()), f"below {len(vector)}")
    updated = vector.copy()
    updated[indices] = values.values
    return updated
