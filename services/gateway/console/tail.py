"""A topic as it comes, for one page: what matches, no faster than a person and a browser can take it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any

from millrace.settings import Settings
from millrace.stream.feed import Feed
from millrace.stream.reader import Newest, TopicReader
from millrace.stream.worker import Record
from millrace.topics import Topic
from services.gateway.console.messages import Gist, Wanted, gist
from services.gateway.console.rendering import clock
from services.gateway.console.sse import Event

TICK_S = 0.4
ROWS_PER_S = 40.0
"""Rows that a page gets at most, over time: more than the eye follows. The rest is counted."""
FIRST_ROWS = 30
"""Of before the page was opened; also what comes at once at most."""
_CHUNK = 50


class Tail:
    """Follows a topic.

    Attributes
    ----------
    seen, matched, left_out
        Records so far; those that are looked for; those of them that no row was made of.
    """

    def __init__(self, settings: Settings, topic: Topic, wanted: Wanted, partition: int | None) -> None:
        self.seen = self.matched = self.left_out = 0
        self._wanted = wanted
        self._rows: deque[tuple[Record, Gist]] = deque(maxlen=FIRST_ROWS)
        self._came = 0
        partitions = None if partition is None else [partition]
        self._feed = Feed(
            f"console-tail-{topic.name}",
            lambda: TopicReader(settings.kafka, [topic], Newest(FIRST_ROWS), settings.stream, partitions),
            _CHUNK,
            self.take,
        )

    async def events(self) -> AsyncIterator[Event | None]:
        """The newest rows that match, each tick, and how many there were."""
        self._feed.start()
        told, room = 0, float(FIRST_ROWS)
        try:
            while True:
                await asyncio.sleep(TICK_S)
                room = min(room + ROWS_PER_S * TICK_S, float(FIRST_ROWS))
                if self.seen == told:
                    yield None
                    continue
                rows = self.drain(int(room))
                told = self.seen
                room -= len(rows["rows"])
                yield "rows", rows
        finally:
            await self._feed.close()

    def take(self, records: Sequence[Record]) -> None:
        """Records of the topic."""
        for record in records:
            self.seen += 1
            found = gist(record.message)
            if self._wanted.takes(found):
                self.matched += 1
                self._came += 1
                self._rows.append((record, found))

    def drain(self, most: int) -> dict[str, Any]:
        """What is shown of what came since the last time."""
        newest = sorted(self._rows, key=lambda one: one[0].append_time_ms)[max(0, len(self._rows) - most) :]
        rows = [row_of(record, found) for record, found in newest]
        self.left_out += self._came - len(rows)
        self._rows.clear()
        self._came = 0
        return {"rows": rows, "seen": self.seen, "matched": self.matched, "left_out": self.left_out}


def row_of(record: Record, found: Gist) -> dict[str, Any]:
    """A row of a table of messages, for JSON and for templates."""
    items = list(found.items)
    shown = items[0] if len(items) == 1 else ", ".join(items[:2]) + (f" +{len(items) - 2}" if len(items) > 2 else "")
    return {
        "at": clock(record.append_time_ms),
        "at_ms": record.append_time_ms,
        "partition": record.partition,
        "offset": record.offset,
        "kind": found.kind,
        "user": found.user,
        "items": shown,
        "text": found.text,
        "href": f"/console/topics/{record.topic}/{record.partition}/{record.offset}",
    }
