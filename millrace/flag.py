"""A flag for signal handlers."""

from __future__ import annotations

from contextlib import suppress
from queue import Empty, SimpleQueue


class Flag:
    """Is set by a signal's handler, and waited for by the main thread, which the handler interrupts.

    ``threading.Event`` is not for that: its lock may be held by the wait that the handler interrupts, and then the
    handler waits for itself. ``SimpleQueue.put`` is made for handlers.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._news: SimpleQueue[None] = SimpleQueue()

    def set(self) -> None:
        """Set it, for good; from a handler, or from any thread."""
        self._is_set = True
        self._news.put(None)

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._is_set

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, at most so many seconds if given; whether it is. For one thread."""
        if not self._is_set:
            with suppress(Empty):
                self._news.get(timeout=timeout)
        return self._is_set
