"""A recommender with its joiner: what ``millrace.evaluation.late`` does, for several versions and experiments."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from millrace.evaluation.features import MemoryFeatures
from millrace.experiments.assignment import Span, assign, takes_part
from millrace.experiments.definition import shares
from millrace.features.segments import segment
from millrace.learning.examples import read_examples
from millrace.learning.learner import OnlineRanker
from millrace.learning.state import LearnerState
from millrace.outcomes.joiner import JoinerLimits, PartitionJoiner
from millrace.ranking.candidates import CandidateLimits, CandidateRequest
from millrace.ranking.features import FEATURE_NAMES, FEATURE_SCHEMA, UserActivity
from millrace.ranking.model import RankingModel
from millrace.ranking.rank import rank
from millrace.settings import Settings
from millrace.v1.common_pb2 import Position
from millrace.v1.experiment_pb2 import Experiment
from millrace.v1.impression_pb2 import AnswerStatus, Fallback, Impression, Slot
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.outcome_pb2 import Outcome


class Serving:
    """Answers with the champion, or with the version of the user's arm.

    Parameters
    ----------
    items_max
        Most items that are ever on sale.
    learns
        Whether every served version learns from all outcomes; else each stays what it was made.

    Attributes
    ----------
    memory
        The features that answers are made of.
    champion
        The version that serves whoever is in no arm of another one.
    experiment
        The one that runs; None without.
    outcomes
        What the joiner decided since somebody last emptied the list; learned already.
    """

    def __init__(self, settings: Settings, items_max: int, random: np.random.Generator, learns: bool) -> None:
        recommender = settings.recommender.model_copy(update={"mirror_items_max": items_max})
        self.memory = MemoryFeatures(settings.features, recommender)
        self.learns = learns
        self.champion = ""
        self.experiment: Experiment | None = None
        self.outcomes: list[Outcome] = []
        self._random = random
        self._user_half_life_ms = settings.features.user_half_life_ms
        self._model_name = settings.recommender.model_name
        self._repeats = settings.recommender.repeat_policy == "learned"
        self._limits = CandidateLimits.of(settings.recommender)
        joiner = settings.joiner
        self._joiner = PartitionJoiner(
            JoinerLimits(joiner.attribution_window_ms, joiner.grace_ms, joiner.dedup_window, joiner.open_max)
        )
        self._lines: dict[str, OnlineRanker] = {}
        self._models: dict[str, RankingModel] = {}
        self._offset = 0

    def serve(self, version: str, state: LearnerState) -> None:
        """Have a version served from now on, wherever it is the champion or an arm."""
        self._lines[version] = OnlineRanker(state)
        self._models[version] = self._lines[version].model()

    def state(self, version: str) -> LearnerState:
        """A served version as it is now."""
        return self._lines[version].state(0, {}, "")

    def keep(self, versions: Sequence[str]) -> None:
        """Forget all versions but these."""
        for version in self._lines.keys() - set(versions):
            del self._lines[version], self._models[version]

    def recommend(self, user_id: str, k: int, request_id: str, session_id: str, now_ms: int) -> list[str]:
        """The best items for a user, best first."""
        memory = self.memory
        user = memory.users.get(user_id)
        memory.ready(user)
        impression = Impression(
            request_id=request_id,
            user_id=user_id,
            served_at_ms=now_ms,
            session_id=session_id,
            propensity=1.0,
            model_name=self._model_name,
            feature_schema=FEATURE_SCHEMA,
            status=AnswerStatus.ANSWER_STATUS_OK,
            fallback=Fallback.FALLBACK_NONE,
            viewport=k,
            segment=segment(user.state() if user else None, now_ms, self._user_half_life_ms),
        )
        impression.model_version = self._assign(user_id, impression)
        request = CandidateRequest(
            k=k,
            user_id=user_id,
            recent=user.recent if user else (),
            circumstances=memory.circumstances.get(user_id, ()),
            now_ms=now_ms,
            blocked=user.disliked if user else (),
            repeats=self._repeats,
        )
        activity = UserActivity()
        if user is not None:
            activity = UserActivity(user.engagements(now_ms, self._user_half_life_ms), user.last_ms)
        model = self._models[impression.model_version]
        ranked = rank(memory.corpus, request, activity, model, now_ms, self._limits, self._random)
        impression.candidates = ranked.candidates
        impression.slots.extend(
            Slot(item_id=item_id, rank=place, score=score, features=features)
            for place, (item_id, score, features) in enumerate(
                zip(ranked.item_ids, ranked.scores.tolist(), ranked.features.tolist(), strict=True)
            )
        )
        self._joiner.impression(impression, Position(partition=0, offset=self._next()), now_ms)
        self._decided()
        return ranked.item_ids

    def take(self, event: Interaction, now_ms: int) -> None:
        """Something happened; the log has it as of ``now_ms``."""
        self._joiner.interaction(event, self._next(), now_ms)
        self._decided()
        self.memory.take(event)

    def _assign(self, user_id: str, impression: Impression) -> str:
        """The version that ranks for the user; the arm goes into the impression."""
        record = self.experiment
        if record is None:
            return self.champion
        given = record.definition
        if not takes_part(user_id, given.layer, Span(record.layer_start, given.traffic)):
            return self.champion
        drawn = assign(given.salt, user_id, shares(given))
        impression.experiment_id, impression.arm = given.experiment_id, drawn.arm
        impression.propensity = drawn.propensity
        return next(arm.model_version for arm in given.arms if arm.name == drawn.arm) or self.champion

    def _next(self) -> int:
        self._offset += 1
        return self._offset

    def _decided(self) -> None:
        """Take over what the joiner decided, and learn it."""
        joiner = self._joiner
        joiner.organic.clear()
        if not joiner.outcomes:
            return
        self.outcomes += joiner.outcomes
        if self.learns:
            for outcome in joiner.outcomes:
                rows, labels = read_examples(outcome, FEATURE_SCHEMA, len(FEATURE_NAMES))
                for line in self._lines.values():
                    line.learn(rows, labels)
            self._models = {version: line.model() for version, line in self._lines.items()}
        joiner.outcomes.clear()
