"""The learner's checkpoints on this machine's disk, so that a rollback to one is live without MLflow."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import structlog

from millrace.errors import InvalidField
from millrace.learning.state import STATE_FILE, LearnerState
from millrace.ranking.model import UnusableModel
from millrace.registry.cache import default_directory
from millrace.registry.folders import FolderCache
from millrace.registry.ledger import CHECKPOINTS_KEPT
from millrace.registry.mlflow_process import TIMEOUT_S, MlflowProcess
from millrace.settings import MlflowSettings
from millrace.v1.model_pb2 import ModelEvent

log = structlog.stdlib.get_logger(__name__)

_ID = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+")


class CheckpointCache:
    """Checkpoints of one model.

    What is read is held to the SHA-256 in the checkpoint's event on ``model-events``, so that a file that was cut short
    is fetched anew and never used.

    Parameters
    ----------
    model_name
        The registered model.
    mlflow
        Where MLflow is; None: as the environment of the fetching process says.
    directory
        Where they are kept; None: beside the versions of the model.
    timeout_s
        Longest time of one download, seconds.
    """

    def __init__(
        self,
        model_name: str,
        mlflow: MlflowSettings | None = None,
        directory: Path | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._model_name = model_name
        self._mlflow = mlflow
        self._timeout_s = timeout_s
        directory = directory or default_directory(model_name) / "checkpoints"
        # One more than a rollback can choose from: the one that the champion goes on from.
        self._folders = FolderCache(directory, lambda name: _ID.fullmatch(name) is not None, CHECKPOINTS_KEPT + 1)

    def ids(self) -> list[str]:
        """Checkpoints on disk, the most recently used first."""
        return self._folders.names()

    def put(self, state: LearnerState) -> tuple[Path, bytes]:
        """Keep a state; returns its file and SHA-256. Raises OSError."""
        content = state.to_bytes()
        folder = self._folders.ensure(state.checkpoint_id, lambda into: _write(into / STATE_FILE, content))
        return folder / STATE_FILE, hashlib.sha256(content).digest()

    def local(self, event: ModelEvent) -> LearnerState | None:
        """The state of a checkpoint that is here; None if it is not, or is damaged (and is dropped then).

        ``event`` is the one that stored it, or the rollback to it.
        """
        folder = self._folders.path(event.checkpoint_id)
        if folder is None:
            return None
        try:
            return _read(folder, event)
        except UnusableModel as error:
            log.warning("a checkpoint on disk is damaged: fetched anew", problem=str(error))
            self._folders.drop(event.checkpoint_id)
            return None

    def load(self, event: ModelEvent) -> LearnerState:
        """The state of a checkpoint, fetched from MLflow unless it is here. Blocks for seconds.

        Raises
        ------
        InfrastructureError
            MLflow is away, does not have it, or did not deliver in time.
        UnusableModel
            What MLflow holds is damaged.
        """
        state = self.local(event)
        if state is None:
            state = _read(
                self._folders.ensure(_checked(event.checkpoint_id), lambda into: self._fetch(event, into)), event
            )
        return state

    def _fetch(self, event: ModelEvent, into: Path) -> None:
        MlflowProcess(
            f"fetching checkpoint {event.checkpoint_id} of {self._model_name}",
            "millrace.registry.transfer",
            ["fetch-checkpoint", "--model", self._model_name, "--run", event.run_id, "--into", str(into)],
            self._mlflow,
            self._timeout_s,
        ).wait()
        _read(into, event)


def _checked(checkpoint_id: str) -> str:
    """The id, which becomes part of a path."""
    if _ID.fullmatch(checkpoint_id) is None:
        raise InvalidField("checkpoint_id", repr(checkpoint_id), "VERSION.EPOCH.SEQUENCE")
    return checkpoint_id


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _read(folder: Path, event: ModelEvent) -> LearnerState:
    try:
        content = (folder / STATE_FILE).read_bytes()
    except OSError as error:
        raise UnusableModel(f"checkpoint {event.checkpoint_id}: {error}") from error
    digest = hashlib.sha256(content).digest()
    if digest != event.sha256:
        raise UnusableModel(
            f"checkpoint {event.checkpoint_id} is damaged: SHA-256 {digest.hex()}, not {event.sha256.hex()}"
        )
    return LearnerState.from_bytes(content)
