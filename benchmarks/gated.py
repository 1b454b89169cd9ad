"""The gate on answers in random order whose truth is known: two models, users who look at the top, and their clicks.

The appeal of an item follows two of its features, as much the one as the other; the champion ranks by the first one and
the version by the second, so that they order items very differently and are worth the same to the digit. A version that
is worse ranks by noise with some of the weight.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from millrace.experiments.gate import judge
from millrace.experiments.gate_evidence import measure
from millrace.experiments.shuffled import ShuffledAnswer, ShuffledAnswers
from millrace.ranking.features import FEATURE_NAMES, FloatMatrix
from millrace.ranking.first import first_ranker
from millrace.ranking.model import RankingModel
from millrace.v1.experiment_pb2 import Gate

Floats = npt.NDArray[np.float64]

SHOWN = 10
WORSE = 1.42
"""Weight of the noise with which the version is a tenth worse, as much as the gate bears (see ``truth``)."""
FIRST, SECOND, NOISE = 0, 1, 2
"""Columns of the features that say something."""
APPEAL = 0.8
EXAMINATION = (1.0 + np.arange(SHOWN)) ** -0.6
"""Probability that a place is looked at (as in ``millrace.simulation.clicks``)."""


@dataclass(frozen=True, slots=True)
class Shop:
    """What is simulated.

    Attributes
    ----------
    answers, users
        How many; users come back, and like everything more or less (standard deviation .5 in log-odds).
    noise
        Weight of what says nothing in the version's order; the second feature has 1.
    one_click
        Whether a page ends with its first click: then a click depends on the order of the others, too.
    base
        Log-odds of a click on an item of no appeal, looked at; by default, 5 % of slots are clicked in either order.
    """

    answers: int = 2_000
    users: int = 1_000
    noise: float = 0.0
    one_click: bool = False
    base: float = -3.0


SHOPS = {
    "gate.equal": Shop(),
    "gate.equal.few": Shop(answers=300, users=200),
    "gate.equal.one_click": Shop(one_click=True),
    "gate.worse": Shop(noise=WORSE),
    "gate.worse.one_click": Shop(noise=WORSE, one_click=True),
}
"""Of `make statistics`."""


def ranker(column: int, noise: float = 0.0) -> RankingModel:
    """Ranks by a column, and by noise with a weight."""
    weights = np.zeros(len(FEATURE_NAMES))
    weights[column], weights[NOISE] = 1.0, noise
    means, variances = np.zeros_like(weights), np.ones_like(weights)
    return replace(first_ranker(), weights=weights, means=means, variances=variances, terms=())


def visits(shop: Shop, generator: np.random.Generator) -> tuple[list[str], FloatMatrix, Floats]:
    """Of each answer the user, features of the items, float32[answers, k, d], and chances of a click on each if it is
    looked at, float64[answers, k].
    """
    mood = generator.normal(0.0, 0.5, shop.users)
    users = generator.integers(0, shop.users, shop.answers)
    features = np.zeros((shop.answers, SHOWN, len(FEATURE_NAMES)), dtype=np.float32)
    features[..., : NOISE + 1] = generator.normal(size=(shop.answers, SHOWN, NOISE + 1))
    says = features[..., FIRST].astype(np.float64) + features[..., SECOND]
    chances = 1 / (1 + np.exp(-(shop.base + mood[users, None] + APPEAL * says)))
    return [f"u{user}" for user in users.tolist()], features, chances


def logged(shop: Shop, generator: np.random.Generator) -> ShuffledAnswers:
    """The champion's answers in random order, and what was clicked."""
    users, features, chances = visits(shop, generator)
    places = generator.permuted(np.tile(np.arange(SHOWN), (shop.answers, 1)), axis=1)
    clicked = generator.random(chances.shape) < chances * EXAMINATION[places]
    if shop.one_click:
        clicked &= places == np.where(clicked, places, SHOWN).min(axis=1, keepdims=True)
    scores = _scores(ranker(FIRST), features)
    log = ShuffledAnswers("ranker", "1")
    log.answers.extend(map(ShuffledAnswer, users, places, clicked, scores, features))
    return log


def truth(shop: Shop, answers: int = 200_000) -> float:
    """How much more the version earns in its own order than the champion in its own, relative, to a few tenths of a
    per cent.
    """
    _, features, chances = visits(replace(shop, answers=answers, users=answers), np.random.default_rng(1))
    earned = []
    for model in (ranker(SECOND, shop.noise), ranker(FIRST)):
        order = np.argsort(-_scores(model, features), axis=1)
        seen = np.take_along_axis(chances, order, axis=1) * EXAMINATION
        # With one click a page, that there is any.
        earned.append(float((1 - np.prod(1 - seen, axis=1) if shop.one_click else seen.sum(axis=1)).mean()))
    return earned[0] / earned[1] - 1


def _scores(model: RankingModel, features: FloatMatrix) -> npt.NDArray[np.float32]:
    return model.score(features.reshape(-1, features.shape[-1])).reshape(features.shape[:2])


def at_the_gate(shop: Shop, generator: np.random.Generator) -> Gate:
    """What the gate says of the version."""
    return judge(measure(logged(shop, generator), lambda: ranker(SECOND, shop.noise)))


def looks(shop: Shop, runs: int, seed: int) -> list[Gate]:
    """What it says in many shops alike."""
    return [at_the_gate(shop, generator) for generator in np.random.default_rng(seed).spawn(runs)]
