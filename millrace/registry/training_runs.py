"""The run of a training job in MLflow: it tells the story while it goes on, and ends as what came of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import structlog

from millrace.errors import InfrastructureError, MillraceError
from millrace.registry.gates import REASON_TAG
from millrace.registry.registry import ARTIFACT_PATH, STEP_TAG, Registry
from millrace.registry.view import RegisteredVersion

log = structlog.stdlib.get_logger(__name__)

PROBLEM_TAG = "millrace.problem"
KIND_TAG = "millrace.kind"
TRAINING = "training"
NOTE_TAG = "mlflow.note.content"
"""Where MLflow's own pages have a run's description."""

# MLflow refuses more in one request.
_BATCH_MAX = 100
_VALUE_MAX_CHARS = 4_000


class Cancelled(BaseException):
    """The job was told to end. Not an Exception, so that nothing on the way takes it for a failure."""


class TrainingRun:
    """A run, from its start to its end; a context manager.

    It ends FINISHED, as KILLED when the job was cancelled, or as FAILED with the problem as a tag. Every method raises
    InfrastructureError when MLflow is away.

    Parameters
    ----------
    step_id
        Names the job: runs of it that are open (its process was killed) are closed as KILLED.
    """

    def __init__(self, registry: Registry, model_name: str, step_id: str, reason: str, tags: Mapping[str, str]) -> None:
        self._registry, self._model_name, self._step_id = registry, model_name, step_id
        registry.create_model(model_name)
        with registry.errors("begin a training run"):
            client = registry.client
            experiment = client.get_experiment_by_name(model_name).experiment_id
            for run in client.search_runs(
                [experiment], f"tags.`{STEP_TAG}` = '{step_id}' AND attributes.status = 'RUNNING'"
            ):
                client.set_terminated(run.info.run_id, "KILLED")
            known = {STEP_TAG: step_id, KIND_TAG: TRAINING, **tags}
            self.run_id: str = client.create_run(experiment, run_name=reason, tags=known).info.run_id
        self._reason = reason

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if error is None:
            self._end("FINISHED")
            return
        cancelled = isinstance(error, Cancelled | KeyboardInterrupt)
        try:
            if not cancelled:
                with self._registry.errors("say what failed"):
                    self._registry.client.set_tag(self.run_id, PROBLEM_TAG, str(error)[:_VALUE_MAX_CHARS])
            self._end("KILLED" if cancelled else "FAILED")
        except InfrastructureError as away:
            # What happened first is what counts.
            log.warning("the run stays open in MLflow", run=self.run_id, problem=str(away))

    def params(self, params: Mapping[str, object]) -> None:
        """What the run was given."""
        from mlflow.entities import Param

        items = [Param(name, str(value)[:_VALUE_MAX_CHARS]) for name, value in params.items()]
        with self._registry.errors("log parameters"):
            for at in range(0, len(items), _BATCH_MAX):
                self._registry.client.log_batch(self.run_id, params=items[at : at + _BATCH_MAX])

    def metrics(self, metrics: Mapping[str, float]) -> None:
        """What was measured; numbers that are none (NaN) are left out."""
        from mlflow.entities import Metric

        now_ms = time.time_ns() // 1_000_000
        items = [Metric(name, value, now_ms, 0) for name, value in metrics.items() if value == value]
        with self._registry.errors("log metrics"):
            for at in range(0, len(items), _BATCH_MAX):
                self._registry.client.log_batch(self.run_id, metrics=items[at : at + _BATCH_MAX])

    def note(self, text: str) -> None:
        """What the run's page says, in Markdown."""
        with self._registry.errors("describe the run"):
            self._registry.client.set_tag(self.run_id, NOTE_TAG, text[:_VALUE_MAX_CHARS])

    def files(self, folder: Path, under: str | None = None) -> None:
        """The files in a folder as artifacts."""
        with self._registry.errors("store the run's files"):
            self._registry.client.log_artifacts(self.run_id, str(folder), under)

    def fetch_model(self, into: Path) -> Path:
        """The version's files as they arrived; the folder that holds them."""
        with self._registry.errors("read the version's files back"):
            fetched: Any = self._registry.client.download_artifacts(self.run_id, ARTIFACT_PATH, str(into))
            return Path(fetched)

    def register(self, tags: Mapping[str, str]) -> RegisteredVersion:
        """Make the run's files a version, with these tags; one that the job has made already is that one."""
        made = self._registry.view(self._model_name).made_by(self._step_id)
        if made is not None:
            return made
        try:
            return self._registry.create_version(
                self._model_name, self.run_id, self._reason, {STEP_TAG: self._step_id, REASON_TAG: self._reason, **tags}
            )
        except InfrastructureError:
            # The answer may have been lost on its way, and not the question.
            with contextlib.suppress(MillraceError):
                made = self._registry.view(self._model_name).made_by(self._step_id)
                if made is not None:
                    return made
            raise

    def _end(self, status: str) -> None:
        with self._registry.errors("end the run"):
            self._registry.client.set_terminated(self.run_id, status)
