"""How a pipeline does, a reading a second while somebody looks."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import structlog

from millrace.events.build import now_ms
from millrace.settings import Settings, home
from millrace.stream.feed import Feed
from millrace.stream.reader import TopicReader
from millrace.topics import IMPRESSIONS, INTERACTIONS, MODEL_UPDATES, OUTCOMES
from services.gateway.console.asking import Said, ask_all
from services.gateway.console.figures import Figures, lags
from services.gateway.console.freshness import Freshness
from services.gateway.console.watched import Watched
from services.gateway.console.words import PARTS

log = structlog.stdlib.get_logger(__name__)

INTERVAL_S = 1.0
KEPT = 300
"""Readings kept: five minutes of charts."""
# Of outcomes that taught, so many ms are looked back.
_TAUGHT_OVER_MS = 10_000
_CHUNK = 50

Reading = dict[str, Any]
"""What a page shows, ready for JSON."""


class Pulse:
    """Takes readings while somebody looks. To be made, used and closed on one event loop.

    Attributes
    ----------
    readings
        The last ones, the newest last.
    said
        What each process said for the newest.
    """

    def __init__(self, settings: Settings) -> None:
        self.readings: deque[Reading] = deque(maxlen=KEPT)
        self.said: Sequence[Said] = ()
        self._settings = settings
        self._addresses = [one.strip() for one in settings.gateway.console_metrics.split(",") if one.strip()]
        self._figures, self._freshness = Figures(), Freshness()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._feed: Feed | None = None
        self.watched = Watched(self._start, self._stop)

    async def follow(self) -> AsyncIterator[Reading | None]:
        """Each reading from now on; None in between, so that who follows can stop."""
        async with self.watched.looking():
            while True:
                changed = self._changed
                try:
                    async with asyncio.timeout(INTERVAL_S):
                        await changed.wait()
                    yield self.readings[-1]
                except TimeoutError:
                    yield None

    async def once(self) -> Sequence[Said]:
        """What each process says now."""
        return await ask_all(home() / "run", self._addresses)

    async def _start(self) -> None:
        topics = [INTERACTIONS, IMPRESSIONS, OUTCOMES, MODEL_UPDATES]
        self._figures, self._freshness = Figures(), Freshness()
        self._feed = Feed(
            "console-freshness",
            lambda: TopicReader(self._settings.kafka, topics, "end", self._settings.stream),
            _CHUNK,
            lambda records: self._freshness.take(records),
        )
        self._feed.start()
        self._task = asyncio.create_task(self._read())

    async def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
        if self._feed is not None:
            await self._feed.close()
        self.readings.clear()

    async def _read(self) -> None:
        while True:
            began_s = time.monotonic()
            try:
                self.said = await self.once()
                self.readings.append(self._reading(began_s))
                self._changed.set()
                self._changed = asyncio.Event()
            except (OSError, ValueError, KeyError) as error:
                # A process may be writing where it listens, or ending, at this moment: the next reading tells.
                log.warning("no reading", problem=repr(error))
            await asyncio.sleep(max(0.1, began_s + INTERVAL_S - time.monotonic()))

    def _reading(self, at_s: float) -> Reading:
        rates, delays = self._figures.rates(self.said, at_s), self._figures.delays(self.said)
        learned = self._freshness.outcome_to_model_ms(now_ms() - _TAUGHT_OVER_MS)
        return {
            "at_ms": now_ms(),
            "rates": rates,
            "learning": self._figures.learning(self.said),
            "freshness": {
                "features": delays["features"],
                "recommendation": _sum(delays["features"], delays["answer"]),
                "model": _sum(learned, delays["parameters"]),
            },
            "knew": {
                "answers": self._freshness.answers,
                "missed": self._freshness.missed,
                "stalest_ms": self._freshness.stalest_ms,
            },
            "lags": [asdict(lag) for lag in lags(self.said)],
            "parts": parts_of(self.said),
        }

    async def close(self) -> None:
        """Stop."""
        await self.watched.close()


def numbers(reading: Reading) -> dict[str, Any]:
    """What charts are drawn of."""
    return {name: reading[name] for name in ("at_ms", "rates", "freshness", "learning")}


def parts_of(said: Sequence[Said]) -> list[dict[str, object]]:
    """Every part that there should be, with how it is: ready, waiting, silent or absent."""
    by_name: dict[str, list[Said]] = {}
    for one in said:
        by_name.setdefault(one.process, []).append(one)
    found = [_part(name, by_name.get(name, ())) for name in PARTS if name in by_name or name != "simulate"]
    return found + [_part(name, those) for name, those in by_name.items() if name not in PARTS]


def _part(name: str, said: Sequence[Said]) -> dict[str, object]:
    answering = [one for one in said if one.answers]
    state = "absent"
    if said:
        state = "silent"
    if answering:
        state = "ready" if all(one.ready for one in answering) else "waiting"
    words: Mapping[str, str] = PARTS[name]._asdict() if name in PARTS else {"title": name, "does": "", "without": ""}
    waits_for = sorted({what for one in answering for what in one.waits_for})
    return {"name": name, "state": state, "processes": len(answering), "waits_for": waits_for, **words}


def _sum(one: tuple[float, float] | None, other: tuple[float, float] | None) -> tuple[float, float] | None:
    """Of two steps, one after the other; the 99th percentiles together are at most that of both."""
    return None if one is None or other is None else (one[0] + other[0], one[1] + other[1])
