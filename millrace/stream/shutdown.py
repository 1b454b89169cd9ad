"""The end of a process: a bounded drain at the first SIGTERM or SIGINT, an exit at once at the second."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from types import FrameType, TracebackType
from typing import Self

import structlog

log = structlog.stdlib.get_logger(__name__)


class Shutdown:
    """Calls ``stop`` at the first signal; a context manager that puts the old handlers back.

    The handler itself writes no log: it may have interrupted the main thread in the middle of a line, and Python
    refuses a second one inside of it. A thread does, and watches over the time.

    Parameters
    ----------
    stop
        Asks the process to drain and end; must return at once.
    drain_timeout_s
        The process is ended when it still runs so long after the first signal. Nothing is lost by that: what
        was not committed is delivered again.
    """

    def __init__(self, stop: Callable[[], None], drain_timeout_s: float) -> None:
        self._stop = stop
        self._drain_timeout_s = drain_timeout_s
        self._asked = False
        # The signal's name, and then, or instead, that the block has ended: "".
        self._news: SimpleQueue[str] = SimpleQueue()
        self._watcher = threading.Thread(target=self._watch, name="shutdown", daemon=True)
        self._former = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def __enter__(self) -> Self:
        self._watcher.start()
        for number in self._former:
            signal.signal(number, self._on_signal)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._news.put("")
        self._watcher.join()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._asked:
            # The shell's convention for a process that a signal ended.
            os._exit(128 + number)
        self._asked = True
        self._news.put(signal.Signals(number).name)
        self._stop()

    def _watch(self) -> None:
        name = self._news.get()
        if not name:
            return
        log.info("draining", signal=name, at_most_s=self._drain_timeout_s)
        try:
            self._news.get(timeout=self._drain_timeout_s)
        except Empty:
            log.error("drain took too long: exit; what is not committed will be delivered again")
            os._exit(1)
