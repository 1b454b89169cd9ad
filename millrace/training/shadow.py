"""A version in the shadow of the champion: what it predicts for the slots that the champion showed. Pure.

The features of a slot are in the log as they were served, so that the version's probabilities are those that it would
have had, to the bit; the champion's are the scores in the log, of its parameters at that moment. As every version that
serves, the one in the shadow learns from all outcomes, and predicts before it learns.

What is told is prediction: the slots are those that the champion chose, in its order. What the version would have shown
in their place, and whether that had been clicked, was never logged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from millrace.drift.measures import LOSS_LIMIT
from millrace.errors import InvalidField
from millrace.experiments.paired import Paired
from millrace.learning.examples import read_examples
from millrace.ranking.features import FEATURE_NAMES, FEATURE_SCHEMA, FloatMatrix
from millrace.training.measure import PROBABILITY_MIN, STEP, Contender
from millrace.v1.impression_pb2 import AnswerStatus, Fallback
from millrace.v1.outcome_pb2 import ImpressionOrigin, Label, Outcome

Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the comparison says.

    Attributes
    ----------
    better
        True: the version surely saves more than is asked. False: it surely does not. None: nothing is sure yet.
    reason
        For people.
    figures
        The numbers behind it.
    """

    better: bool | None
    reason: str
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An outcome that is not learned yet; ``scores`` are the champion's, None where it does not count."""

    user: str
    rows: FloatMatrix
    labels: Sequence[bool]
    scores: Probabilities | None


class Shadow:
    """Takes outcomes in the order of the log. What it says after them does not depend on how they were fetched.

    Parameters
    ----------
    champion
        Its version.
    new
        The version that is compared; it begins here.
    gain_min
        What it has to save in a slot, nats.

    Attributes
    ----------
    refused
        Outcomes that break a rule, or have other features: nobody learns from them.
    """

    def __init__(self, model_name: str, champion: str, new: Contender, gain_min: float = 0.0) -> None:
        self._model_name, self._champion, self._new, self._gain_min = model_name, champion, new, gain_min
        self._paired = Paired()
        self._waiting: list[_Waiting] = []
        self._rows = 0
        self.refused = 0

    def take(self, outcome: Outcome) -> bool:
        """Take the next outcome; whether there is news."""
        try:
            rows, labels = read_examples(outcome, FEATURE_SCHEMA, len(FEATURE_NAMES))
        except InvalidField:
            self.refused += 1
            return False
        self._waiting.append(_Waiting(outcome.user_id, rows, labels, self._scores(outcome)))
        self._rows += len(rows)
        if self._rows < STEP:
            return False
        self._compare()
        return True

    @property
    def verdict(self) -> Verdict:
        """What is sure by now; looking at it again and again is allowed for."""
        sums, (low, high) = self._paired.sums, self._paired.interval
        better = None
        if self._paired.is_enough and low > self._gain_min:
            better = True
        elif self._paired.is_enough and high < self._gain_min:
            better = False
        said = {True: "better", False: "not better", None: "not sure yet"}[better]
        figures = {
            "gain": sums.effect,
            "low": low,
            "high": high,
            "gain_min": self._gain_min,
            "slots": sums.slots,
            "clicks": sums.clicks,
            "users": float(self._paired.users),
        }
        reason = (
            f"{said}: saves {sums.effect:.5f} nats a slot ({low:.5f} to {high:.5f}, more than {self._gain_min:g} is "
            f"asked for) of what version {self._champion} lost on {sums.slots:,.0f} slots with {sums.clicks:,.0f} "
            f"clicks that it showed to {self._paired.users:,} users"
        )
        return Verdict(better, reason, figures)

    def _scores(self, outcome: Outcome) -> Probabilities | None:
        """The champion's probabilities of the slots that were seen, float64[n]; None if the answer is not its own."""
        shown = outcome.impression
        if not (
            outcome.origin == ImpressionOrigin.IMPRESSION_ORIGIN_SERVED
            and (shown.model_name, shown.model_version) == (self._model_name, self._champion)
            and shown.status == AnswerStatus.ANSWER_STATUS_OK
            and shown.fallback == Fallback.FALLBACK_NONE
            # An arm may rank with other parameters of the same version.
            and not shown.experiment_id
        ):
            return None
        scores = np.array([one.slot.score for one in outcome.slots if one.label != Label.LABEL_UNSEEN], np.float64)
        # NaN fails every comparison.
        return scores if len(scores) and bool(((scores >= 0) & (scores <= 1)).all()) else None

    def _compare(self) -> None:
        """Predict all that waits, then learn it."""
        rows = np.concatenate([one.rows for one in self._waiting])
        clicked = [label for one in self._waiting for label in one.labels]
        losses = _losses(self._new.predict(rows).astype(np.float64), np.array(clicked))
        at = 0
        for one in self._waiting:
            here = slice(at, at + len(one.labels))
            at = here.stop
            if one.scores is not None:
                labels = np.array(one.labels)
                saved = float((_losses(one.scores, labels) - losses[here]).sum())
                self._paired.add(one.user, saved, len(labels), int(labels.sum()))
        self._new.learn(rows, clicked)
        self._waiting, self._rows = [], 0


def _losses(probabilities: Probabilities, clicked: npt.NDArray[np.bool_]) -> Probabilities:
    """Log losses, nats, each cut at ``LOSS_LIMIT``: one slot decides nothing."""
    known = np.clip(probabilities, PROBABILITY_MIN, 1 - PROBABILITY_MIN)
    return np.minimum(-np.log(np.where(clicked, known, 1 - known)), LOSS_LIMIT)
