"""Makes an answer from what is known: which fallback, which items, which impression. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from millrace.features.segments import segment
from millrace.features.user_state import UserState
from millrace.ranking.candidates import CandidateLimits, CandidateRequest
from millrace.ranking.circumstances import circumstances
from millrace.ranking.corpus import Corpus
from millrace.ranking.features import FEATURE_NAMES, FEATURE_SCHEMA, UserActivity
from millrace.ranking.rank import RankedItems, rank
from millrace.settings import RecommenderSettings
from millrace.v1.common_pb2 import Position
from millrace.v1.impression_pb2 import AnswerStatus, Fallback, Impression, Slot
from millrace.v1.recommendation_service_pb2 import (
    RecommendedItem,
    RecommendRequest,
    RecommendResponse,
    RepeatPolicy,
)
from services.recommender.champion import LoadedModel
from services.recommender.experiments import Assigned


@dataclass(frozen=True, slots=True)
class Situation:
    """What the service knew when it answered a request.

    Attributes
    ----------
    user
        The user's state; None if nothing is known of the user, or nothing could be read.
    features_read
        Whether Redis answered.
    items_complete
        Whether the item table has caught up with its topic once.
    champion
        What ranks: the champion, or the user's arm; None without a model.
    topic_id
        The broker's id of the topic ``interactions``; empty while it is not known.
    now_ms
        Serving time, Unix ms: ``as_of_ms`` of the request, else the clock.
    assigned
        The user's arm; None for a user of no experiment.
    """

    user: UserState | None
    features_read: bool
    items_complete: bool
    champion: LoadedModel | None
    topic_id: str
    now_ms: int
    assigned: Assigned | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, and what its impression says besides."""

    response: RecommendResponse
    ranked: RankedItems
    segment: str
    champion: LoadedModel | None
    assigned: Assigned | None
    earlier: int | None
    shuffled: bool


