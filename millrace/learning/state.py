"""The portable state of a line of learning: what a checkpoint and a snapshot on ``model-updates`` hold.

One ``.npz`` without pickles: the numbers as arrays, the words as JSON in an array of bytes. A damaged or foreign one
is refused with the reason.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from millrace.ranking.model import RankingModel, UnusableModel, Vector, terms_from_words
from millrace.ranking.terms import term_to_words

FORMAT = 2
READABLE = (1, 2)
"""What is written, and what is understood. Format 1 knew no terms."""
STATE_FILE = "learner.npz"
"""Name of the state's file in a checkpoint."""


@dataclass(frozen=True)
class LearnerState:
    """Everything that a line of learning is after some examples: it goes on from here as if it had never stopped.

    Attributes
    ----------
    model
        The serving parameters.
    squared_gradients
        float64[d + e], AdaGrad's sums for the weights.
    model_version
        Version in the registry that the line started from.
    reign_id
        Id of the promotion or rollback that the line belongs to.
    epoch, sequence
        The line's number, and that of its last update.
    examples
        Slots learned in this epoch.
    topic_id
        The broker's id of the topic ``outcomes``; empty if none was read yet.
    learned
        Partition of ``outcomes`` -> the next offset to learn.
    """

    model: RankingModel
    squared_gradients: Vector
    model_version: str
    reign_id: str
    epoch: int = 0
    sequence: int = 0
    examples: int = 0
    topic_id: str = ""
    learned: Mapping[int, int] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The state as the bytes of an ``.npz``; the same state gives the same bytes."""
        words = {
            "format": FORMAT,
            "feature_schema": self.model.feature_schema,
            "feature_names": self.model.feature_names,
            "terms": [term_to_words(term) for term in self.model.terms],
            "model_version": self.model_version,
            "reign_id": self.reign_id,
            "epoch": self.epoch,
            "sequence": self.sequence,
            "examples": self.examples,
            "topic_id": self.topic_id,
            "learned": {str(partition): offset for partition, offset in sorted(self.learned.items())},
        }
        file = io.BytesIO()
        np.savez(
            file,
            words=np.frombuffer(json.dumps(words).encode(), dtype=np.uint8),
            weights=self.model.weights,
            intercept=np.float64(self.model.intercept),
            means=self.model.means,
            variances=self.model.variances,
            observations=np.int64(self.model.observations),
            squared_gradients=self.squared_gradients,
        )
        return file.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> LearnerState:
        """The state in the bytes of an ``.npz``. Raises UnusableModel, saying what is wrong."""
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as numbers:
                words = json.loads(numbers["words"].tobytes())
                if words["format"] not in READABLE:
                    raise UnusableModel(f"learner state: format {words['format']!r}, not one of {READABLE}")
                model = RankingModel(
                    feature_schema=str(words["feature_schema"]),
                    feature_names=tuple(str(name) for name in words["feature_names"]),
                    means=numbers["means"],
                    variances=numbers["variances"],
                    weights=numbers["weights"],
                    intercept=float(numbers["intercept"]),
                    observations=int(numbers["observations"]),
                    terms=terms_from_words(words.get("terms", ())),
                )
                squared_gradients = np.array(numbers["squared_gradients"], dtype=np.float64)
                if squared_gradients.shape != model.weights.shape or not np.isfinite(squared_gradients).all():
                    raise UnusableModel(f"learner state: squared_gradients must be {len(model.weights)} finite numbers")
                return cls(
                    model=model,
                    squared_gradients=squared_gradients,
                    model_version=str(words["model_version"]),
                    reign_id=str(words["reign_id"]),
                    epoch=int(words["epoch"]),
                    sequence=int(words["sequence"]),
                    examples=int(words["examples"]),
                    topic_id=str(words["topic_id"]),
                    learned={int(partition): int(offset) for partition, offset in words["learned"].items()},
                )
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise UnusableModel(f"learner state is damaged: {type(error).__name__}: {error}") from error

    @property
    def checkpoint_id(self) -> str:
        """What a checkpoint of this state is called."""
        return f"{self.model_version}.{self.epoch}.{self.sequence}"


def fresh(model: RankingModel, model_version: str, reign_id: str, epoch: int) -> LearnerState:
    """The state before the first example of a version."""
    return LearnerState(model, np.zeros(len(model.columns)), model_version, reign_id, epoch)
