"""Ways to learn the ranker from the same examples, to be compared: what production does, and what it could do.

An example is float32[1 + m, d]: the features of the clicked item, then of m others. All see the model's terms.

pairwise
    RankNet's loss on differences of standardised features: log(1 + exp(-w (z_clicked - z_other))). It has no
    intercept. Burges et al. (2005): Learning to rank using gradient descent.
listwise
    ListNet's top-one loss: -log softmax of w z at the clicked item. Cao et al. (2007): Learning to rank: from
    pairwise approach to listwise approach.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np

from millrace.learning.learner import OnlineRanker
from millrace.learning.state import fresh
from millrace.ranking.features import FloatMatrix, Floats
from millrace.ranking.model import RankingModel

# River's AdaGrad, which production uses, with its epsilon.
_EPSILON = 1e-8


class Learner(Protocol):
    """Scores candidates and learns from examples."""

    def scores(self, features: FloatMatrix) -> Floats:
        """Log-odds, or what stands for them, float64[n], of float32[n, d]."""
        ...

    def learn(self, example: FloatMatrix) -> None:
        """Learn one example."""
        ...

    def reject(self, features: FloatMatrix) -> None:
        """Learn slots of which none was clicked."""
        ...


class Fixed:
    """A model that learns nothing."""

    def __init__(self, model: RankingModel) -> None:
        self._model = model

    def scores(self, features: FloatMatrix) -> Floats:
        return log_odds(self._model.score(features))

    def learn(self, example: FloatMatrix) -> None:
        """Nothing."""

    def reject(self, features: FloatMatrix) -> None:
        """Nothing."""


class Pointwise:
    """The production learner, slot by slot."""

    def __init__(self, model: RankingModel) -> None:
        self._ranker = OnlineRanker(fresh(model, "evaluation", "evaluation", epoch=1))
        self._model = model

    def scores(self, features: FloatMatrix) -> Floats:
        return log_odds(self._model.score(features))

    def learn(self, example: FloatMatrix) -> None:
        self._ranker.learn(example, [True] + [False] * (len(example) - 1))
        self._model = self._ranker.model()

    def reject(self, features: FloatMatrix) -> None:
        self._ranker.learn(features, [False] * len(features))
        self._model = self._ranker.model()


class _Standardised:
    """Weights of standardised features, moved by AdaGrad; means and variances as river's StandardScaler has them."""

    def __init__(self, model: RankingModel, rate: float) -> None:
        self._expand = model.expand
        self._weights = model.weights.copy()
        self._squared = np.zeros_like(self._weights)
        self._means, self._variances = model.means.copy(), model.variances.copy()
        self._observations = model.observations
        self._rate = rate

    def scores(self, features: FloatMatrix) -> Floats:
        scores: Floats = (self._expand(features) - self._means) @ (self._weights / self._deviations())
        return scores

    def reject(self, features: FloatMatrix) -> None:
        """Without a clicked slot beside them there is no pair and no list: only means and variances learn."""
        self._standardise(features)

    def _standardise(self, example: FloatMatrix) -> Floats:
        """Take an example into means and variances, and give it standardised."""
        columns = self._expand(example)
        for row in columns:
            self._observations += 1
            before = row - self._means
            self._means += before / self._observations
            self._variances += (before * (row - self._means) - self._variances) / self._observations
        standardised: Floats = (columns - self._means) / self._deviations()
        return standardised

    def _deviations(self) -> Floats:
        # A feature that does not vary does not count.
        return np.where(self._variances > 0, np.sqrt(self._variances), np.inf)

    def _step(self, gradient: Floats) -> None:
        self._squared += gradient**2
        self._weights -= self._rate * gradient / np.sqrt(self._squared + _EPSILON)


class Pairwise(_Standardised):
    """Logistic regression without intercept on differences, one pair after the other."""

    def learn(self, example: FloatMatrix) -> None:
        standardised = self._standardise(example)
        for difference in standardised[0] - standardised[1:]:
            margin = float(self._weights @ difference)
            self._step(-difference / (1.0 + math.exp(min(margin, 700.0))))


class Listwise(_Standardised):
    """Softmax over the example, one step for all of it."""

    def learn(self, example: FloatMatrix) -> None:
        standardised = self._standardise(example)
        scores = standardised @ self._weights
        shares = np.exp(scores - scores.max())
        self._step(shares @ standardised / shares.sum() - standardised[0])


class Platt:
    """Probabilities from scores, by a logistic regression on the score alone that learns online.

    Platt (1999): Probabilistic outputs for support vector machines.
    """

    def __init__(self, rate: float = 0.5) -> None:
        self._slope, self._intercept = 1.0, 0.0
        self._squared = np.zeros(2)
        self._rate = rate

    def log_odds(self, scores: Floats) -> Floats:
        """Log-odds of scores."""
        return self._slope * scores + self._intercept

    def learn(self, scores: Floats, labels: Floats) -> None:
        """Learn slots, one after the other: their scores and 1 for a click, else 0."""
        for score, label in zip(scores.tolist(), labels.tolist(), strict=True):
            error = probability(self._slope * score + self._intercept) - label
            gradient = np.array([error * score, error])
            self._squared += gradient**2
            step = self._rate * gradient / np.sqrt(self._squared + _EPSILON)
            self._slope -= float(step[0])
            self._intercept -= float(step[1])


def probability(log_odds: float) -> float:
    """The probability of log-odds."""
    return 1.0 / (1.0 + math.exp(-max(-700.0, min(log_odds, 700.0))))


def log_odds(probabilities: FloatMatrix) -> Floats:
    """Log-odds of float32 probabilities; 0 and 1 become the nearest that can be told from them."""
    bounded = np.clip(probabilities.astype(np.float64), 1e-12, 1 - 1e-12)
    return np.log(bounded) - np.log1p(-bounded)
