"""Threads that a process cannot do without, and threads that it leaves behind."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from millrace.errors import MillraceError


class Indispensable:
    """Asks the process to stop when a thread of it ends by an error; a context manager that then raises it.

    Serving on with views that stand still would look healthy.

    Parameters
    ----------
    stop
        Asks the process to drain and end; called in the thread that ends.
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        self._failed: list[threading.ExceptHookArgs] = []
        self._former = threading.excepthook

    def __enter__(self) -> Self:
        threading.excepthook = self._on_failure
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        threading.excepthook = self._former
        if self._failed and error is None:
            thread, problem = self._failed[0].thread, self._failed[0].exc_value
            raise MillraceError(f"thread {thread.name if thread else 'unknown'} ended: {problem!r}") from problem

    def _on_failure(self, failure: threading.ExceptHookArgs) -> None:
        self._failed.append(failure)
        self._stop()


def in_time(call: Callable[[], object], timeout_s: float) -> None:
    """Make a call that may never return; the thread that makes it is left behind then.

    Raises
    ------
    TimeoutError
        It has not returned by then. It may yet do what it was called for.
    """
    ended: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def run() -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - it is the caller's
            ended.put(error)
        else:
            ended.put(None)

    threading.Thread(target=run, name=f"in time: {call!r}", daemon=True).start()
    try:
        error = ended.get(timeout=timeout_s)
    except queue.Empty:
        raise TimeoutError(f"no answer within {timeout_s:g} s") from None
    if error is not None:
        raise error
