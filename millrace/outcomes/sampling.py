"""Which candidates an example without an impression consists of: shared by the joiner and the evaluator."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from millrace.ranking.features import Rows


def sample_example(
    rows: Rows, clicked: int, negatives: int, random: np.random.Generator
) -> npt.NDArray[np.intp] | None:
    """Places of the example's slots among the candidates: the clicked item, then some of the others.

    Parameters
    ----------
    rows
        int32[n], of the candidates.
    clicked
        Row of the clicked item.
    negatives
        How many others are drawn, each equally likely; fewer if there are not so many.

    Returns
    -------
    None if the clicked item is no candidate: then nothing can be learned from it.
    """
    found = np.flatnonzero(rows == clicked)
    if not len(found):
        return None
    others = np.flatnonzero(rows != clicked)
    return np.concatenate((found, random.choice(others, min(negatives, len(others)), replace=False)))
