"""Answers in random order, from the log of outcomes: what any order of the same items would have earned is in them.

The recommender shows a small share of its answers in uniformly random order (L. Li et al., "Unbiased offline evaluation
of contextual-bandit-based news article recommendation algorithms", WSDM 2011). Each of the k items was as likely to
stand in each place, so that the propensity of what stands anywhere is 1/k, whatever users look at first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from millrace.ranking.features import FEATURE_NAMES, FEATURE_SCHEMA, FloatMatrix
from millrace.v1.outcome_pb2 import DecidedSlot, ImpressionOrigin, Label, Outcome

SLOTS_MAX = 400_000
"""Most slots in memory, the newest: 60 MB of features."""
OPEN_MAX = 10_000
"""Most answers of which only a part was read. They wait for the rest for half an hour of the log, and a hundredth of
all answers is in random order: 500 answers a second."""


@dataclass(frozen=True, slots=True)
class ShuffledAnswer:
    """An answer in random order of k items, which stand here in the order of their ids: that says nothing of places.

    Attributes
    ----------
    user_id
        Who got it.
    places
        int64[k], where each item stood, from 0.
    clicked
        bool[k], whether the user engaged with it.
    scores
        float32[k], of the model that answered.
    features
        float32[k, d], as served.
    """

    user_id: str
    places: npt.NDArray[np.int64]
    clicked: npt.NDArray[np.bool_]
    scores: npt.NDArray[np.float32]
    features: FloatMatrix


class ShuffledAnswers:
    """The answers in random order that one version has given, as far as everything in them is decided.

    Attributes
    ----------
    answers
        The newest ones.
    others
        Answers in random order that do not count: of other versions, or with features of another schema.
    """

    def __init__(self, model_name: str, version: str, slots_max: int = SLOTS_MAX) -> None:
        self.answers: deque[ShuffledAnswer] = deque()
        self.others = 0
        self._model_name, self._version, self._slots_max = model_name, version, slots_max
        self._slots = 0
        self._open: dict[str, list[DecidedSlot]] = {}

    def take(self, outcome: Outcome) -> None:
        """Take the next outcome of the log; those of one partition in order."""
        shown = outcome.impression
        if (
            not shown.shuffled
            or shown.model_name != self._model_name
            or outcome.origin != ImpressionOrigin.IMPRESSION_ORIGIN_SERVED
        ):
            return
        if shown.model_version != self._version or shown.feature_schema != FEATURE_SCHEMA:
            self.others += outcome.first
            return
        if outcome.first:
            self._open[outcome.request_id] = []
            if len(self._open) > OPEN_MAX:
                del self._open[next(iter(self._open))]
        slots = self._open.get(outcome.request_id)
        if slots is None:
            # It began before what is read.
            return
        slots.extend(outcome.slots)
        if outcome.final:
            del self._open[outcome.request_id]
            self._add(outcome.user_id, slots)

    def _add(self, user_id: str, slots: Iterable[DecidedSlot]) -> None:
        ordered = sorted(slots, key=lambda one: one.slot.item_id)
        k = len(ordered)
        places = np.array([one.slot.rank for one in ordered], dtype=np.int64)
        # What is no order of k items with our features cannot be weighed.
        if not np.array_equal(np.sort(places), np.arange(k)):
            return
        if any(len(one.slot.features) != len(FEATURE_NAMES) for one in ordered):
            return
        self.answers.append(
            ShuffledAnswer(
                user_id,
                places,
                np.array([one.label == Label.LABEL_POSITIVE for one in ordered]),
                np.array([one.slot.score for one in ordered], dtype=np.float32),
                np.array([one.slot.features for one in ordered], dtype=np.float32),
            )
        )
        self._slots += k
        while self._slots > self._slots_max:
            self._slots -= len(self.answers.popleft().places)
