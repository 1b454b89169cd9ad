"""What runs while somebody looks, and a little longer: who goes from page to page finds it still there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

LINGER_S = 30.0
"""From when nobody looks any more to the end."""


class Watched:
    """Starts something for the first who looks, and ends it a while after the last.

    Parameters
    ----------
    start, stop
        What begins it, and what ends it.
    """

    def __init__(
        self, start: Callable[[], Awaitable[None]], stop: Callable[[], Awaitable[None]], linger_s: float = LINGER_S
    ) -> None:
        self._start, self._stop, self._linger_s = start, stop, linger_s
        self._lock = asyncio.Lock()
        self._lookers = 0
        self._ending: asyncio.Task[None] | None = None
        self.running = False

    @asynccontextmanager
    async def looking(self) -> AsyncIterator[None]:
        """Keeps it running for the length of a ``with`` block."""
        self._lookers += 1
        try:
            async with self._lock:
                if not self.running:
                    await self._start()
                    self.running = True
            yield
        finally:
            self._lookers -= 1
            if not self._lookers:
                self._end_later()

    def _end_later(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
        self._ending = asyncio.create_task(self._end_after(self._linger_s))

    async def _end_after(self, wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        async with self._lock:
            if self.running and not self._lookers:
                self.running = False
                await self._stop()

    async def close(self) -> None:
        """End it at once."""
        if self._ending is not None:
            self._ending.cancel()
        async with self._lock:
            if self.running:
                self.running = False
                await self._stop()
