"""Goes through the newest part of a window with several models, each predicting before it learns, and compares them.

All meet the same slots, and each learns all of them, as every served model does. Predictions are those of the
parameters as they were before the last few slots, as in serving. What is kept is sums: by block of time, which is what
confidence bounds need (``millrace.evaluation.intervals``), by segment, by predicted probability, and by hour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from millrace.drift.block import Block
from millrace.drift.measures import CALIBRATION, LOG_LOSS, LOSS_LIMIT
from millrace.evaluation.intervals import BLOCKS_MAX, of_ratio
from millrace.features.segments import SEGMENTS
from millrace.learning.learner import OnlineRanker
from millrace.ranking.features import FloatMatrix, Floats
from millrace.settings import HOUR_MS
from millrace.training.slots import ALWAYS, CLICKED, NO_SEGMENT, SlotFile, examples

STEP = 200
"""Slots between two states of the parameters that predict: about what a learner at a thousand slots a second holds back
(``ONLINE_LEARNING_INTERVAL_MS``)."""
BINS = 20
"""Of predicted probabilities: as many slots as any other in each would need a second pass, so they are equally wide in
log-odds."""
ODDS = np.linspace(-6.0, 3.0, BINS - 1)
"""Their borders: .0025 to .95."""
PROBABILITY_MIN = 1e-7
"""Rounding makes some probabilities 0 or 1, which have no logarithm."""

ALL = "all"
"""Name of the group of all slots. The others: segments, and ``ORGANIC``."""
ORGANIC = "organic"
GROUPS = (ALL, *SEGMENTS, ORGANIC)


class Contender(Protocol):
    """Predicts, and learns."""

    def predict(self, features: FloatMatrix) -> npt.NDArray[np.float32]:
        """Probabilities of a click, float32[n], of float32[n, d]."""
        ...

    def learn(self, features: FloatMatrix, labels: Sequence[bool]) -> None:
        """Learn the slots."""
        ...


class Line:
    """A line of learning.

    Parameters
    ----------
    columns
        The features that it sees; None: all. The others are 0 to it, which says nothing.
    """

    def __init__(self, ranker: OnlineRanker, columns: Sequence[int] | None = None) -> None:
        self.ranker = ranker
        self._columns = columns

    def predict(self, features: FloatMatrix) -> npt.NDArray[np.float32]:
        """See ``Contender``."""
        return self.ranker.model().score(self._seen(features))

    def learn(self, features: FloatMatrix, labels: Sequence[bool]) -> None:
        """See ``Contender``."""
        self.ranker.learn(self._seen(features), labels)

    def _seen(self, features: FloatMatrix) -> FloatMatrix:
        if self._columns is None:
            return features
        seen = np.zeros_like(features)
        seen[:, self._columns] = features[:, self._columns]
        return seen


@dataclass(frozen=True, slots=True)
class Calibration:
    """Sums by predicted probability, each float64[BINS]."""

    count: Floats = field(default_factory=lambda: np.zeros(BINS))
    predicted: Floats = field(default_factory=lambda: np.zeros(BINS))
    clicked: Floats = field(default_factory=lambda: np.zeros(BINS))

    def add(self, probabilities: Floats, labels: Floats) -> None:
        """Take predictions and their labels (0 or 1)."""
        bins = np.searchsorted(ODDS, np.log(probabilities / (1 - probabilities)))
        for sums, values in ((self.count, 1.0), (self.predicted, probabilities), (self.clicked, labels)):
            np.add.at(sums, bins, values)

    @property
    def error(self) -> float:
        """Mean distance of what was predicted and what happened, over the bins."""
        return float(np.abs(self.predicted - self.clicked).sum() / max(self.count.sum(), 1))


@dataclass(frozen=True, slots=True)
class Gain:
    """How much lower the log loss of one model is than another's in a group of slots, nats for each slot.

    Attributes
    ----------
    low, high
        Confidence bounds; NaN where the slots lie in fewer than two blocks of time.
    """

    slots: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Measured:
    """The sums of all contenders.

    Attributes
    ----------
    slots, clicks
        Group -> float64[blocks of time].
    losses
        Contender -> group -> float64[blocks of time], summed log losses.
    calibration
        Contender -> of all slots.
    hours
        Contender -> name of a measure -> hour of serving -> its sums, of the served slots whose labels are all there.
    """

    slots: Mapping[str, Floats]
    clicks: Mapping[str, Floats]
    losses: Mapping[str, Mapping[str, Floats]]
    calibration: Mapping[str, Calibration]
    hours: Mapping[str, Mapping[str, dict[int, Block]]]

    def loss(self, contender: str, group: str = ALL) -> float:
        """Mean log loss, nats; NaN where the group has no slots."""
        slots = self.slots[group].sum()
        return float(self.losses[contender][group].sum() / slots) if slots else np.nan

    def gain(self, of: str, over: str, group: str = ALL, level: float = 0.95, seed: int = 0) -> Gain:
        """What ``of`` gains over ``over``, by a bootstrap of blocks of time."""
        slots = self.slots[group]
        there = slots > 0
        saved = (self.losses[over][group] - self.losses[of][group])[there]
        low, high = of_ratio(saved, slots[there], seed, level)
        return Gain(int(slots.sum()), float(saved.sum() / max(slots.sum(), 1)), low, high)

    @property
    def groups(self) -> list[str]:
        """Those with slots, the group of all first."""
        return [group for group in GROUPS if self.slots[group].any()]


def measure(
    contenders: Mapping[str, Contender],
    slots: SlotFile,
    start: int,
    stop: int,
    progress: Callable[[float], None] = lambda _: None,
    known_ms: tuple[int, int] = (0, ALWAYS),
) -> Measured:
    """Send the contenders through the slots from ``start`` up to ``stop``.

    Parameters
    ----------
    known_ms
        Hours count slots that were served from the first of these times on and before the second, Unix milliseconds:
        those whose labels are all in the part (``millrace.training.reference``).
    """
    blocks = max(min(BLOCKS_MAX, (stop - start) // STEP), 1)
    edges = np.linspace(start, stop, blocks + 1)
    found = Measured(
        slots={group: np.zeros(blocks) for group in GROUPS},
        clicks={group: np.zeros(blocks) for group in GROUPS},
        losses={name: {group: np.zeros(blocks) for group in GROUPS} for name in contenders},
        calibration={name: Calibration() for name in contenders},
        hours={name: {CALIBRATION: {}, LOG_LOSS: {}} for name in contenders},
    )
    for number, step in enumerate(slots.blocks(start, stop, STEP)):
        at = min(int(np.searchsorted(edges, start + number * STEP, side="right")) - 1, blocks - 1)
        taught = examples(step)
        rows, clicked = np.ascontiguousarray(taught["features"]), taught["label"] == CLICKED
        labels = clicked.astype(float)
        groups = list(_groups(taught["segment"], taught["served"]))
        served_ms = taught["served_ms"]
        whole = taught["served"] & (served_ms >= known_ms[0]) & (served_ms < known_ms[1])
        for group, members in groups:
            found.slots[group][at] += members.sum()
            found.clicks[group][at] += labels[members].sum()
        for name, contender in contenders.items():
            given = contender.predict(rows).astype(np.float64)
            probabilities = np.clip(given, PROBABILITY_MIN, 1 - PROBABILITY_MIN)
            losses = -np.log(np.where(clicked, probabilities, 1 - probabilities))
            for group, members in groups:
                found.losses[name][group][at] += losses[members].sum()
            found.calibration[name].add(probabilities, labels)
            _add_hours(
                found.hours[name], taught["served_ms"][whole], labels[whole], probabilities[whole], losses[whole]
            )
            contender.learn(rows, clicked.tolist())
        progress(len(step) * len(contenders))
    return found


def _groups(
    segments: npt.NDArray[np.uint8], served: npt.NDArray[np.bool_]
) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    yield ALL, np.ones(len(segments), dtype=bool)
    yield ORGANIC, ~served
    for code in np.unique(segments):
        if code != NO_SEGMENT:
            yield SEGMENTS[code], segments == code


def _add_hours(
    hours: Mapping[str, dict[int, Block]],
    served_ms: npt.NDArray[np.int64],
    labels: Floats,
    probabilities: Floats,
    losses: Floats,
) -> None:
    of_slots = served_ms // HOUR_MS
    cut = np.minimum(losses, LOSS_LIMIT) / LOSS_LIMIT
    for hour in np.unique(of_slots):
        here = of_slots == hour
        count = int(here.sum())
        parts = {
            CALIBRATION: Block(count, float(labels[here].sum()), float(probabilities[here].sum())),
            LOG_LOSS: Block(count, float(cut[here].sum()), float(count)),
        }
        for name, part in parts.items():
            hours[name][int(hour)] = hours[name].get(int(hour), Block(0, 0.0, 0.0)) + part
