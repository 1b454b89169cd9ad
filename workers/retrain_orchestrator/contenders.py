"""Whom a trained version is compared with, each as it was before the newest part of the window."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import structlog

from millrace.errors import MillraceError
from millrace.learning.learner import OnlineRanker
from millrace.learning.state import STATE_FILE, LearnerState
from millrace.ranking.features import FEATURE_SCHEMA, Feature
from millrace.ranking.first import first_ranker
from millrace.ranking.model import UnusableModel
from millrace.registry.checkpoint_runs import CheckpointRuns
from millrace.registry.ledger import Ledger
from millrace.registry.registry import Registry
from millrace.registry.versions import first_state
from millrace.training.fit import Candidate, Progress
from millrace.training.measure import Line
from millrace.training.slots import CLICKED, SlotFile, Slots, examples
from millrace.v1.model_pb2 import ModelEvent

log = structlog.stdlib.get_logger(__name__)


def popularity(slots: SlotFile, stop: int, progress: Progress) -> Line:
    """What popularity alone predicts, learned in the same way from the slots before ``stop``."""
    ranker = OnlineRanker(Candidate("zero", 0.0, 1).begin(first_ranker()))
    line = Line(ranker, [Feature.POPULARITY_SHORT, Feature.POPULARITY_LONG])
    for block in slots.blocks(0, stop):
        _teach(line, block)
        progress(len(block))
    return line


def champion_before(
    registry: Registry, ledger: Ledger, slots: SlotFile, stop: int, folder: Path, progress: Progress
) -> Line | None:
    """The champion: what its reign began with, and what it has learned since from the slots before ``stop``.

    None if this code cannot serve it. ``folder`` takes its files.

    Raises
    ------
    InfrastructureError
        MLflow is away.
    MillraceError
        There is no champion.
    """
    reign = ledger.reign
    if reign is None:
        raise MillraceError(f"model {ledger.model_name!r} has no champion")
    folder.mkdir()
    try:
        state = _begun(registry, reign, folder)
    except UnusableModel as error:
        log.warning("the champion cannot be compared with", version=reign.model_version, problem=str(error))
        return None
    line = Line(OnlineRanker(state))
    for block in slots.blocks(0, stop):
        _teach(line, block[block["appended_ms"] >= reign.at_ms])
        progress(len(block))
    return line


def _begun(registry: Registry, reign: ModelEvent, folder: Path) -> LearnerState:
    if reign.checkpoint_id:
        CheckpointRuns(registry, reign.model_name).fetch(reign.run_id, folder)
        state = LearnerState.from_bytes((folder / STATE_FILE).read_bytes())
    else:
        registry.download(reign.model_name, reign.model_version, folder)
        state = first_state(folder, reign.model_version, reign.event_id)
    if state.model.feature_schema != FEATURE_SCHEMA:
        raise UnusableModel(f"it ranks by features {state.model.feature_schema}; this code knows {FEATURE_SCHEMA}")
    return state


def _teach(line: Line, block: Slots) -> None:
    taught = examples(block)
    line.learn(np.ascontiguousarray(taught["features"]), (taught["label"] == CLICKED).tolist())
