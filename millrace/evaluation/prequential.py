"""Test, then learn: one pass over a stream, through the functions that serve and learn in production.

    event ──► boundary reached? learn what waits ──► ask, judge ──► the user's state ──► learn, or wait

What is learned from an event (items' state, the ranker's example with the features as asked) waits for the next
boundary of the lag. The user's own state never waits: a lag delays learning, not what the request says.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from time import thread_time
from typing import Any, TypeAlias

import numpy as np

from millrace.evaluation.ablation import COMPLETE, Ablation
from millrace.evaluation.checkpoint import Checkpoint
from millrace.evaluation.features import MemoryFeatures
from millrace.evaluation.lag import Boundaries, Lag
from millrace.evaluation.negatives import SampledRanks
from millrace.evaluation.protocols import Asked, Protocol
from millrace.evaluation.questions import Questioner
from millrace.evaluation.sessions import Sessions
from millrace.evaluation.stream import Event, EventStream
from millrace.features.segments import segment
from millrace.learning.learner import OnlineRanker
from millrace.learning.state import LearnerState, fresh
from millrace.ranking.features import FloatMatrix, Rows
from millrace.ranking.first import first_ranker
from millrace.settings import Settings

Learned: TypeAlias = tuple[bytes, Mapping[str, Any], list[FloatMatrix]]
"""The learner's state, the generator's, and the examples that wait."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer and what came of it.

    Attributes
    ----------
    place, period
        The event's place in the stream, and its period.
    counted
        Whether it is part of the figures.
    rank
        Rank of the item that came, from 1, behind all that scored the same; ``MISS`` (0) if it was no candidate.
    top
        Rows of the best k, best first.
    ranked, known
        Candidates, and items that the rank is one among: all known at the time, or those drawn.
    segment
        The user's.
    recall, ndcg
        As the protocol judges.
    recommend_us, update_us
        Processor time for the answer; the same to bring the features up to date for it, and to learn from the event.
    """

    place: int
    period: int
    counted: bool
    rank: int
    top: Rows
    ranked: int
    known: int
    segment: str
    recall: float
    ndcg: float
    recommend_us: float
    update_us: float


class Prequential:
    """One pass.

    Parameters
    ----------
    every
        Asked, and learned by the ranker, is every so-manieth event that the protocol asks for; features take all.
    negatives
        If not 0, ranks are those among the item that came and so many others (see ``negatives.py``).
    ablation
        Parts of the recommender that are left out.

    Attributes
    ----------
    memory
        The features.
    place
        Events gone through.
    """

    def __init__(
        self,
        stream: EventStream,
        protocol: Protocol,
        settings: Settings,
        k: int,
        lag: Lag,
        every: int,
        seed: int,
        negatives: int = 0,
        ablation: Ablation = COMPLETE,
    ) -> None:
        self._stream = stream
        self._protocol = protocol
        self._settings = settings
        self._k = k
        self._every = every
        self._seed = seed
        self._random = np.random.default_rng(seed)
        self.memory = MemoryFeatures(settings.features, settings.recommender, stream.labels)
        self._learns = ablation.learns
        self._questioner = Questioner(self.memory, settings.features, settings.recommender, k, self._random, ablation)
        self._sampled = SampledRanks(self.memory, settings, negatives, seed, ablation) if negatives else None
        self._sessions = Sessions(settings.features.session_gap_ms)
        self._boundaries = Boundaries(lag)
        self._ranker = OnlineRanker(fresh(ablation.ranker(first_ranker()), "evaluation", "evaluation", epoch=1))
        self._model = self._ranker.model()
        self.place = 0
        self._eligible = 0
        self._waiting: list[tuple[Event, list[str]]] = []
        self._examples: list[FloatMatrix] = []

    def run(self, start: Checkpoint | None = None) -> Iterator[tuple[Event, Answer | None]]:
        """Go through the stream: each event with its answer, or None where none was asked for.

        ``start``: where an earlier pass was. Up to there nothing is asked again: features follow from the events.
        """
        skip = start.place if start else 0
        starts = self._stream.starts
        for place, event in enumerate(self._stream.events):
            if start is not None and place == skip:
                self._go_on(start)
            self.place = place + 1
            period = bisect_right(starts, place) - 1
            continues = self._sessions.continues(event)
            if self._boundaries.reached(event.occurred_at_ms, period, not continues):
                self._learn()
            asked = self._protocol.asks(place, event, period, continues)
            if asked is not None:
                self._eligible += 1
                if (self._eligible + self._seed) % self._every:
                    asked = None
            if asked is None or place < skip:
                self._take(event, period)
                yield event, None
            else:
                yield event, self._ask(place, event, period, asked)

    def _ask(self, place: int, event: Event, period: int, asked: Asked) -> Answer:
        memory = self.memory
        began = thread_time()
        user = memory.users.get(event.user_id)
        memory.ready(user)
        ready = thread_time()
        question = self._questioner.before(event, asked.without)
        scores = self._model.score(question.features)
        top = question.candidates.rows[np.argsort(-scores, kind="stable")[: self._k]]
        answered = thread_time()
        rank, known = question.rank(scores), len(memory.table)
        if self._sampled is not None:
            rank, known = self._sampled.rank(place, event, asked.without, self._model)
        recall, ndcg = self._protocol.judge(place, rank, [memory.table.id_of(row) for row in top.tolist()], self._k)
        state = user.state() if user else None
        group = segment(state, event.occurred_at_ms, self._settings.features.user_half_life_ms)
        learning = thread_time()
        example = question.example(self._settings.joiner.organic_negatives, self._random)
        if example is not None and self._learns:
            self._examples.append(example)
        self._take(event, period)
        learned = thread_time()
        return Answer(
            place=place,
            period=period,
            counted=asked.counted,
            rank=rank,
            top=top,
            ranked=len(question.candidates),
            known=known,
            segment=group,
            recall=recall,
            ndcg=ndcg,
            recommend_us=(answered - ready) * 1e6,
            update_us=(ready - began + learned - learning) * 1e6,
        )

    def _take(self, event: Event, period: int) -> None:
        """Take an event into its user's state, and into what is to be learned."""
        context = self.memory.meet(event)
        if context is not None:
            self._waiting.append((event, context))
        if not self._boundaries.waits(period):
            self._learn()

    def _learn(self) -> None:
        """Learn everything that waits."""
        for event, context in self._waiting:
            self.memory.learn(event, context)
        self._waiting.clear()
        for example in self._examples:
            self._ranker.learn(example, [True] + [False] * (len(example) - 1))
        if self._examples:
            self._model = self._ranker.model()
        self._examples.clear()

    def learned(self) -> Learned:
        """What cannot be made anew from the events."""
        return self._ranker.state(0, {}, "").to_bytes(), self._random.bit_generator.state, list(self._examples)

    def _go_on(self, at: Checkpoint) -> None:
        self._ranker = OnlineRanker(LearnerState.from_bytes(at.ranker))
        self._model = self._ranker.model()
        self._random.bit_generator.state = at.random
        self._examples = list(at.examples)
