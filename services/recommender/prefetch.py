"""Brings checkpoints to this machine's disk before anybody asks for one: a rollback must not wait for MLflow."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import structlog

from millrace.errors import InfrastructureError, MillraceError
from millrace.registry.checkpoints import CheckpointCache
from millrace.stream.backoff import Backoff
from millrace.v1.model_pb2 import ModelEvent
from services.recommender import metrics

log = structlog.stdlib.get_logger(__name__)

# A try takes seconds of a process that imports MLflow.
_BACKOFF_MAX_S = 60.0


class Prefetch:
    """Fetches in a thread of its own, the newest first, until all that are wanted are here.

    Attributes
    ----------
    unusable
        Ids of checkpoints that nobody can serve: damaged wherever they are, or of other features.
    """

    def __init__(self, model_name: str, cache: CheckpointCache) -> None:
        self.unusable: set[str] = set()
        self._model_name = model_name
        self._cache = cache
        self._wanted: dict[str, ModelEvent] = {}
        self._here: set[str] = set()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)
        self._thread.start()

    def want(self, checkpoints: Iterable[ModelEvent]) -> None:
        """These, the most urgent first, and no others."""
        with self._changed:
            self._wanted = {event.checkpoint_id: event for event in checkpoints}
            self._here &= self._wanted.keys()
            self._changed.notify()

    def give_up(self, checkpoint_id: str, problem: str) -> None:
        """It is no use to have it."""
        self.unusable.add(checkpoint_id)
        log.error("checkpoint cannot be used", checkpoint=checkpoint_id, problem=problem)

    def close(self) -> None:
        """Stop; a download under way ends with the process."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join(timeout=1.0)

    def _run(self) -> None:
        backoff = Backoff(_BACKOFF_MAX_S)
        while (event := self._next()) is not None:
            try:
                self._cache.load(event)
            except InfrastructureError as error:
                pause_s = backoff.next()
                log.warning("checkpoint not here yet", problem=str(error), again_in_s=round(pause_s, 1))
                with self._changed:
                    self._changed.wait_for(lambda: self._stopped, pause_s)
            except MillraceError as error:
                self.give_up(event.checkpoint_id, str(error))
            else:
                backoff.reset()
                self._here.add(event.checkpoint_id)
                metrics.CHECKPOINTS.labels(self._model_name).set(len(self._here))

    def _next(self) -> ModelEvent | None:
        """The first that is wanted and not here, once there is one; None at the end."""
        with self._changed:
            while not self._stopped:
                for name, event in self._wanted.items():
                    if name not in self._here and name not in self.unusable:
                        return event
                self._changed.wait()
        return None
