"""Pointwise, pairwise or listwise: every way to learn on the same candidates, features and examples, in one pass.

Features do not depend on the ranker, so that all contenders see the same; differences between them are paired.
Probabilities are judged on two kinds of slots: those of the examples (the clicked item and candidates drawn at random),
and the first ten that the contender itself would have shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from millrace.evaluation.calibration import Calibration
from millrace.evaluation.features import MemoryFeatures
from millrace.evaluation.intervals import block_bootstrap
from millrace.evaluation.learners import Fixed, Learner, Listwise, Pairwise, Platt, Pointwise
from millrace.evaluation.questions import MISS, Question, Questioner
from millrace.evaluation.sessions import Sessions
from millrace.evaluation.stream import Event
from millrace.features.user_state import ENGAGEMENT_TYPES
from millrace.ranking.features import FloatMatrix, Floats
from millrace.ranking.first import first_ranker
from millrace.ranking.first_stage import first_scores
from millrace.settings import Settings

K = 20
REFERENCE = "pointwise"
"""Differences are to this one: what production does."""
OWN_ORDER = "candidates' own order"
RATE = 0.05
"""Of AdaGrad, as in production."""

# What a contender learns from.
SAMPLED, THIRTY, SERVED, SHOWN, ALL = "sampled", "thirty", "served", "shown", "all"

CONTENDERS: Mapping[str, tuple[Callable[[], Learner], str]] = {
    "first ranker, fixed": (lambda: Fixed(first_ranker()), SAMPLED),
    REFERENCE: (lambda: Pointwise(first_ranker()), SAMPLED),
    "pairwise": (lambda: Pairwise(first_ranker(), RATE), SAMPLED),
    "listwise": (lambda: Listwise(first_ranker(), RATE), SAMPLED),
    "pointwise, thirty": (lambda: Pointwise(first_ranker()), THIRTY),
    "pairwise, thirty": (lambda: Pairwise(first_ranker(), RATE), THIRTY),
    "listwise, thirty": (lambda: Listwise(first_ranker(), RATE), THIRTY),
    "pointwise, served": (lambda: Pointwise(first_ranker()), SERVED),
    "pairwise, served": (lambda: Pairwise(first_ranker(), RATE), SERVED),
    "listwise, served": (lambda: Listwise(first_ranker(), RATE), SERVED),
    "pairwise, shown": (lambda: Pairwise(first_ranker(), RATE), SHOWN),
    "listwise, all": (lambda: Listwise(first_ranker(), RATE), ALL),
}
"""Name -> how it begins, and what it learns from.

sampled
    The clicked item and four candidates drawn at random: the joiner's organic example.
thirty
    The same with thirty.
served
    As a shop learns that shows the first ten: clicked there, the item and those above it; else the ten as negatives
    (of use to pointwise learning only), and an organic example.
shown
    The clicked item, wherever it stood, and the first ten.
