"""A Redis that dies and comes back without its newest writes."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from deploy.embedded.member import running
from deploy.embedded.ports import free_port
from deploy.embedded.redis import Redis
from millrace.settings import StackSettings

_LOOK_EVERY_S = 0.005
# Ten seconds of looks, for losses of one.
_LOOKS_KEPT = 2_000


@dataclass(frozen=True, slots=True)
class _Redis(Redis):
    """Each write is in the file before it is answered: how much is lost is up to the test, not to the disk."""

    def configuration(self) -> Mapping[str, str]:
        return {**Redis.configuration(self), "appendfsync": "no"}


class LosingRedis:
    """Runs until :meth:`close`, but for the moments in which it loses what it wrote last."""

    def __init__(self, folder: Path) -> None:
        self._member = _Redis(folder, free_port(), StackSettings().redis)
        self._looks: deque[tuple[float, int]] = deque(maxlen=_LOOKS_KEPT)
        self._running = ExitStack()
        self._process = self._running.enter_context(running(self._member))
        self._ends = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()

    @property
    def url(self) -> str:
        return self._member.address

    @contextmanager
    def losing(self, within_s: float) -> Iterator[int]:
        """Kill -9; in the block it is away, after it back without what it wrote in its last ``within_s``.

        Yields how many bytes of its file it has lost: perhaps none if this process was not there to see the file grow.
        """
        self._process.kill()
        self._process.wait()
        file = self._file()
        size, lost_from = file.stat().st_size, time.monotonic() - within_s
        # A look's time is from before it, so that everything written until then is in the size.
        kept = next((seen for at, seen in self._looks if at >= lost_from), size)
        os.truncate(file, kept)
        yield size - kept
        self._running.close()
        self._looks.clear()
        self._process = self._running.enter_context(running(self._member))

    def close(self) -> None:
        """End it."""
        self._ends.set()
        self._watch.join()
        self._running.close()

    def _look(self) -> None:
        while not self._ends.wait(_LOOK_EVERY_S):
            at = time.monotonic()
            with suppress(OSError):
                self._looks.append((at, self._file().stat().st_size))

    def _file(self) -> Path:
        """The file that grows: Redis 7 has several, of which the newest holds increments."""
        folder = self._member.folder
        increments = sorted((folder / "appendonlydir").glob("*.incr.aof"), key=lambda file: file.stat().st_mtime)
        return increments[-1] if increments else folder / "appendonly.aof"
