"""Server-sent events: what keeps an open page up to date."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

from starlette.responses import Response, StreamingResponse

from services.gateway.console.rendering import HEADERS
from services.gateway.problems import OVERLOADED, Problem

HEARTBEAT_S = 10.0
"""A comment after so much silence, so that connections are seen to be dead."""
# Browsers wait so long before they connect again.
_RETRY_MS = 2_000

Event = tuple[str, object]
"""Name of an event, and what it carries (JSON)."""


class Viewers:
    """Pages that are kept up to date.

    Parameters
    ----------
    most
        Of them; more are refused.

    Attributes
    ----------
    stopping
        Set when the process is to end: streams end then.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._now = 0
        self.stopping = False

    def stream(self, events: AsyncIterator[Event | None]) -> Response:
        """Send events as they come (None: nothing new yet) until the page is closed. Raises Problem."""
        if self._now >= self._most:
            raise Problem(OVERLOADED, f"{self._most} pages of the console are kept up to date already")
        headers = {**HEADERS, "X-Accel-Buffering": "no"}
        return StreamingResponse(self._sent(events), media_type="text/event-stream", headers=headers)

    async def _sent(self, events: AsyncIterator[Event | None]) -> AsyncIterator[str]:
        silent_since = asyncio.get_running_loop().time()
        self._now += 1
        try:
            yield f"retry: {_RETRY_MS}\n\n"
            async for event in events:
                if self.stopping:
                    return
                now = asyncio.get_running_loop().time()
                if event is not None:
                    name, content = event
                    yield f"event: {name}\ndata: {json.dumps(content, separators=(',', ':'))}\n\n"
                elif now - silent_since > HEARTBEAT_S:
                    yield ": still here\n\n"
                else:
                    continue
                silent_since = now
        finally:
            self._now -= 1
            await events.aclose()  # type: ignore[attr-defined]  # generators have it
