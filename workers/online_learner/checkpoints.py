"""Checkpoints of a line of learning, while it goes on: to this machine's disk, to MLflow, then to ``model-events``."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from millrace.errors import InfrastructureError
from millrace.learning import metrics
from millrace.learning.state import LearnerState
from millrace.registry.checkpoints import CheckpointCache
from millrace.registry.ledger import CHECKPOINTS_KEPT, Ledger
from millrace.registry.mlflow_process import MlflowProcess
from millrace.settings import Settings
from millrace.v1.model_pb2 import ModelEvent, ModelEventType

log = structlog.stdlib.get_logger(__name__)

RETRY_S = 30.0
"""Pause after a try that failed: each costs seconds of a process that imports MLflow."""


@dataclass(frozen=True, slots=True)
class _Upload:
    """A checkpoint on its way to MLflow."""

    process: MlflowProcess
    event: ModelEvent
    examples: int
    loss: float


class Checkpointer:
    """Takes a checkpoint every so often. While MLflow is away learning goes on; the next try takes the newest state."""

    def __init__(self, settings: Settings, cache: CheckpointCache) -> None:
        self._model_name = settings.learner.model_name
        self._mlflow = settings.mlflow
        self._cache = cache
        self._interval_s = settings.learner.checkpoint_interval_ms / 1_000
        self._retry_s = min(self._interval_s, RETRY_S)
        self._upload: _Upload | None = None
        self._due_at = 0.0
        # Slots in the last checkpoint, and the sum of the log losses since.
        self._saved = 0
        self._loss = 0.0

    def begin(self, now: float) -> None:
        """An epoch begins (``now``: monotonic time, seconds)."""
        self.stop()
        self._due_at, self._saved, self._loss = now + self._interval_s, 0, 0.0

    def learned(self, loss: float) -> None:
        """Slots were learned; ``loss`` is the sum of their log losses, nats."""
        self._loss += loss

    def follow(self, now: float, state: LearnerState, ledger: Ledger, compared: Sequence[str]) -> ModelEvent | None:
        """Go on with what is under way, or begin when it is time; the event to write once a checkpoint is stored.

        ``ledger`` knows which checkpoints a rollback may choose from: MLflow keeps these, and those that
        a running experiment compares.
        """
        try:
            if self._upload is not None:
                return self._finish(now, self._upload)
            if now >= self._due_at and state.examples > self._saved:
                self._start(state, ledger, compared)
        except (InfrastructureError, OSError) as error:
            self._fail(now, error)
        return None

    def stop(self) -> None:
        """Give up what is under way."""
        if self._upload is not None:
            self._upload.process.kill()
            self._upload = None

    def _start(self, state: LearnerState, ledger: Ledger, compared: Sequence[str]) -> None:
        file, digest = self._cache.put(state)
        figures = {
            "epoch": float(state.epoch),
            "sequence": float(state.sequence),
            "examples": float(state.examples),
            "log_loss": self._loss / (state.examples - self._saved),
        }
        event = ModelEvent(
            event_id=str(uuid.uuid4()),
            model_name=self._model_name,
            model_version=state.model_version,
            type=ModelEventType.MODEL_EVENT_TYPE_CHECKPOINTED,
            at_ms=time.time_ns() // 1_000_000,
            reason=f"{state.examples - self._saved:,} slots since the one before",
            sha256=digest,
            checkpoint_id=state.checkpoint_id,
            figures=figures,
            reign_id=state.reign_id,
        )
        arguments = ["store-checkpoint", "--model", self._model_name, "--file", str(file)]
        for name, value in figures.items():
            arguments += ["--figure", name, repr(value)]
        # With this one they are as many as a rollback can choose from, and the one that the champion goes on from.
        kept = list(ledger.checkpoints)[1 - CHECKPOINTS_KEPT :]
        if ledger.reign is not None and ledger.reign.checkpoint_id:
            kept.append(ledger.reign.checkpoint_id)
        for name in dict.fromkeys((*kept, *compared)):
            arguments += ["--keep", name]
        what = f"storing checkpoint {state.checkpoint_id} of {self._model_name}"
        process = MlflowProcess(what, "millrace.registry.transfer", arguments, self._mlflow)
        self._upload = _Upload(process, event, state.examples, self._loss)

    def _finish(self, now: float, upload: _Upload) -> ModelEvent | None:
        output = upload.process.poll()
        if output is None:
            return None
        # MLflow may have something to say before.
        stored = json.loads(output.splitlines()[-1])
        upload.event.run_id, upload.event.artifact_uri = stored["run_id"], stored["artifact_uri"]
        self._upload = None
        self._saved, self._loss = upload.examples, self._loss - upload.loss
        self._due_at = now + self._interval_s
        metrics.CHECKPOINTS.labels(self._model_name, "stored").inc()
        log.info("checkpoint stored", model=self._model_name, checkpoint=upload.event.checkpoint_id)
        return upload.event

    def _fail(self, now: float, error: Exception) -> None:
        self._upload = None
        self._due_at = now + self._retry_s
        metrics.CHECKPOINTS.labels(self._model_name, "failed").inc()
        log.warning("no checkpoint: learning goes on", problem=str(error), again_in_s=self._retry_s)
