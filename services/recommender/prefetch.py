"""Brings versions and checkpoints to this machine's disk in a thread of its own: serving does not wait for MLflow."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import structlog

from millrace.errors import InfrastructureError, MillraceError
from millrace.stream.backoff import Backoff

log = structlog.stdlib.get_logger(__name__)

# A try takes seconds of a process that imports MLflow.
_BACKOFF_MAX_S = 15.0

Fetch = Callable[[], object]
"""Returns when it is on disk; raises what ``ModelCache.ensure`` and ``CheckpointCache.load`` do."""


class Prefetch:
    """Fetches what is wanted, one after the other, until all of it is here.

    Attributes
    ----------
    here
        What is on disk, by name.
    problems
        Why something is not here yet, by name.
    unusable
        What nobody can serve: damaged wherever it is, or of other features.
    """

    def __init__(self) -> None:
        self.here: set[str] = set()
        self.problems: dict[str, str] = {}
        self.unusable: set[str] = set()
        self._wanted: Mapping[str, Fetch] = {}
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)
        self._thread.start()

    def want(self, wanted: Mapping[str, Fetch]) -> None:
        """These by name, the most urgent first, and no others."""
        with self._changed:
            if list(wanted) != list(self._wanted):
                self._wanted = wanted
                self.here &= wanted.keys()
                self._changed.notify()

    def again(self, name: str) -> None:
        """It is not here, or no more: somebody removed it, or it was damaged on disk."""
        with self._changed:
            self.here.discard(name)
            self._changed.notify()

    def give_up(self, name: str, problem: str) -> None:
        """It is no use to have it."""
        self.problems[name] = problem
        self.unusable.add(name)
        log.error("cannot be used", what=name, problem=problem)

    def close(self) -> None:
        """Stop; a download under way ends with the process."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join(timeout=1.0)

    def _run(self) -> None:
        backoff = Backoff(_BACKOFF_MAX_S)
        while (found := self._next()) is not None:
            name, fetch = found
            try:
                fetch()
            except (InfrastructureError, OSError) as error:
                # MLflow is away, or the disk is full: what serves goes on serving.
                self.problems[name] = str(error)
                pause_s = backoff.next()
                log.warning("not here yet", what=name, problem=str(error), again_in_s=round(pause_s, 1))
                with self._changed:
                    self._changed.wait_for(lambda: self._stopped, pause_s)
            except MillraceError as error:
                self.give_up(name, str(error))
            else:
                backoff.reset()
                self.problems.pop(name, None)
                self.here.add(name)

    def _next(self) -> tuple[str, Fetch] | None:
        """The first that is wanted and not here, once there is one; None at the end."""
        with self._changed:
            while not self._stopped:
                for name, fetch in self._wanted.items():
                    if name not in self.here and name not in self.unusable:
                        return name, fetch
                self._changed.wait()
        return None
