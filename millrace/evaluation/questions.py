"""What would have been answered just before an event: candidates and features, as the recommender makes them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from millrace.evaluation.ablation import COMPLETE, Ablation
from millrace.evaluation.features import MemoryFeatures
from millrace.evaluation.stream import Event
from millrace.outcomes.sampling import sample_example
from millrace.ranking.candidates import CandidateLimits, CandidateRequest, generate
from millrace.ranking.compute import compute_features
from millrace.ranking.corpus import Corpus
from millrace.ranking.features import Candidates, FloatMatrix, UserActivity
from millrace.ranking.first_stage import score_of_places
from millrace.settings import FeatureSettings, RecommenderSettings

MISS = 0
"""Rank of an item that is not in the answer at all; ranks begin at 1."""


@dataclass(frozen=True, slots=True)
class Question:
    """The candidates for a user at a moment, and which of them the user turned to.

    Attributes
    ----------
    candidates
        The n candidates.
    features
        float32[n, d], as served.
    target
        Row of the item of the event; -1 if the table does not know it.
    now_ms
        Event time of the question, Unix ms.
    """

    candidates: Candidates
    features: FloatMatrix
    target: int
    now_ms: int
    _corpus: Corpus = field(repr=False)

    def rank(self, scores: npt.NDArray[np.floating]) -> int:
        """Rank of the target by these scores of the candidates, behind all that score the same; ``MISS``.

        What the first stage left out follows in its order, until the next question is asked.
        """
        found = np.flatnonzero(self.candidates.rows == self.target)
        if len(found):
            return int(np.count_nonzero(scores >= scores[found[0]]))
        pool, table = self._corpus.pool, self._corpus.table
        left = np.flatnonzero(table.servable[pool.rows] & ~np.isin(pool.rows, self.candidates.rows))
        target = np.flatnonzero(pool.rows[left] == self.target)
        if not len(target):
            return MISS
        behind = score_of_places(left, pool, table, self.now_ms)
        return len(self.candidates) + int(np.count_nonzero(behind >= behind[target[0]]))

    def example(self, negatives: int, random: np.random.Generator) -> FloatMatrix | None:
        """Features of an example, the target's first, as the joiner draws it; None if it is no candidate."""
        places = sample_example(self.candidates.rows, self.target, negatives, random)
        return None if places is None else self.features[places]


class Questioner:
    """Asks what the recommender would, with its own functions and limits.

    Parameters
    ----------
    k
        Length of an answer.
    ablation
        What is left out.
    """

    def __init__(
        self,
        memory: MemoryFeatures,
        features: FeatureSettings,
        recommender: RecommenderSettings,
        k: int,
        random: np.random.Generator,
        ablation: Ablation = COMPLETE,
    ) -> None:
        self._memory = memory
        self._k = k
        self._random = random
        self._user_half_life_ms = features.user_half_life_ms
        self._repeats = recommender.repeat_policy == "learned"
        self._ablation = ablation
        self._corpus = ablation.corpus(memory.corpus)
        self._limits = ablation.limits(CandidateLimits.of(recommender))

    def before(self, event: Event, without: Collection[str] = (), among: Sequence[str] = ()) -> Question:
        """The question just before an event: only its user and time are known. Call ``memory.ready`` first.

        Parameters
        ----------
        without
            Items that are no candidates.
        among
            If not empty, only these items are.
        """
        memory, now_ms = self._memory, event.occurred_at_ms
        user = memory.users.get(event.user_id)
        request = CandidateRequest(
            k=self._k,
            user_id=event.user_id,
            recent=user.recent if user else (),
            circumstances=memory.circumstances.get(event.user_id, ()),
            now_ms=now_ms,
            blocked=[*without, *user.disliked] if user else without,
            restricted_to=among,
            repeats=self._repeats,
        )
        table = memory.table
        candidates = self._ablation.candidates(generate(self._corpus, request, self._limits, self._random))
        activity = UserActivity()
        if user is not None:
            activity = UserActivity(user.engagements(now_ms, self._user_half_life_ms), user.last_ms)
        features = compute_features(candidates, table.items, activity, now_ms, table.half_lives)
        target = table.rows.get(event.item_id, -1)
        return Question(candidates, self._ablation.features(features), target, now_ms, self._corpus)
