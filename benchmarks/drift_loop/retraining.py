"""What the training job does with the slots of a window, in this process; see ``workers.retrain_orchestrator``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from millrace.drift.storing import REFERENCE_FILE
from millrace.learning.learner import OnlineRanker
from millrace.learning.state import STATE_FILE, LearnerState
from millrace.ranking.features import FEATURE_NAMES, FloatMatrix
from millrace.ranking.first import first_ranker
from millrace.ranking.model import RankingModel
from millrace.registry.gates import Gate
from millrace.settings import Settings, TrainingSettings
from millrace.training import fit, gates, golden
from millrace.training.change import enough, place
from millrace.training.measure import Contender, Line, Measured, measure
from millrace.training.reference import count_values, known_from, reference_since, settled_before
from millrace.training.slots import CLICKED, SlotFile, Slots, examples

NEW, CHAMPION = "new", "champion"
SEED = 0
"""Of the bootstrap, as of a job that nobody gave another one."""


@dataclass(frozen=True)
class Reign:
    """The champion: what it began with, and when (Unix milliseconds)."""

    state: LearnerState
    at_ms: int


@dataclass(frozen=True)
class Trained:
    """A version in a folder, as recommenders and the drift detector download it.

    Attributes
    ----------
    gates
        Verdicts; one that did not pass keeps the version from any traffic.
    """

    state: LearnerState
    folder: Path
    gates: Sequence[Gate]
    measured: Measured

    @property
    def problem(self) -> str:
        """Why it gets no traffic; empty if it may."""
        return "; ".join(f"{gate.name}: {gate.reason}" for gate in self.gates if not gate.passed)


class Fixed:
    """A version that does not learn, where nothing learns online."""

    def __init__(self, model: RankingModel) -> None:
        self._model = model

    def predict(self, features: FloatMatrix) -> npt.NDArray[np.float32]:
        """See ``Contender``."""
        return self._model.score(features)

    def learn(self, features: FloatMatrix, labels: Sequence[bool]) -> None:
        """Stays what it is."""


def train(
    slots: SlotFile, champion: Reign, learns: bool, folder: Path, settings: Settings, since_ms: int = 0
) -> Trained:
    """Train a version on all slots, and measure it beside the champion on the newest part.

    Parameters
    ----------
    learns
        Whether what is served learns on: without, both are compared as they are before the newest part.
    folder
        For its files; made.
    since_ms
        When the world changed, Unix milliseconds; 0 if it did not.
    """
    ours = settings.training
    parts = parts_of(slots, ours, since_ms)
    found = fit.search(slots, parts, first_ranker(), ours.passes_max)
    new = fit.fit(found.chosen, slots, parts.choosing, first_ranker(), change=parts.change)
    old = OnlineRanker(champion.state)
    settled_ms = settled_before(slots, settings.joiner.attribution_window_ms)
    known_ms = known_from(slots, parts.choosing) if parts.change else 0, settled_ms
    if learns:
        for block in slots.blocks(0, parts.choosing):
            _teach(old, block[block["appended_ms"] >= champion.at_ms])
        both: dict[str, Contender] = {NEW: Line(new), CHAMPION: Line(old)}
        measured = measure(both, slots, parts.choosing, parts.newest, known_ms=known_ms)
    else:
        both = {NEW: Fixed(fit.copy_of(new).model()), CHAMPION: Fixed(old.model())}
        measured = measure(both, slots, parts.choosing, parts.newest, known_ms=known_ms)
        for block in slots.blocks(parts.choosing, parts.newest):
            _teach(new, block)
    state = new.state(0, {}, "")
    folder.mkdir(parents=True)
    state.model.save(folder)
    (folder / STATE_FILE).write_bytes(state.to_bytes())
    values = count_values(slots, parts.choosing, state.model)
    reference = reference_since(slots, values, measured.hours[NEW], settled_ms, since_ms if parts.change else 0)
    (folder / REFERENCE_FILE).write_bytes(reference.to_bytes())
    return Trained(state, folder, _gates(slots, parts, state.model, measured, folder, ours), measured)


def parts_of(slots: SlotFile, settings: TrainingSettings, since_ms: int) -> fit.Parts:
    """Those of what came since the change, if there was one."""
    return fit.Parts.of(len(slots), settings.newest_share, place(slots, since_ms) if since_ms else 0)


def _gates(
    slots: SlotFile, parts: fit.Parts, model: RankingModel, measured: Measured, folder: Path, settings: TrainingSettings
) -> list[Gate]:
    rows = next(slots.blocks(max(len(slots) - 1_000, 0), size=1_000))["features"]
    loaded = golden.load(folder)
    said = json.dumps({"problems": golden.problems(loaded), "scores": loaded.score(rows).tolist()})
    return [
        enough(slots, parts, settings),
        *gates.probed(said, model.score(np.ascontiguousarray(rows)).tolist()),
        gates.better(measured, NEW, CHAMPION, settings, SEED, CHAMPION),
        gates.segments(measured, NEW, CHAMPION, settings, SEED),
    ]


def _teach(line: OnlineRanker, block: Slots) -> None:
    taught = examples(block)
    line.learn(np.ascontiguousarray(taught["features"]), (taught["label"] == CLICKED).tolist())


def slot_file(parts: Sequence[Slots], path: Path) -> SlotFile:
    """Slots in the order of the log, in a file."""
    file = SlotFile(path, len(FEATURE_NAMES))
    for part in parts:
        file.append(part)
    return file
