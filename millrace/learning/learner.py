"""The online learner: river's ``Terms | StandardScaler | LogisticRegression`` with AdaGrad, one slot after the other.

The arithmetic is river's, on arrays instead of dictionaries: a test holds the two equal. river takes 60 µs for a slot
of 36 features, this takes less than one.

Learning is strictly sequential: what the parameters are after some slots does not depend on where buffers ended,
nor on whether the learner was stopped in between and went on from its state.

Pointwise, because scores have to be probabilities: drift, calibration and experiments read them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from millrace.compiled import compiled
from millrace.learning.state import LearnerState
from millrace.ranking.model import ADAGRAD_RATE, INTERCEPT_RATE, RankingModel, Vector

# log(0) of a probability that rounding made 0 or 1.
_PROBABILITY_MIN = 1e-12
# Added to the sum of squared gradients, as river does.
_ADAGRAD_EPSILON = 1e-8
# Beyond, river takes the probability for 0 or 1, and the gradient for its limit.
_ODDS_MAX, _ODDS_LINEAR = 30.0, 18.0


class OnlineRanker:
    """A line of learning in memory.

    Parameters
    ----------
    state
        Where it goes on.

    Attributes
    ----------
    examples
        Slots learned in this epoch.
    """

    def __init__(self, state: LearnerState) -> None:
        model = state.model
        self._state = state
        self._means, self._variances, self._weights = model.means.copy(), model.variances.copy(), model.weights.copy()
        self._squared_gradients = state.squared_gradients.copy()
        self._intercept, self._observations = model.intercept, model.observations
        self.examples = state.examples

    def learn(self, rows: Sequence[Sequence[float]] | npt.NDArray[np.floating], labels: Sequence[bool]) -> float:
        """Learn slots, float[n, d] in the order of the schema, one after the other.

        Returns
        -------
        The sum of the log losses, nats, each of the prediction before its slot was learned.
        """
        model = self._state.model
        x = model.expand(np.asarray(rows, dtype=np.float64).reshape(-1, len(model.feature_names)))
        if len(x) != len(labels):
            raise ValueError(f"{len(x)} rows and {len(labels)} labels")
        self._intercept, loss = _learn(
            x,
            np.asarray(labels, dtype=np.bool_),
            self._means,
            self._variances,
            self._weights,
            self._squared_gradients,
            self._intercept,
            self._observations,
        )
        self._observations += len(x)
        self.examples += len(x)
        return loss

    def model(self) -> RankingModel:
        """The parameters as they are now."""
        return replace(
            self._state.model,
            means=self._means,
            variances=self._variances,
            weights=self._weights,
            intercept=self._intercept,
            observations=self._observations,
        )

    def state(self, sequence: int, learned: dict[int, int], topic_id: str) -> LearnerState:
        """Everything, to go on from later."""
        return replace(
            self._state,
            model=self.model(),
            squared_gradients=self._squared_gradients.copy(),
            sequence=sequence,
            examples=self.examples,
            learned=dict(learned),
            topic_id=topic_id,
        )


@compiled
def _learn(
    rows: Vector,
    labels: npt.NDArray[np.bool_],
    means: Vector,
    variances: Vector,
    weights: Vector,
    squared_gradients: Vector,
    intercept: float,
    observations: int,
) -> tuple[float, float]:
    """Learn float64[n, d] into the vectors; returns the new intercept and the sum of log losses."""
    d = len(weights)
    z = np.empty(d)
    loss = 0.0
    for slot in range(len(rows)):
        observations += 1
        odds = 0.0
        for column in range(d):
            value, before = rows[slot, column], means[column]
            mean = before + (value - before) / observations
            variance = variances[column]
            variance += ((value - before) * (value - mean) - variance) / observations
            means[column], variances[column] = mean, variance
            z[column] = (value - mean) / math.sqrt(variance) if variance else 0.0
            odds += weights[column] * z[column]
        odds += intercept
        wanted = 1.0 if labels[slot] else -1.0
        towards = odds * wanted
        loss -= math.log(max(_probability(towards), _PROBABILITY_MIN))
        gradient = _gradient(towards) * wanted
        intercept -= INTERCEPT_RATE * gradient
        for column in range(d):
            own = gradient * z[column]
            squared_gradients[column] += own * own
            weights[column] -= ADAGRAD_RATE / math.sqrt(squared_gradients[column] + _ADAGRAD_EPSILON) * own
    return intercept, loss


@compiled
def _probability(odds: float) -> float:
    if odds < -_ODDS_MAX:
        return 0.0
    if odds > _ODDS_MAX:
        return 1.0
    return 1.0 / (1.0 + math.exp(-odds))


@compiled
def _gradient(towards: float) -> float:
    """Of the log loss, by the log-odds of what came true."""
    if towards > _ODDS_LINEAR:
        return -math.exp(-towards)
    if towards < -_ODDS_LINEAR:
        return -1.0
    return -1.0 / (math.exp(towards) + 1.0)
