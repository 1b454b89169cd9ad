"""Which parameter update learned an outcome, and what it moved.

Folds the records of ``model-updates``, in order. An outcome is learned by the first update whose positions include
it, if a record before says that it was not learned yet: without one, it may have been learned earlier, by an update
that the topic keeps no more. A learner that was killed may learn an outcome again, to the same numbers; the first
time counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from millrace.errors import InvalidField
from millrace.learning.examples import read_examples
from millrace.learning.parameters import weight_names
from millrace.learning.serving import ServedLine, ServedLines, Taken
from millrace.learning.updates import SnapshotAssembler
from millrace.ranking.model import Vector
from millrace.story.entry import Entry
from millrace.v1.model_pb2 import ModelUpdate, ParameterSnapshot, ParameterUpdate
from millrace.v1.outcome_pb2 import Label, Outcome

_EXAMPLES = (Label.LABEL_POSITIVE, Label.LABEL_NEGATIVE)


class Learned(Enum):
    """What is known of the learning of an outcome."""

    LEARNED = "learned"
    NOT_YET = "not yet"
    """No update includes it."""
    EARLIER = "earlier"
    """The first record at hand includes it already."""
    NO_EXAMPLES = "no examples"
    """It holds unseen slots only."""
    REFUSED = "refused"
    """It breaks a rule of the learner."""


@dataclass(frozen=True, slots=True)
class Move:
    """A weight that an update changed; ``parameter`` is the name of its feature, or ``intercept``."""

    parameter: str
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Lesson:
    """How an outcome was learned.

    Attributes
    ----------
    update
        The first one that includes the outcome.
    delay_ms
        From the outcome's append to the making of the update; two clocks, the broker's and the learner's.
    slots
        How many slots the update learned, of this outcome and others; None if the record before it is missing.
    moves
        The weights that it changed, the largest change first; None if the values before it are not known.
    refusal
        What is wrong with the outcome, where it was refused.
    """

    outcome: Entry[Outcome]
    what: Learned
    update: ParameterUpdate | None = None
    delay_ms: int | None = None
    slots: int | None = None
    moves: tuple[Move, ...] | None = None
    refusal: str = ""


class Lessons:
    """Looks for some outcomes in the updates of one model.

    Parameters
    ----------
    topic_id
        The broker's id of the topic of the outcomes.
    """

    def __init__(self, model_name: str, topic_id: str, outcomes: Sequence[Entry[Outcome]]) -> None:
        self._model_name, self._topic_id = model_name, topic_id
        self._served = ServedLines(model_name)
        self._assembler = SnapshotAssembler()
        self._outcomes = outcomes
        self._found: dict[int, Lesson] = {
            place: Lesson(outcome, Learned.NO_EXAMPLES)
            for place, outcome in enumerate(outcomes)
            if not any(slot.label in _EXAMPLES for slot in outcome.message.slots)
        }
        # Whether a record came whose positions leave out what is not found yet.
        self._known = False
        # Epoch, sequence and examples of the last record.
        self._last = (0, 0, 0)

    @property
    def complete(self) -> bool:
        """Whether something is known of every outcome."""
        return len(self._found) == len(self._outcomes)

    @property
    def blind(self) -> bool:
        """Whether records before the first one taken would tell more."""
        return any(
            one.what is Learned.EARLIER or (one.what is Learned.LEARNED and one.moves is None)
            for one in self._found.values()
        )

    def results(self) -> list[Lesson]:
        """What is known by now, in the order of the outcomes."""
        return [self._found.get(place, Lesson(one, Learned.NOT_YET)) for place, one in enumerate(self._outcomes)]

    def apply(self, record: ModelUpdate) -> None:
        """Take the next record of the topic; those of other models change nothing."""
        if record.WhichOneof("kind") == "snapshot":
            if record.snapshot.model_name == self._model_name:
                self._served.apply(record)
                self._snapshot(record.snapshot)
        elif record.update.model_name == self._model_name:
            self._update(record)

    def _snapshot(self, chunk: ParameterSnapshot) -> None:
        state = self._assembler.add(chunk)
        if state is None:
            return
        self._last = state.epoch, state.sequence, state.examples
        newest = {number: offset - 1 for number, offset in state.learned.items()}
        for place in self._included(newest if state.topic_id == self._topic_id else {}):
            self._found[place] = Lesson(self._outcomes[place], Learned.EARLIER)
        self._known = True

    def _update(self, record: ModelUpdate) -> None:
        update = record.update
        line = self._served.of(update.reign_id)
        before = None if line is None else line.vector
        applied = self._served.apply(record) is Taken.APPLIED
        epoch, sequence, examples = self._last
        follows = (epoch, sequence + 1) == (update.epoch, update.sequence)
        self._last = update.epoch, update.sequence, update.examples
        newest = {one.partition: one.offset for one in update.learned if one.topic_id == self._topic_id}
        for place in self._included(newest):
            outcome = self._outcomes[place]
            if not self._known:
                self._found[place] = Lesson(outcome, Learned.EARLIER, update)
                continue
            refusal = "" if line is None else _refusal(outcome.message, line)
            self._found[place] = Lesson(
                outcome,
                Learned.REFUSED if refusal else Learned.LEARNED,
                update,
                update.created_at_ms - outcome.append_time_ms,
                update.examples - examples if follows else None,
                _moves(before, line) if applied and line is not None and before is not None else None,
                refusal,
            )
        self._known = True

    def _included(self, newest: Mapping[int, int]) -> list[int]:
        """Places of the outcomes not found yet that some positions include."""
        return [
            place
            for place, outcome in enumerate(self._outcomes)
            if place not in self._found and outcome.offset <= newest.get(outcome.partition, -1)
        ]


def _refusal(outcome: Outcome, line: ServedLine) -> str:
    try:
        read_examples(outcome, line.template.feature_schema, len(line.template.feature_names))
    except InvalidField as error:
        return str(error)
    return ""


def _moves(before: Vector, line: ServedLine) -> tuple[Move, ...]:
    """Weights and the intercept only: they are of one unit (log-odds); means and variances are of the features'."""
    names = weight_names(line.template.columns)
    old, new = before[: len(names)], line.vector[: len(names)]
    order = np.argsort(-np.abs(new - old), kind="stable")
    return tuple(Move(names[at], float(old[at]), float(new[at])) for at in order if old[at] != new[at])
