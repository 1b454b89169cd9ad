"""The end of a process: a bounded drain at the first SIGTERM or SIGINT, an exit at once at the second."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

import structlog

log = structlog.stdlib.get_logger(__name__)


class Shutdown:
    """Calls ``stop`` at the first signal; a context manager that puts the old handlers back.

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
        self._watchdog: threading.Timer | None = None
        self._former = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def __enter__(self) -> Self:
        for number in self._former:
            signal.signal(number, self._on_signal)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        name = signal.Signals(number).name
        if self._watchdog is not None:
            log.warning("second signal: exit at once", signal=name)
            # The shell's convention for a process that a signal ended.
            os._exit(128 + number)
        log.info("draining", signal=name, at_most_s=self._drain_timeout_s)
        self._watchdog = threading.Timer(self._drain_timeout_s, self._give_up)
        self._watchdog.daemon = True
        self._watchdog.start()
        self._stop()

    def _give_up(self) -> None:
        log.error("drain took too long: exit; what is not committed will be delivered again")
        os._exit(1)
