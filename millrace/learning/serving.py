"""Parameters as a recommender follows them: snapshots, and updates applied in order.

Each reign has its own line. Updates count only directly after what is there: after a gap, or in an epoch whose
snapshot was missed, the line stays as it is until the next snapshot.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum

from millrace.errors import InvalidField
from millrace.learning.parameters import apply, from_vector, to_vector
from millrace.learning.state import LearnerState
from millrace.learning.updates import SnapshotAssembler
from millrace.ranking.model import RankingModel, UnusableModel, Vector
from millrace.v1.model_pb2 import ModelUpdate, ParameterUpdate

LINES_MAX = 10
"""Lines kept: those of the newest reigns. A rollback makes a reign of its own."""


class Taken(Enum):
    """What became of a record of ``model-updates``."""

    APPLIED = "applied"
    """It is the newest state of its line now."""
    PASSED = "passed"
    """A chunk of a snapshot that is not complete, an older state, or another model's."""
    GAP = "gap"
    """Something before it is missing."""
    REFUSED = "refused"
    """It breaks a rule; the line waits for a snapshot."""


@dataclass(slots=True)
class ServedLine:
    """The newest parameters of a reign.

    Attributes
    ----------
    template
        A model of the line: everything but the parameters.
    vector
        The parameters (``millrace.learning.parameters``).
    broken
        Whether only a snapshot can follow.
    """

    template: RankingModel
    model_version: str
    epoch: int
    sequence: int
    vector: Vector
    broken: bool = False

    def model(self) -> RankingModel:
        """The model with these parameters. Raises UnusableModel if they are none that can be served."""
        return from_vector(self.template, self.vector)


class ServedLines:
    """The lines of one registered model."""

    def __init__(self, model_name: str) -> None:
        self._model_name = model_name
        self._assembler = SnapshotAssembler()
        self._lines: OrderedDict[str, ServedLine] = OrderedDict()

    def of(self, reign_id: str) -> ServedLine | None:
        """The line of a reign; None if no snapshot of it was seen."""
        return self._lines.get(reign_id)

    def apply(self, record: ModelUpdate) -> Taken:
        """Take the next record of the topic."""
        if record.WhichOneof("kind") == "snapshot":
            if record.snapshot.model_name != self._model_name:
                return Taken.PASSED
            state = self._assembler.add(record.snapshot)
            return Taken.PASSED if state is None else self._replace(state)
        return self._update(record.update) if record.update.model_name == self._model_name else Taken.PASSED

    def _replace(self, state: LearnerState) -> Taken:
        line = self._lines.get(state.reign_id)
        if line is not None and (state.epoch, state.sequence) < (line.epoch, line.sequence):
            return Taken.PASSED
        self._lines[state.reign_id] = ServedLine(
            state.model, state.model_version, state.epoch, state.sequence, to_vector(state.model)
        )
        while len(self._lines) > LINES_MAX:
            self._lines.popitem(last=False)
        return Taken.APPLIED

    def _update(self, update: ParameterUpdate) -> Taken:
        line = self._lines.get(update.reign_id)
        if line is None:
            return Taken.GAP
        if (update.epoch, update.sequence) <= (line.epoch, line.sequence):
            return Taken.PASSED
        if line.broken or (update.epoch, update.sequence) != (line.epoch, line.sequence + 1):
            line.broken = True
            return Taken.GAP
        try:
            vector = apply(line.vector, update.parameters)
            from_vector(line.template, vector)
        except (InvalidField, UnusableModel):
            line.broken = True
            return Taken.REFUSED
        line.vector, line.sequence = vector, update.sequence
        return Taken.APPLIED
