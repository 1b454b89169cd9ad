"""Contenders of the learner ablation: the mathematics of each, and that probabilities can be restored."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from river import linear_model, optim

from millrace.evaluation.calibration import Calibration
from millrace.evaluation.intervals import block_bootstrap
from millrace.evaluation.learner_ablation import hits_and_reciprocals
from millrace.evaluation.learners import Learner, Listwise, Pairwise, Platt, Pointwise
from millrace.evaluation.questions import Question
from millrace.ranking.corpus import Corpus
from millrace.ranking.features import FEATURE_NAMES, SIGNALS, Candidates, FloatMatrix
from millrace.ranking.first import first_ranker
from millrace.settings import FeatureSettings, RecommenderSettings

D = len(FEATURE_NAMES)
TRUTH = np.random.default_rng(7).normal(0, 1, D)


def examples(count: int, seed: int = 1) -> list[FloatMatrix]:
    """Examples of five slots in which a linear model says which one is clicked (by Gumbel noise: a softmax)."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        rows = random.normal(0, 1, (5, D)).astype(np.float32)
        clicked = int(np.argmax(rows @ TRUTH + random.gumbel(size=5)))
        made.append(np.concatenate((rows[clicked : clicked + 1], np.delete(rows, clicked, axis=0))))
    return made


@pytest.mark.parametrize("make", [Pointwise, lambda model: Pairwise(model, 0.05), lambda model: Listwise(model, 0.05)])
def test_every_way_learns_what_is_clicked(make: type[Pointwise]) -> None:
    learner: Learner = make(first_ranker())
    for example in examples(3_000):
        learner.learn(example)
    first = [int(np.argmax(learner.scores(example))) == 0 for example in examples(500, seed=2)]
    best = [int(np.argmax(example @ TRUTH)) == 0 for example in examples(500, seed=2)]
    assert np.mean(first) > 0.65 * np.mean(best), "a fifth is chance"


def test_pairwise_is_the_logistic_regression_of_river_on_differences() -> None:
    learner = Pairwise(first_ranker(), 0.05)
    model = first_ranker()
    scaler: Any = model.to_river()["StandardScaler"]
    weights = dict(zip(model.columns, model.weights.tolist(), strict=True))
    river: Any = linear_model.LogisticRegression(optimizer=optim.AdaGrad(0.05), intercept_lr=0.0)
    river._weights.update(weights)
    for example in examples(50):
        learner.learn(example)
        rows = [dict(zip(model.columns, row, strict=True)) for row in model.expand(example).tolist()]
        for row in rows:
            scaler.learn_one(row)
        clicked, *others = (scaler.transform_one(row) for row in rows)
        for other in others:
            river.learn_one({name: clicked[name] - other[name] for name in model.columns}, True)
    for probe in examples(20, seed=3):
        columns = [dict(zip(model.columns, row, strict=True)) for row in model.expand(probe).tolist()]
        theirs = [
            sum(river.weights[name] * value for name, value in scaler.transform_one(one).items()) for one in columns
        ]
        assert learner.scores(probe) == pytest.approx(theirs, rel=1e-9, abs=1e-9)


def test_listwise_follows_the_gradient_of_its_loss() -> None:
    """One step of AdaGrad goes against the sign of the numerical gradient, feature by feature."""
    example = examples(1)[0]
    learner = Listwise(first_ranker(), 0.05)
    standardised = learner._standardise(example)
    before = learner._weights.copy()
    step = 1e-6

    def loss(weights: np.typing.NDArray[np.float64]) -> float:
        scores = standardised @ weights
        return float(np.log(np.exp(scores - scores[0]).sum()))

    gradient = np.array(
        [(loss(before + step * one) - loss(before - step * one)) / (2 * step) for one in np.eye(len(before))]
    )
    # Hinges that are as good as flat over the example have no slope that could be told from rounding.
    steep = np.abs(gradient) > 1e-6
    assert np.count_nonzero(steep) > D
    fresh = Listwise(first_ranker(), 0.05)
    fresh.learn(example)
    assert (np.sign(before - fresh._weights) == np.sign(gradient))[steep].all()
    assert fresh._squared == pytest.approx(np.square(gradient), rel=1e-4, abs=1e-9)


def test_platt_restores_probabilities() -> None:
    random = np.random.default_rng(5)
    log_odds = random.normal(-1, 1.5, 20_000)
    labels = (random.random(20_000) < 1 / (1 + np.exp(-log_odds))).astype(np.float64)
    scores = 3 * log_odds + 4  # the order is right, the probabilities are not
    platt, raw, restored = Platt(), Calibration(), Calibration()
    for start in range(0, 20_000, 10):
        part = slice(start, start + 10)
        if start >= 10_000:
            raw.add(scores[part], labels[part])
            restored.add(platt.log_odds(scores[part]), labels[part])
        platt.learn(scores[part], labels[part])
    assert raw.error > 0.2
    assert restored.error < 0.02
    assert restored.bias == pytest.approx(1.0, abs=0.03)
    assert restored.log_loss < raw.log_loss


def test_calibration_by_hand() -> None:
    """Two predictions of 1/2, one of which came; one of 0.9 that did not."""
    calibration = Calibration()
    calibration.add(np.array([0.0, 0.0, math.log(9)]), np.array([1.0, 0.0, 0.0]))
    assert calibration.count == 3
    assert calibration.error == pytest.approx(0.9 / 3)
    assert calibration.bias == pytest.approx(1.9)
    assert calibration.log_loss == pytest.approx((2 * math.log(2) - math.log(0.1)) / 3)


def test_ties_count_against_us() -> None:
    candidates = Candidates(np.array([3, 5, 9], dtype=np.int32), np.zeros(3, dtype=np.int64), np.zeros((SIGNALS, 3)))
    features, nothing = np.zeros((3, D), dtype=np.float32), Corpus.empty(FeatureSettings(), RecommenderSettings())
    question = Question(candidates, features, 5, 0, nothing)
    assert question.rank(np.array([0.1, 0.5, 0.5])) == 2
    assert question.rank(np.array([0.1, 0.9, 0.5])) == 1
    assert Question(candidates, features, 7, 0, nothing).rank(np.array([0.1, 0.9, 0.5])) == 0


def test_hits_and_reciprocals_by_hand() -> None:
    hits, reciprocals = hits_and_reciprocals([1, 0, 20, 21, 4], 20)
    assert hits.tolist() == [1, 0, 1, 0, 1]
    assert reciprocals.tolist() == [1, 0, 0.05, 0, 0.25]


def test_intervals_hold_what_they_say() -> None:
    """95 % intervals of a series whose neighbours are alike (AR(1), 0.9) hold its mean in at least 85 of 100."""
    random = np.random.default_rng(11)
    held = 0
    for _ in range(100):
        noise = random.normal(size=20_000)
        series = np.empty_like(noise)
        value = 0.0
        for place, one in enumerate(noise):
            value = series[place] = 0.9 * value + one
        low, high = block_bootstrap(series)
        held += low <= 0.0 <= high
    assert held >= 85
    assert all(math.isnan(bound) for bound in block_bootstrap(np.ones(19)))
