"""The recommender without some of its parts, to see what each adds. Production knows nothing of it.

A part that is left out proposes no candidates. Its features are 0, and so are their mean and variance in the first
ranker: a feature that does not vary does not count, and learning never changes that. Terms made of them are left out.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np

from millrace.evaluation.parts import LEARNING, PARTS, POPULARITY, REPEATS, Part
from millrace.ranking.candidates import CandidateLimits
from millrace.ranking.corpus import Corpus
from millrace.ranking.features import FEATURE_NAMES, Candidates, FloatMatrix
from millrace.ranking.model import RankingModel
from millrace.ranking.popular import PopularItems
from millrace.ranking.sources import REPEAT


class Ablation:
    """Leaves parts out of candidates, features and the first ranker.

    Parameters
    ----------
    without
        Names of the parts; KeyError for one that is not in ``PARTS``.

    Attributes
    ----------
    learns
        Whether the ranker learns.
    """

    def __init__(self, without: Collection[str] = ()) -> None:
        parts = [PARTS[name] for name in without]
        self.learns = LEARNING not in without
        self._trends = POPULARITY not in without
        self._repeats = REPEATS not in without
        self._limits = {limit: 0 for part in parts for limit in part.limits}
        self._left_out = {name for part in parts for name in columns_of(part)}
        self._columns = np.flatnonzero([name in self._left_out for name in FEATURE_NAMES])

    def limits(self, limits: CandidateLimits) -> CandidateLimits:
        """The limits of generators, 0 for those that are left out."""
        return replace(limits, **self._limits)

    def corpus(self, corpus: Corpus) -> Corpus:
        """What candidates are drawn from."""
        if self._trends:
            return corpus
        # Trending fills short answers up whatever its limit: here there is nothing to fill them with. Nor are there
        # new items, which only a catalogue tells of and recorded events do not.
        return replace(corpus, popular=PopularItems(corpus.table))

    def candidates(self, candidates: Candidates) -> Candidates:
        """Those that are left; ``candidates_max`` has been applied by then."""
        if self._repeats:
            return candidates
        # No limit holds back the user's own items. What others propose as well stays.
        return candidates.take(np.flatnonzero(candidates.sources != REPEAT))

    def features(self, features: FloatMatrix) -> FloatMatrix:
        """float32[n, d], changed in place: 0 in the columns that are left out."""
        features[:, self._columns] = 0.0
        return features

    def ranker(self, first: RankingModel) -> RankingModel:
        """A first ranker for which the columns that are left out do not count."""
        terms = [self._left_out.isdisjoint(term.features) for term in first.terms]
        kept = np.concatenate((np.ones(len(first.feature_names), dtype=np.bool_), np.array(terms, dtype=np.bool_)))
        vectors = {name: getattr(first, name)[kept] for name in ("means", "variances", "weights")}
        for vector in vectors.values():
            vector[self._columns] = 0.0
        return replace(
            first, terms=tuple(term for term, stays in zip(first.terms, terms, strict=True) if stays), **vectors
        )


COMPLETE = Ablation()
"""Leaves nothing out."""


def columns_of(part: Part) -> list[str]:
    """The names of a part's features."""
    return [name for name in FEATURE_NAMES if any(fnmatchcase(name, pattern) for pattern in part.columns)]
