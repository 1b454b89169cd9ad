"""From a request to a ranked list: candidates, features, scores, the best k."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from millrace.ranking.candidates import CandidateLimits, CandidateRequest, generate
from millrace.ranking.compute import compute_features
from millrace.ranking.corpus import Corpus
from millrace.ranking.features import FloatMatrix, UserActivity
from millrace.ranking.first_stage import first_scores
from millrace.ranking.model import RankingModel
from millrace.ranking.sources import sources_of
from millrace.v1.impression_pb2 import CandidateSource


@dataclass(frozen=True, slots=True)
class RankedItems:
    """The best items, best first.

    Attributes
    ----------
    item_ids
        At most k of them.
    scores
        float32[len(item_ids)], probabilities of a click; 0 where no model ranked.
    features
        float32[len(item_ids), d], exactly what was scored.
    sources
        For each item, the generators that proposed it.
    candidates
        How many were ranked.
    """

    item_ids: list[str]
    scores: npt.NDArray[np.float32]
    features: FloatMatrix
    sources: list[tuple[CandidateSource.ValueType, ...]]
    candidates: int


def rank(
    corpus: Corpus,
    request: CandidateRequest,
    user: UserActivity,
    model: RankingModel | None,
    now_ms: int,
    limits: CandidateLimits,
    random: np.random.Generator,
) -> RankedItems:
    """The best items for a request as of ``now_ms``; without a model, in the order of the first stage."""
    table = corpus.table
    candidates = generate(corpus, request, limits, random)
    features = compute_features(candidates, table.items, user, now_ms, table.half_lives)
    if model is None:
        scores = np.zeros(len(candidates), dtype=np.float32)
        best = np.argsort(-first_scores(candidates, table, now_ms), kind="stable")[: request.k]
    else:
        scores = model.score(features)
        best = np.argsort(-scores, kind="stable")[: request.k]
    return RankedItems(
        item_ids=[table.id_of(row) for row in candidates.rows[best].tolist()],
        scores=scores[best],
        features=features[best],
        sources=[sources_of(bits) for bits in candidates.sources[best].tolist()],
        candidates=len(candidates),
    )
