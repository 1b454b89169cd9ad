"""The online learner: river's ``StandardScaler | LogisticRegression`` with AdaGrad, one slot after the other.

Learning is strictly sequential: what the parameters are after some slots does not depend on where buffers ended,
nor on whether the learner was stopped in between and went on from its state.

Pointwise, because scores have to be probabilities: drift, calibration and experiments read them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from millrace.learning.state import LearnerState
from millrace.ranking.model import RankingModel

# log(0) of a probability that rounding made 0 or 1.
_PROBABILITY_MIN = 1e-12


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
        self._state = state
        self._names = state.model.feature_names
        self._pipeline = state.model.to_river()
        self._scaler = self._pipeline["StandardScaler"]
        self._regression = self._pipeline["LogisticRegression"]
        self._regression.optimizer.g2.update(zip(self._names, state.squared_gradients.tolist(), strict=True))
        self.examples = state.examples

    def learn(self, rows: Iterable[Sequence[float]], labels: Iterable[bool]) -> float:
        """Learn slots, float[n][d] in the order of the schema, one after the other.

        Returns
        -------
        The sum of the log losses, nats, each of the prediction before its slot was learned.
        """
        names, scaler, regression = self._names, self._scaler, self._regression
        learn_scale, scale = scaler.learn_one, scaler.transform_one
        predict, learn = regression.predict_proba_one, regression.learn_one
        loss = 0.0
        for row, label in zip(rows, labels, strict=True):
            x = dict(zip(names, row, strict=True))
            learn_scale(x)
            z = scale(x)
            loss -= math.log(max(predict(z)[label], _PROBABILITY_MIN))
            learn(z, label)
            self.examples += 1
        return loss

    def model(self) -> RankingModel:
        """The parameters as they are now."""
        names, weights = self._names, self._regression.weights
        return replace(
            self._state.model,
            means=np.array([self._scaler.means[name] for name in names]),
            variances=np.array([self._scaler.vars[name] for name in names]),
            weights=np.array([weights[name] for name in names]),
            intercept=float(self._regression.intercept),
            observations=int(self._scaler.counts[names[0]]),
        )

    def state(self, sequence: int, learned: dict[int, int], topic_id: str) -> LearnerState:
        """Everything, to go on from later."""
        gradients = self._regression.optimizer.g2
        return replace(
            self._state,
            model=self.model(),
            squared_gradients=np.array([gradients[name] for name in self._names]),
            sequence=sequence,
            examples=self.examples,
            learned=dict(learned),
            topic_id=topic_id,
        )
