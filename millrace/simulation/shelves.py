"""What a shop shows without a recommender: its most clicked items, or any."""

from __future__ import annotations

import numpy as np

from millrace.simulation.catalogue import Catalogue, Floats

HALF_LIFE_S = 3600.0
"""A click an hour ago counts half: long enough to tell items apart, short enough that what is new gets up."""


class Shelves:
    """Lists of items for pages that no recommender is asked for."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._clicks: Floats = np.zeros(len(catalogue))
        self._as_of_s: Floats = np.zeros(len(catalogue))

    def clicked(self, item_id: str, now_s: float) -> None:
        """Count a click, whoever led to it."""
        row = self._catalogue.row(item_id)
        if row is not None:
            before = self._clicks[row] * 2 ** ((self._as_of_s[row] - now_s) / HALF_LIFE_S)
            self._clicks[row], self._as_of_s[row] = before + 1, now_s

    def replaced(self, row: int) -> None:
        """Another item stands there now."""
        self._clicks[row] = 0.0

    def popular(self, k: int, now_s: float) -> list[str]:
        """The most clicked ones, the most clicked first."""
        decayed = self._clicks * 2 ** ((self._as_of_s - now_s) / HALF_LIFE_S)
        return [self._catalogue.item_ids[row] for row in np.argsort(-decayed, kind="stable")[:k]]

    def random(self, k: int, rng: np.random.Generator) -> list[str]:
        """Any."""
        size = len(self._catalogue)
        return [self._catalogue.item_ids[row] for row in rng.choice(size, min(k, size), replace=False)]
