"""What the console's routes work with, beside the gateway's own parts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.responses import Response

from millrace.settings import Settings
from services.gateway.console.pulse import Pulse, numbers
from services.gateway.console.rendering import Renderer
from services.gateway.console.sse import Event, Viewers
from services.gateway.console.weights import Weights

# Parts of pages that change by themselves are looked at so often, and sent where they changed.
FRAGMENT_EVERY_S = 1.0
# Pieces of topics are read by so many threads: each has a consumer and up to 20,000 records.
_READERS = 3

Values = Callable[[], Awaitable[dict[str, Any]]]
"""What a template is given."""


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

    def live(self, template: str, values: Values, every_s: float = FRAGMENT_EVERY_S) -> Response:
        """Sends a part of a page again whenever it has changed."""

        async def events() -> AsyncIterator[Event | None]:
            sent = ""
            while True:
                text = self.renderer.fragment(template, **await values())
                yield None if text == sent else ("html", {"target": "live", "html": text})
                sent = text
                await asyncio.sleep(every_s)

        return self.viewers.stream(events())

    def beating(self, template: str, values: Values) -> Response:
        """Sends what charts are drawn of, a reading a second, and a part of the page whenever it has changed."""

        async def events() -> AsyncIterator[Event | None]:
            sent = ""
            yield "history", [numbers(one) for one in self.pulse.readings]
            async for reading in self.pulse.follow():
                if reading is not None:
                    yield "reading", numbers(reading)
                text = self.renderer.fragment(template, **await values())
                yield None if text == sent else ("html", {"target": "live", "html": text})
                sent = text

        return self.viewers.stream(events())

    async def close(self) -> None:
        """Stop all of it."""
        await self.pulse.close()
        await self.weights.close()
