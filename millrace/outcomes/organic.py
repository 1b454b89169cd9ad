"""Examples from clicks without an answer behind them: what would have been candidates just before the click.

The implicit impression has the clicked item as its positive and some of the other candidates as negatives, with the
features that serving would have computed. Which clicks become examples depends on their ids only, so that the same
click never gives two; what the features are depends on the item states and the user's state that are there when it is
made, and is not repeated exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b

import numpy as np

from millrace.features.event_intake import EventIntake
from millrace.features.store import FeatureStore
from millrace.features.user_state import USER_FIELDS, UserState, decode_user, user_key
from millrace.outcomes.sampling import sample_example
from millrace.ranking.candidates import CandidateLimits, CandidateRequest, generate
from millrace.ranking.circumstances import circumstances
from millrace.ranking.compute import compute_features
from millrace.ranking.corpus import Corpus
from millrace.ranking.features import FEATURE_SCHEMA, UserActivity
from millrace.ranking.sources import sources_of
from millrace.settings import FeatureSettings, JoinerSettings, RecommenderSettings
from millrace.v1.impression_pb2 import AnswerStatus, Fallback, Impression, Slot
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.item_pb2 import ItemState
from millrace.v1.outcome_pb2 import ImpressionOrigin, Label, Outcome

_LABELS = (Label.LABEL_POSITIVE, Label.LABEL_NEGATIVE)


class OrganicExamples:
    """Makes outcomes of organic clicks from a mirror of the items and the users' keys in Redis."""

    def __init__(
        self, store: FeatureStore, joiner: JoinerSettings, features: FeatureSettings, recommender: RecommenderSettings
    ) -> None:
        self._store = store
        self._negatives = joiner.organic_negatives
        # Of 2^64 hashes, those below are taken.
        self._below = round(joiner.organic_rate * 2.0**64)
        self._user_half_life_ms = features.user_half_life_ms
        self._model_name = recommender.model_name
        self.corpus = Corpus.empty(features, recommender)
        self.table = self.corpus.table
        self._intake = EventIntake(self.corpus)
        self._limits = CandidateLimits.of(recommender)

    def apply(self, item_id: str, state: ItemState | None, appended_ms: int) -> None:
        """Take a record of ``item-state``."""
        if state is None:
            self.table.drop(item_id)
        else:
            self.table.apply(state, appended_ms)

    def take(self, event: Interaction) -> None:
        """Take a record of ``interactions``."""
        self._intake.take(event)

    def refresh(self) -> None:
        """Bring the lists of popular items up to date with the states taken."""
        self.corpus.popular.refresh()

    def sampled(self, event: Interaction) -> bool:
        """Whether this click becomes an example."""
        return _number(event) < self._below

    def outcomes(self, events: Sequence[tuple[Interaction, int]]) -> Iterator[Outcome]:
        """Outcomes of sampled clicks, each with its offset in ``interactions``; none for items never candidates.

        Raises
        ------
        InfrastructureError
            Redis does not answer.
        """
        replies = self._store.ask_all(("HMGET", user_key(event.user_id), *USER_FIELDS) for event, _ in events)
        for (event, offset), values in zip(events, replies, strict=True):
            outcome = self._outcome(event, offset, decode_user(values))
            if outcome is not None:
                yield outcome

    def _outcome(self, event: Interaction, offset: int, user: UserState | None) -> Outcome | None:
        random = np.random.default_rng(_number(event))
        before = [] if user is None else [one for one in user.recent if one.offset < offset]
        now_ms = event.occurred_at_ms
        request = CandidateRequest(
            k=1,
            user_id=event.user_id,
            recent=before,
            circumstances=circumstances(event.context),
            now_ms=now_ms,
            blocked=user.disliked if user else (),
        )
        # The user's own sessions are left out anyway; of what everybody turned to, the click itself must be.
        with self._intake.without(event):
            candidates = generate(self.corpus, request, self._limits, random)
        places = sample_example(candidates.rows, self.table.rows.get(event.item_id, -1), self._negatives, random)
        if places is None:
            return None
        chosen = candidates.take(places)
        features = compute_features(
            chosen,
            self.table.items,
            self._activity(user, before, now_ms),
            now_ms,
            self.table.half_lives,
        )
        outcome = Outcome(
            request_id=f"organic {event.event_id}",
            user_id=event.user_id,
            origin=ImpressionOrigin.IMPRESSION_ORIGIN_ORGANIC,
            decided_at_ms=now_ms,
            final=True,
            first=True,
            impression=self._impression(event, len(chosen), len(candidates)),
        )
        rows = zip(chosen.rows.tolist(), chosen.sources.tolist(), features.tolist(), strict=True)
        for place, (row, bits, values) in enumerate(rows):
            slot = Slot(item_id=self.table.id_of(row), rank=place, sources=sources_of(bits), features=values)
            outcome.slots.add(slot=slot, label=_LABELS[place > 0])
        positive = outcome.slots[0]
        positive.interaction_type = event.type
        positive.interaction_at_ms = event.occurred_at_ms
        positive.event_id = event.event_id
        return outcome

    def _activity(self, user: UserState | None, before: Sequence[object], now_ms: int) -> UserActivity:
        """The user's activity without the click itself and what came after it."""
        if user is None or not before:
            return UserActivity()
        later = len(user.recent) - len(before)
        engagements = max(0.0, user.engagements(now_ms, self._user_half_life_ms) - later)
        last_seen_ms = max(one.at_ms for one in user.recent[later:]) if later else user.last_seen_ms
        return UserActivity(engagements, last_seen_ms)

    def _impression(self, event: Interaction, shown: int, candidates: int) -> Impression:
        return Impression(
            request_id=f"organic {event.event_id}",
            user_id=event.user_id,
            served_at_ms=event.occurred_at_ms,
            session_id=event.session_id,
            context=event.context if event.HasField("context") else None,
            propensity=1.0,
            model_name=self._model_name,
            feature_schema=FEATURE_SCHEMA,
            status=AnswerStatus.ANSWER_STATUS_OK,
            fallback=Fallback.FALLBACK_NONE,
            viewport=shown,
            candidates=candidates,
        )


def _number(event: Interaction) -> int:
    """64 bits of a click's ids, the same in every process and after every restart."""
    digest = blake2b(f"{event.user_id}\0{event.event_id}".encode(), digest_size=8, person=b"organic").digest()
    return int.from_bytes(digest, "little")
