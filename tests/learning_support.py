"""Outcomes of a made-up world in which a known linear model says what is clicked, and a line that learns them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from millrace.learning.examples import read_examples
from millrace.learning.learner import OnlineRanker
from millrace.learning.parameters import changed, to_vector
from millrace.learning.state import fresh
from millrace.learning.updates import snapshot_records
from millrace.ranking.features import FEATURE_NAMES, FEATURE_SCHEMA
from millrace.ranking.first import first_ranker
from millrace.ranking.model import Vector
from millrace.v1.common_pb2 import Position
from millrace.v1.impression_pb2 import AnswerStatus, Fallback, Impression, Slot
from millrace.v1.model_pb2 import ModelUpdate, ParameterUpdate
from millrace.v1.outcome_pb2 import DecidedSlot, ImpressionOrigin, Label, Outcome

D = len(FEATURE_NAMES)


def truth(seed: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Weights of the world."""
    return np.random.default_rng(seed).normal(0, 0.7, D)


def outcomes(count: int, seed: int = 1, users: int = 50, slots: int = 5) -> Iterator[Outcome]:
    """Outcomes whose labels follow the world's weights."""
    random, weights = np.random.default_rng(seed), truth(7)
    for number in range(count):
        features = random.normal(0, 1, (slots, D)).astype(np.float32)
        clicked = random.random(slots) < 1 / (1 + np.exp(-(features @ weights)))
        yield Outcome(
            request_id=f"r{seed}-{number}",
            user_id=f"user {random.integers(users)}",
            origin=ImpressionOrigin.IMPRESSION_ORIGIN_SERVED,
            decided_at_ms=1_700_000_000_000 + number,
            first=True,
            final=True,
            impression=Impression(request_id=f"r{seed}-{number}", feature_schema=FEATURE_SCHEMA, model_name="ranker"),
            slots=[
                DecidedSlot(
                    slot=Slot(item_id=f"item-{place}", rank=place, features=row),
                    label=Label.LABEL_POSITIVE if positive else Label.LABEL_NEGATIVE,
                )
                for place, (row, positive) in enumerate(zip(features.tolist(), clicked.tolist(), strict=True))
            ],
        )


def served(
    count: int, away: float, users: int = 400, seed: int = 1, version: str = "1", model: str = "ranker"
) -> Iterator[Outcome]:
    """Outcomes of answers of a version whose scores are ``away`` from the truth, in log-odds."""
    weights = truth(7)
    for outcome in outcomes(count, seed, users):
        shown = outcome.impression
        shown.model_name, shown.model_version = model, version
        shown.status, shown.fallback = AnswerStatus.ANSWER_STATUS_OK, Fallback.FALLBACK_NONE
        for decided in outcome.slots:
            odds = float(np.dot(np.array(decided.slot.features), weights)) + away
            decided.slot.score = 1 / (1 + np.exp(-odds))
        yield outcome


class PublishedLine:
    """What a learner publishes that learns outcomes of one partition, a few at a time, from offset 0."""

    def __init__(
        self, made: Sequence[Outcome], topic_id: str, created_at_ms: int, epoch: int = 1, partition: int = 0
    ) -> None:
        self._made, self._topic_id, self._created_at_ms, self._partition = made, topic_id, created_at_ms, partition
        self._ranker = OnlineRanker(fresh(first_ranker(), "1", "reign", epoch))
        self._next = 0
        self._state = self._ranker.state(0, {partition: 0}, topic_id)

    def snapshot(self) -> ModelUpdate:
        """Everything, as it is now."""
        [record] = snapshot_records("ranker", self._state, self._created_at_ms)
        return record

    def learn(self, count: int) -> ModelUpdate:
        """The update after the next outcomes."""
        before = self._state
        for outcome in self._made[self._next : self._next + count]:
            self._ranker.learn(*read_examples(outcome, FEATURE_SCHEMA, D))
        self._next += count
        self._state = self._ranker.state(before.sequence + 1, {self._partition: self._next}, self._topic_id)
        learned = Position(topic="outcomes", topic_id=self._topic_id, partition=self._partition, offset=self._next - 1)
        return ModelUpdate(
            update=ParameterUpdate(
                model_name="ranker",
                model_version="1",
                reign_id="reign",
                epoch=before.epoch,
                sequence=self._state.sequence,
                parameters=changed(to_vector(before.model), to_vector(self._state.model)),
                learned=[learned],
                examples=self._state.examples,
                created_at_ms=self._created_at_ms,
            )
        )

    @property
    def vector(self) -> Vector:
        """The parameters."""
        return to_vector(self._state.model)
