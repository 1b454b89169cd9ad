"""A pass that was interrupted goes on where it was: what was learned and answered is kept, features are made anew.

Features follow from the events alone, at a tenth of the time of asking; the ranker, the draws and the answers so far
are one ``.npz`` file without pickles.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from millrace.errors import MillraceError
from millrace.ranking.features import FEATURE_NAMES, FEATURE_SCHEMA, FloatMatrix, Floats
from millrace.settings import Settings, home

FORMAT = 2
"""Moves when the content changes: a pass that left another one begins anew."""
DECIDING = ("evaluation", "features", "learning", "outcomes", "ranking")
"""Packages that figures follow from, as they do from the defaults of ``DECIDING_SETTINGS``,"""
BESIDE = frozenset(
    (
        *("evaluation/calibration", "evaluation/checkpoint", "evaluation/late", "evaluation/learner_ablation"),
        *(
            "evaluation/learners",
            "evaluation/month",
            "evaluation/plots",
            "evaluation/search",
            "evaluation/search_space",
        ),
        *("evaluation/trials", "features/as_json", "features/calls", "features/limits", "features/metrics"),
        *("features/publisher", "features/store", "features/topic_guard"),
    )
)
"""and their modules that they do not: whoever touches a plot, or how Redis is reached, need not measure anew."""
DECIDING_SETTINGS = ("features", "recommender", "joiner")
"""Groups of settings that they follow from."""
EVERY_S = 30.0
"""Time between two checkpoints: what a kill loses, against some milliseconds for each."""


@cache
def code_digest() -> str:
    """16 hexadecimal digits of the code that figures follow from: with other code a pass begins anew."""
    package, digest = Path(__file__).parents[1], blake2b(digest_size=8)
    found = (path for name in DECIDING for path in (package / name).glob("*.py"))
    for group in DECIDING_SETTINGS:
        defaults = {name: known.default for name, known in Settings.groups[group].model_fields.items()}
        digest.update(repr(defaults).encode())
    for path in sorted(found):
        if f"{path.parent.name}/{path.stem}" not in BESIDE:
            digest.update(path.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Checkpoint:
    """Where a pass is.

    Attributes
    ----------
    place
        Events that it has gone through.
    ranker
        State of the learner (``LearnerState.to_bytes``).
    random
        State of the generator.
    examples
        Examples that wait for a boundary.
    numbers, labels, shown, bias
        Of the figures (``figures.Record``): an answer's numbers, its period and segment, rows shown so far, summed
        popularity bias.
    """

    place: int
    ranker: bytes
    random: Mapping[str, Any]
    examples: list[FloatMatrix]
    numbers: Floats
    labels: list[tuple[int, str]]
    shown: list[int]
    bias: float


class CheckpointFile:
    """The checkpoint of one pass, in ``home()/evaluate``, under a name made of everything that it depends on."""

    def __init__(self, settings: Settings, *what: object) -> None:
        groups = (getattr(settings, name) for name in DECIDING_SETTINGS)
        stands_on = (FORMAT, FEATURE_SCHEMA, code_digest(), *what)
        words = json.dumps([*map(str, stands_on), *(group.model_dump_json() for group in groups)])
        self.path = home() / "evaluate" / f"{blake2b(words.encode(), digest_size=8).hexdigest()}.npz"

    def save(self, at: Checkpoint) -> None:
        """Write it so that a crash at any moment leaves the old or the new one."""
        words = {"place": at.place, "random": at.random, "labels": at.labels, "shown": at.shown, "bias": at.bias}
        nothing = np.empty((0, len(FEATURE_NAMES)), dtype=np.float32)
        file = io.BytesIO()
        np.savez(
            file,
            words=np.frombuffer(json.dumps(words).encode(), dtype=np.uint8),
            ranker=np.frombuffer(at.ranker, dtype=np.uint8),
            examples=np.concatenate((nothing, *at.examples)),
            sizes=np.array([len(example) for example in at.examples], dtype=np.int64),
            numbers=at.numbers,
        )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        part.write_bytes(file.getvalue())
        part.replace(self.path)

    def load(self) -> Checkpoint | None:
        """The checkpoint; None if there is none. Raises MillraceError if it is damaged."""
        try:
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as found:
                words = json.loads(found["words"].tobytes())
                ends = np.cumsum(found["sizes"])
                return Checkpoint(
                    place=words["place"],
                    ranker=found["ranker"].tobytes(),
                    random=words["random"],
                    examples=np.split(found["examples"], ends)[: len(ends)],
                    numbers=found["numbers"],
                    labels=[(period, segment) for period, segment in words["labels"]],
                    shown=words["shown"],
                    bias=words["bias"],
                )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise MillraceError(f"{self.path} is damaged ({error}); --restart begins anew") from error

    def drop(self) -> None:
        """The pass is through, or to begin anew."""
        self.path.unlink(missing_ok=True)
