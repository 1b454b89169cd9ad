"""The learner's checkpoints in MLflow: a run for each, with the portable state as its artifact."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from millrace.errors import InfrastructureError, MillraceError
from millrace.learning.state import STATE_FILE, LearnerState
from millrace.registry.registry import SHA256_TAG, Registry, unless

# Folder of a run's artifacts that holds the state, and tags of the run.
ARTIFACT_PATH = "checkpoint"
CHECKPOINT_TAG = "millrace.checkpoint_id"
VERSION_TAG = "millrace.model_version"
REIGN_TAG = "millrace.reign_id"

_ABSENT = "RESOURCE_DOES_NOT_EXIST"
_DELETED_MAX = 50


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """Where a checkpoint is. ``artifact_uri``: as MLflow names the folder."""

    run_id: str
    artifact_uri: str


class CheckpointRuns:
    """Checkpoints of one registered model. Every method raises InfrastructureError when MLflow is away."""

    def __init__(self, registry: Registry, model_name: str) -> None:
        self._registry = registry
        self._model_name = model_name

    def store(self, file: Path, figures: Mapping[str, float]) -> StoredCheckpoint:
        """Store a state, and read it back: what is cut short on its way is no checkpoint.

        Parameters
        ----------
        file
            The state (``LearnerState.to_bytes``).
        figures
            Metrics of the run.

        Raises
        ------
        UnusableModel
            The file is damaged.
        """
        content = file.read_bytes()
        state, digest = LearnerState.from_bytes(content), hashlib.sha256(content).hexdigest()
        name = state.checkpoint_id
        self._registry.create_model(self._model_name)
        client = self._registry.client
        with self._registry.errors(f"store checkpoint {name}"):
            tags = {
                CHECKPOINT_TAG: name,
                VERSION_TAG: state.model_version,
                REIGN_TAG: state.reign_id,
                SHA256_TAG: digest,
            }
            run = client.create_run(self._experiment_id(), run_name=f"checkpoint {name}", tags=tags)
            run_id: str = run.info.run_id
            client.log_artifact(run_id, str(file), ARTIFACT_PATH)
            for metric, value in figures.items():
                client.log_metric(run_id, metric, value)
            with tempfile.TemporaryDirectory() as folder:
                arrived = Path(client.download_artifacts(run_id, f"{ARTIFACT_PATH}/{STATE_FILE}", folder)).read_bytes()
            if arrived != content:
                client.set_terminated(run_id, "FAILED")
                raise InfrastructureError("mlflow", f"checkpoint {name} arrived damaged at the artifact store")
            client.set_terminated(run_id)
            return StoredCheckpoint(run_id, f"{run.info.artifact_uri}/{ARTIFACT_PATH}")

    def fetch(self, run_id: str, into: Path) -> None:
        """Copy the state of a run into an existing folder."""
        client = self._registry.client
        with self._registry.errors(f"fetch the checkpoint of run {run_id}"):
            if unless(_ABSENT, lambda: client.get_run(run_id)) is None:
                raise MillraceError(f"the registry holds no run {run_id}")
            with tempfile.TemporaryDirectory(dir=into) as scratch:
                path = client.download_artifacts(run_id, f"{ARTIFACT_PATH}/{STATE_FILE}", scratch)
                Path(path).rename(into / STATE_FILE)

    def prune(self, stored: StoredCheckpoint, kept: Collection[str]) -> list[str]:
        """Delete the checkpoints from before ``stored`` that are not to be kept; returns their ids.

        Later ones stay whatever ``kept`` says: a learner that was replaced does not know them.
        """
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        client, deleted = self._registry.client, []
        with self._registry.errors("delete old checkpoints"):
            for run in self._before(client.get_run(stored.run_id).info.start_time):
                name = run.data.tags[CHECKPOINT_TAG]
                if name not in kept:
                    repository: Any = get_artifact_repository(run.info.artifact_uri, self._registry.mlflow.tracking_uri)
                    repository.delete_artifacts(ARTIFACT_PATH)
                    client.delete_run(run.info.run_id)
                    deleted.append(name)
        return deleted

    def _before(self, start_time_ms: int) -> list[Any]:
        found: list[Any] = self._registry.client.search_runs(
            [self._experiment_id()],
            f"tags.`{CHECKPOINT_TAG}` LIKE '%' AND attributes.start_time < {start_time_ms}",
            max_results=_DELETED_MAX,
        )
        return found

    def _experiment_id(self) -> str:
        experiment: str = self._registry.client.get_experiment_by_name(self._model_name).experiment_id
        return experiment
