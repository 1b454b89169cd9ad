"""A recommender whose features and parameters reach serving late: at once, or at the boundaries of a rhythm.

    answer asked ──► boundary reached? learn what waits ──► candidates, features, scores ──► impression ──► joiner
    event        ──► boundary reached? learn what waits ──► joiner ──► outcomes ─┐
                                                      └────────────────────────►─┴──► learn, or wait

Every step is production's function; a lag only moves the moment at which it happens. What a shop has on sale is known
at once at any lag: also a nightly recommender does not offer what is gone.
"""

from __future__ import annotations

import numpy as np

from millrace.evaluation.features import MemoryFeatures
from millrace.evaluation.lag import Boundaries, Lag
from millrace.learning.examples import read_examples
from millrace.learning.learner import OnlineRanker
from millrace.learning.state import fresh
from millrace.outcomes.joiner import JoinerLimits, PartitionJoiner
from millrace.ranking.candidates import CandidateLimits, CandidateRequest
from millrace.ranking.features import FEATURE_NAMES, FEATURE_SCHEMA, UserActivity
from millrace.ranking.first import first_ranker
from millrace.ranking.rank import RankedItems, rank
from millrace.settings import Settings
from millrace.v1.common_pb2 import Position
from millrace.v1.impression_pb2 import AnswerStatus, Fallback, Impression, Slot
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.outcome_pb2 import Outcome

_PERIOD = 0


class LateRecommender:
    """Answers from what was known at the last boundary, and learns from what became of the answers.

    Parameters
    ----------
    lag
        How late everything is known. Boundaries are UTC's.
    knows_user
        Whether a user's own events are known at once all the same, as where the request tells them.
    items_max
        Most items that are ever on sale.

    Attributes
    ----------
    memory
        The features that answers are made of.
    examples
        Slots learned.
    """

    def __init__(
        self, settings: Settings, lag: Lag, items_max: int, random: np.random.Generator, knows_user: bool = False
    ) -> None:
        recommender = settings.recommender.model_copy(update={"mirror_items_max": items_max})
        self.memory = MemoryFeatures(settings.features, recommender)
        self.examples = 0
        self._waits = Boundaries(lag).waits(_PERIOD)
        self._knows_user = knows_user
        self._boundaries = Boundaries(lag)
        self._random = random
        self._user_half_life_ms = settings.features.user_half_life_ms
        self._model_name = settings.recommender.model_name
        self._repeats = settings.recommender.repeat_policy == "learned"
        self._limits = CandidateLimits.of(settings.recommender)
        joiner = settings.joiner
        self._joiner = PartitionJoiner(
            JoinerLimits(joiner.attribution_window_ms, joiner.grace_ms, joiner.dedup_window, joiner.open_max)
        )
        self._ranker = OnlineRanker(fresh(first_ranker(), "simulation", "simulation", epoch=1))
        self._model = self._ranker.model()
        self._offset = 0
        # Events whose user's state is not told yet, and those whose items' state is not: with their context.
        self._events: list[Interaction] = []
        self._met: list[tuple[Interaction, list[str]]] = []
        self._outcomes: list[Outcome] = []

    def recommend(self, user_id: str, k: int, request_id: str, session_id: str, now_ms: int) -> list[str]:
        """The best items for a user, best first, as of the last boundary."""
        self._reach(now_ms)
        memory = self.memory
        user = memory.users.get(user_id)
        memory.ready(user)
        request = CandidateRequest(
            k=k,
            user_id=user_id,
            recent=user.recent if user else (),
            now_ms=now_ms,
            blocked=user.disliked if user else (),
            repeats=self._repeats,
        )
        activity = UserActivity()
        if user is not None:
            activity = UserActivity(user.engagements(now_ms, self._user_half_life_ms), user.last_ms)
        ranked = rank(memory.corpus, request, activity, self._model, now_ms, self._limits, self._random)
        impression = _impression(ranked, request_id, user_id, session_id, now_ms)
        impression.model_name = self._model_name
        self._joiner.impression(impression, self._next(), now_ms)
        self._decided()
        return ranked.item_ids

    def take(self, event: Interaction, now_ms: int) -> None:
        """Something happened; the log has it as of ``now_ms``.

        Raises
        ------
        InvalidField
            It names an answer that did not show the item, or was another user's.
        """
        self._reach(now_ms)
        self._joiner.interaction(event, self._next().offset, now_ms)
        self._decided()
        if not self._waits:
            self.memory.take(event)
        elif self._knows_user:
            context = self.memory.meet(event)
            if context is not None:
                self._met.append((event, context))
        else:
            self._events.append(event)

    def _reach(self, now_ms: int) -> None:
        """Learn what waits, if a boundary lies behind."""
        if self._boundaries.reached(now_ms, _PERIOD, new_session=False):
            for event in self._events:
                self.memory.take(event)
            for event, context in self._met:
                self.memory.learn(event, context)
            self._events.clear()
            self._met.clear()
            self._learn()

    def _next(self) -> Position:
        self._offset += 1
        return Position(partition=0, offset=self._offset)

    def _decided(self) -> None:
        """Take over what the joiner decided."""
        joiner = self._joiner
        self._outcomes += joiner.outcomes
        joiner.outcomes.clear()
        # Organic clicks become features only; production also makes an example of every tenth.
        joiner.organic.clear()
        if not self._waits:
            self._learn()

    def _learn(self) -> None:
        for outcome in self._outcomes:
            rows, labels = read_examples(outcome, FEATURE_SCHEMA, len(FEATURE_NAMES))
            self._ranker.learn(rows, labels)
            self.examples += len(labels)
        if self._outcomes:
            self._model = self._ranker.model()
            self._outcomes.clear()


def _impression(ranked: RankedItems, request_id: str, user_id: str, session_id: str, now_ms: int) -> Impression:
    impression = Impression(
        request_id=request_id,
        user_id=user_id,
        served_at_ms=now_ms,
        session_id=session_id,
        propensity=1.0,
        feature_schema=FEATURE_SCHEMA,
        status=AnswerStatus.ANSWER_STATUS_OK,
        fallback=Fallback.FALLBACK_NONE,
        viewport=len(ranked.item_ids),
        candidates=ranked.candidates,
    )
    impression.slots.extend(
        Slot(item_id=item_id, rank=place, score=score, sources=sources, features=features)
        for place, (item_id, score, sources, features) in enumerate(
            zip(ranked.item_ids, ranked.scores.tolist(), ranked.sources, ranked.features.tolist(), strict=True)
        )
    )
    return impression