class Answering:
    """Turns requests into answers.

    Parameters
    ----------
    user_half_life_ms
        The half-life that users' counters were decayed with.
    random
        Draws the new items that are explored, and which answers are in random order.
    """

    def __init__(
        self,
        settings: RecommenderSettings,
        user_half_life_ms: int,
        corpus: Corpus,
        interactions_topic: str,
        random: np.random.Generator,
    ) -> None:
        self._settings = settings
        self._user_half_life_ms = user_half_life_ms
        self._corpus = corpus
        self._interactions_topic = interactions_topic
        self._random = random
        self._limits = CandidateLimits.of(settings)

    def answer(self, request: RecommendRequest, request_id: str, situation: Situation) -> Answer:
        """The answer to a valid request (``serve_micros`` is left to the caller, who measures it)."""
        user, champion, now_ms = situation.user, situation.champion, situation.now_ms
        ranked = rank(
            self._corpus,
            self._candidate_request(request, situation),
            self._activity(user, now_ms),
            champion.model if champion else None,
            now_ms,
            self._limits_of(situation.assigned),
            self._random,
        )
        shuffled = self._may_shuffle(request, situation) and self._random.random() < self._settings.shuffled_share
        if shuffled:
            ranked = _reordered(ranked, self._random.permutation(len(ranked.item_ids)))
        response = RecommendResponse(
            request_id=request_id,
            items=[
                RecommendedItem(item_id=item_id, score=score, sources=sources)
                for item_id, score, sources in zip(ranked.item_ids, ranked.scores.tolist(), ranked.sources, strict=True)
            ],
            model_name=self._settings.model_name,
            model_version=champion.version if champion else "",
            feature_schema=FEATURE_SCHEMA,
            known=self._known(user, situation.topic_id),
            status=_status(situation),
            fallback=_fallback(situation),
            served_at_ms=now_ms,
        )
        if situation.assigned is not None:
            response.experiment_id, response.arm = situation.assigned.experiment_id, situation.assigned.arm
        if request.explain:
            response.feature_names.extend(FEATURE_NAMES)
            for item, features in zip(response.items, ranked.features.tolist(), strict=True):
                item.features.extend(features)
        # What could not be read is not known: such answers are in no segment of users.
        named = segment(user, now_ms, self._user_half_life_ms) if situation.features_read else ""
        return Answer(response, ranked, named, champion, situation.assigned, _earlier(situation), shuffled)

    def impression(self, request: RecommendRequest, answer: Answer) -> Impression:
        """What is logged of an answer."""
        response, ranked = answer.response, answer.ranked
        impression = self._impression(request, response.request_id, response.served_at_ms, answer.assigned)
        impression.model_name = response.model_name
        impression.model_version = response.model_version
        impression.feature_schema = response.feature_schema
        impression.serve_micros = response.serve_micros
        impression.status = response.status
        impression.fallback = response.fallback
        impression.segment = answer.segment
        if answer.champion is not None:
            impression.learner_epoch = answer.champion.epoch
            impression.learner_sequence = answer.champion.sequence
        impression.candidates = ranked.candidates
        impression.shuffled = answer.shuffled
        if answer.earlier is not None:
            impression.earlier_activity = answer.earlier
        if response.HasField("known"):
            impression.known.CopyFrom(response.known)
        impression.slots.extend(
            Slot(item_id=item_id, rank=place, score=score, sources=sources, features=features)
            for place, (item_id, score, sources, features) in enumerate(
                zip(ranked.item_ids, ranked.scores.tolist(), ranked.sources, ranked.features.tolist(), strict=True)
            )
        )
        return impression

    def failed_impression(
        self, request: RecommendRequest, request_id: str, now_ms: int, serve_micros: int, assigned: Assigned | None
    ) -> Impression:
        """What is logged of a request that got no answer."""
        impression = self._impression(request, request_id, now_ms, assigned)
        impression.model_name = self._settings.model_name
        impression.status = AnswerStatus.ANSWER_STATUS_FAILED
        impression.fallback = Fallback.FALLBACK_NONE
        impression.serve_micros = serve_micros
        return impression

    def _impression(
        self, request: RecommendRequest, request_id: str, now_ms: int, assigned: Assigned | None
    ) -> Impression:
        return Impression(
            request_id=request_id,
            user_id=request.user_id,
            served_at_ms=now_ms,
            as_of_given=request.HasField("as_of_ms"),
            session_id=request.session_id,
            context=request.context if request.HasField("context") else None,
            experiment_id=assigned.experiment_id if assigned else "",
            arm=assigned.arm if assigned else "",
            propensity=assigned.propensity if assigned else 1.0,
            period=assigned.period if assigned else 0,
            viewport=request.viewport or self._settings.viewport,
        )

    def _may_shuffle(self, request: RecommendRequest, situation: Situation) -> bool:
        """Whether the answer is the champion's own to somebody who looks at it.

        An arm is what its model shows, and in a replay the clicks do not follow from the order.
        """
        return (
            situation.assigned is None
            and not request.HasField("as_of_ms")
            and _status(situation) == AnswerStatus.ANSWER_STATUS_OK
            and _fallback(situation) == Fallback.FALLBACK_NONE
        )

    def _limits_of(self, assigned: Assigned | None) -> CandidateLimits:
        if assigned is None or not assigned.served or not assigned.plan.limits:
            return self._limits
        return replace(self._limits, **assigned.plan.limits)

    def _candidate_request(self, request: RecommendRequest, situation: Situation) -> CandidateRequest:
        user, assigned = situation.user, situation.assigned
        policy, repeats = request.repeat_policy, self._settings.repeat_policy == "learned"
        if assigned is not None and assigned.served and assigned.plan.repeats is not None:
            repeats = assigned.plan.repeats
        return CandidateRequest(
            k=request.k,
            user_id=request.user_id,
            recent=user.recent if user else (),
            circumstances=circumstances(request.context),
            now_ms=situation.now_ms,
            blocked=[*request.exclude_item_ids, *user.disliked] if user else request.exclude_item_ids,
            restricted_to=request.restrict_to_item_ids,
            repeats=(
                repeats
                if policy == RepeatPolicy.REPEAT_POLICY_UNSPECIFIED
                else policy == RepeatPolicy.REPEAT_POLICY_LEARNED
            ),
        )

    def _activity(self, user: UserState | None, now_ms: int) -> UserActivity:
        if user is None:
            return UserActivity()
        return UserActivity(user.engagements(now_ms, self._user_half_life_ms), user.last_seen_ms)

    def _known(self, user: UserState | None, topic_id: str) -> Position | None:
        if user is None:
            return None
        return Position(
            topic=self._interactions_topic,
            topic_id=topic_id,
            partition=user.known.partition,
            offset=user.known.offset,
        )


def _reordered(ranked: RankedItems, order: npt.NDArray[np.int64]) -> RankedItems:
    """The same items in another order: int64[k], the place in which each stood before."""
    places = order.tolist()
    return replace(
        ranked,
        item_ids=[ranked.item_ids[place] for place in places],
        scores=ranked.scores[order],
        features=ranked.features[order],
        sources=[ranked.sources[place] for place in places],
    )


def _status(situation: Situation) -> AnswerStatus.ValueType:
    if situation.features_read and situation.items_complete and situation.champion is not None:
        return AnswerStatus.ANSWER_STATUS_OK
    return AnswerStatus.ANSWER_STATUS_DEGRADED


def _earlier(situation: Situation) -> int | None:
    """Engagements of the user before the experiment started, if it asks for them and they are known."""
    assigned = situation.assigned
    if assigned is None or not assigned.earlier_than_ms or not situation.features_read:
        return None
    return situation.user.engagements_before(assigned.earlier_than_ms) if situation.user is not None else 0


def _fallback(situation: Situation) -> Fallback.ValueType:
    """The reason that weighs most: an arm that is not served is counted, whatever else is missing; without features
    nothing is the user's own, with or without a model.
    """
    if situation.assigned is not None and not situation.assigned.served:
        return Fallback.FALLBACK_ARM_UNAVAILABLE
    if not situation.features_read:
        return Fallback.FALLBACK_FEATURES_UNAVAILABLE
    if situation.user is None:
        return Fallback.FALLBACK_UNKNOWN_USER
    if situation.champion is None:
        return Fallback.FALLBACK_NO_MODEL
    return Fallback.FALLBACK_NONE
