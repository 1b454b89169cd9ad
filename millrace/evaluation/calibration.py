"""How far probabilities are from what happens."""

from __future__ import annotations

import numpy as np

from millrace.ranking.features import Floats

BINS = 20
# log(0) of a probability that rounding made 0 or 1.
_PROBABILITY_MIN = 1e-12


class Calibration:
    """Sums over predictions, each made before its outcome was known.

    Attributes
    ----------
    count
        Predictions.
    predicted, happened
        Sums of the probabilities, and of what came (0 or 1).
    """

    def __init__(self) -> None:
        self.count = 0
        self._loss = 0.0
        self._predicted, self._happened = np.zeros(BINS), np.zeros(BINS)

    def add(self, log_odds: Floats, labels: Floats) -> None:
        """Take predictions, as log-odds, and their labels (0 or 1)."""
        probabilities = 1.0 / (1.0 + np.exp(-np.clip(log_odds, -700, 700)))
        bins = np.minimum((probabilities * BINS).astype(np.intp), BINS - 1)
        np.add.at(self._predicted, bins, probabilities)
        np.add.at(self._happened, bins, labels)
        right = np.where(labels > 0, probabilities, 1.0 - probabilities)
        self._loss -= float(np.log(np.maximum(right, _PROBABILITY_MIN)).sum())
        self.count += len(labels)

    @property
    def log_loss(self) -> float:
        """Mean log loss, nats."""
        return self._loss / self.count

    @property
    def error(self) -> float:
        """Expected calibration error over 20 bins of equal width: mean distance of predicted and happened shares."""
        return float(np.abs(self._predicted - self._happened).sum()) / self.count

    @property
    def bias(self) -> float:
        """Predicted clicks for each that happened; infinity while none did."""
        happened = float(self._happened.sum())
        return float(self._predicted.sum()) / happened if happened else np.inf
