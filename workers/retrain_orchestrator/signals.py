"""How a training job is told to end: a signal breaks off whatever it does, but for steps that must be whole."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from millrace.registry.training_runs import Cancelled
from millrace.stream.shutdown import Shutdown

TIDYING_S = 30.0
"""Time to close the run in MLflow and delete files after a signal."""


class Cancellation:
    """Raises ``Cancelled`` in the main thread at the first signal; a context manager. A second signal ends at once.

    Python drops what a signal's handler raises while a callback of foreign code or a finaliser runs (LLVM's at every
    function that is compiled): ``check`` asks again, at each step of the work and before what must be whole.
    """

    def __init__(self) -> None:
        self._held = self._asked = self._late = False
        self._shutdown = Shutdown(self._ask, TIDYING_S)

    def __enter__(self) -> Cancellation:
        self._shutdown.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._shutdown.__exit__(None, None, None)

    @contextlib.contextmanager
    def held(self, last: bool = False) -> Iterator[None]:
        """A step that is done whole; a signal during it counts after it, or never if it is the last one."""
        self.check()
        self._held, self._late = True, last
        try:
            yield
        finally:
            self._held = False
        self.check()

    def check(self) -> None:
        """Raise ``Cancelled`` if a signal came."""
        if self._asked and not self._held and not self._late:
            raise Cancelled

    def _ask(self) -> None:
        self._asked = True
        self.check()