all
    All candidates.
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One contender's figures; rates are fractions of 1, intervals 95 %.

    Attributes
    ----------
    learner, n
        The contender, and how many events were evaluated.
    hr, mrr, hr_gain, mrr_gain
        Hit rate and mean reciprocal rank at 20, each with its interval (value, low, high), and how far they lie above
        those of pointwise learning.
    slots
        Kind of slots -> calibration of the scores as they are and of Platt's step on them.
    """

    learner: str
    n: int
    hr: tuple[float, float, float]
    mrr: tuple[float, float, float]
    hr_gain: tuple[float, float, float]
    mrr_gain: tuple[float, float, float]
    slots: Mapping[str, Mapping[str, float]]


class _Contender:
    """A learner with its record."""

    def __init__(self, learner: Learner, learns_from: str, viewport: int) -> None:
        self._learner = learner
        self._learns_from = learns_from
        self._viewport = viewport
        self.ranks: list[int] = []
        self._platt = {SAMPLED: Platt(), SHOWN: Platt()}
        self._raw = {kind: Calibration() for kind in self._platt}
        self._calibrated = {kind: Calibration() for kind in self._platt}

    def take(self, question: Question, example: FloatMatrix | None, larger: FloatMatrix | None) -> None:
        """Answer, be judged, and learn from the example, or from the larger one."""
        features, hit = question.features, question.candidates.rows == question.target
        scores = self._learner.scores(features)
        self.ranks.append(question.rank(scores))
        shown = np.argsort(-scores, kind="stable")[: self._viewport]
        self._judge(SHOWN, scores[shown], hit[shown].astype(np.float64))
        if example is not None:
            labels = np.zeros(len(example))
            labels[0] = 1.0
            self._judge(SAMPLED, self._learner.scores(example), labels)
        if self._learns_from == SERVED:
            clicked = np.flatnonzero(hit[shown])
            if len(clicked):
                example = features[shown[: clicked[0] + 1]][::-1]
            else:
                self._learner.reject(features[shown])
        elif self._learns_from == THIRTY:
            example = larger
        elif example is not None and self._learns_from != SAMPLED:
            others = shown if self._learns_from == SHOWN else np.arange(len(hit))
            example = features[np.concatenate((np.flatnonzero(hit), others[~hit[others]]))]
        if example is not None:
            self._learner.learn(example)

    def _judge(self, kind: str, scores: Floats, labels: Floats) -> None:
        platt = self._platt[kind]
        self._raw[kind].add(scores, labels)
        self._calibrated[kind].add(platt.log_odds(scores), labels)
        platt.learn(scores, labels)

    def slots(self) -> Mapping[str, Mapping[str, float]]:
        """See ``Row``."""
        return {
            kind: {
                "log_loss": self._raw[kind].log_loss,
                "calibration_error": self._raw[kind].error,
                "bias": self._raw[kind].bias,
                "platt_log_loss": self._calibrated[kind].log_loss,
                "platt_calibration_error": self._calibrated[kind].error,
                "platt_bias": self._calibrated[kind].bias,
            }
            for kind in self._platt
        }


def run(
    events: Iterable[Event], settings: Settings, every: int, warm_up: int, seed: int, step: Callable[[], object]
) -> list[Row]:
    """Go through a stream in order.

    Parameters
    ----------
    every
        Every so-manieth event that has an earlier one in its session is asked for and learned; the features take all.
    warm_up
        As many events at the beginning are learned and not counted.
    step
        Called after each event.
    """
    memory = MemoryFeatures(settings.features, settings.recommender)
    random = np.random.default_rng(seed)
    questioner = Questioner(memory, settings.features, settings.recommender, K, random)
    sessions = Sessions(settings.features.session_gap_ms)
    viewport = settings.recommender.viewport
    contenders = {name: _Contender(make(), learns_from, viewport) for name, (make, learns_from) in CONTENDERS.items()}
    own_ranks: list[int] = []
    eligible = counted_from = 0
    for place, event in enumerate(events):
        if place == warm_up:
            counted_from = len(own_ranks)
        if event.type in ENGAGEMENT_TYPES and sessions.continues(event):
            eligible += 1
            if (eligible + seed) % every == 0:
                memory.ready(memory.users.get(event.user_id))
                question = questioner.before(event)
                own_ranks.append(question.rank(first_scores(question.candidates, memory.table, event.occurred_at_ms)))
                example = question.example(settings.joiner.organic_negatives, random)
                larger = question.example(30, random)
                for contender in contenders.values():
                    contender.take(question, example, larger)
        memory.take(event)
        step()
    reference = contenders[REFERENCE].ranks[counted_from:]
    return [
        _row(OWN_ORDER, own_ranks[counted_from:], reference, {}),
        *(_row(name, one.ranks[counted_from:], reference, one.slots()) for name, one in contenders.items()),
    ]


def _row(name: str, ranks: list[int], reference: list[int], slots: Mapping[str, Mapping[str, float]]) -> Row:
    hits, reciprocal = hits_and_reciprocals(ranks, K)
    reference_hits, reference_reciprocal = hits_and_reciprocals(reference, K)
    return Row(
        learner=name,
        n=len(ranks),
        hr=_mean(hits),
        mrr=_mean(reciprocal),
        hr_gain=_mean(hits - reference_hits),
        mrr_gain=_mean(reciprocal - reference_reciprocal),
        slots=slots,
    )


def hits_and_reciprocals(ranks: Iterable[int], k: int) -> tuple[Floats, Floats]:
    """Of each rank whether it is among the first k, and its reciprocal if so, else 0; float64[n]."""
    numbers = np.fromiter(ranks, dtype=np.float64)
    hit = (numbers != MISS) & (numbers <= k)
    return hit.astype(np.float64), np.divide(1.0, numbers, out=np.zeros_like(numbers), where=hit)


def _mean(values: Floats) -> tuple[float, float, float]:
    low, high = block_bootstrap(values)
    return (float(values.mean()) if len(values) else np.nan), low, high
