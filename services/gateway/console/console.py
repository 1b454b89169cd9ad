"""What the console's routes work with, beside the gateway's own parts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.responses import Response

from millrace.settings import Settings
from services.gateway.console.pulse import Pulse
from services.gateway.console.rendering import Renderer
from services.gateway.console.sse import Event, Viewers
from services.gateway.console.weights import Weights

# Parts of pages that change by themselves are looked at so often, and sent where they changed.
FRAGMENT_EVERY_S = 1.0
# Pieces of topics are read by so many threads: each has a consumer and up to 20,000 records.
_READERS = 3


class Console:
    """Templates, and what runs while somebody looks. To be made, used and closed on one event loop."""

    def __init__(self, settings: Settings) -> None:
        self.renderer = Renderer()
        self.viewers = Viewers(settings.gateway.console_viewers_max)
        self.pulse = Pulse(settings)
        self.weights = Weights(settings, settings.recommender.model_name)
        self._reading = asyncio.Semaphore(_READERS)

    async def read(self, look: Callable[[], Any]) -> Any:
        """What a look at topics finds, in a thread; only so many at once."""
        async with self._reading:
            return await asyncio.to_thread(look)

    def live(self, template: str, values: Callable[[], dict[str, Any]], every_s: float = FRAGMENT_EVERY_S) -> Response:
        """Sends a part of a page again whenever it has changed."""

        async def events() -> AsyncIterator[Event | None]:
            sent = ""
            while True:
                text = self.renderer.fragment(template, **values())
                yield None if text == sent else ("html", {"target": "live", "html": text})
                sent = text
                await asyncio.sleep(every_s)

        return self.viewers.stream(events())

    async def close(self) -> None:
        """Stop all of it."""
        await self.pulse.close()
        await self.weights.close()
