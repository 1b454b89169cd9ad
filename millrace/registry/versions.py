"""The files of a version in a folder, as a line of learning begins with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from millrace.learning.state import STATE_FILE, LearnerState, fresh
from millrace.ranking.model import RankingModel, UnusableModel


def first_state(folder: Path, version: str, reign_id: str) -> LearnerState:
    """The state that a version begins to learn with.

    A trained one brings its optimizer's state: without it the first slots would move the weights as if nothing had been
    learned before. Others begin with none.

    Raises
    ------
    UnusableModel
        Its files are damaged.
    """
    model = RankingModel.load(folder)
    path = folder / STATE_FILE
    if not path.exists():
        return fresh(model, version, reign_id, epoch=0)
    try:
        state = LearnerState.from_bytes(path.read_bytes())
    except OSError as error:
        raise UnusableModel(f"version {version}: {error}") from error
    # Positions are those of the window that it was trained on, and none that a learner has to go on from.
    return replace(
        state,
        model=model,
        model_version=version,
        reign_id=reign_id,
        epoch=0,
        sequence=0,
        examples=0,
        learned={},
        topic_id="",
    )
