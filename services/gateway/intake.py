"""Takes events and catalogue entries: one, or a batch of which each stands for itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from starlette.responses import JSONResponse, Response

from millrace.client import AsyncEventProducer
from millrace.errors import InvalidField, MillraceError
from millrace.settings import GatewaySettings
from millrace.topics import Topic
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.item_pb2 import Item
from services.gateway import metrics
from services.gateway.problems import OVERLOADED, Problem, ProblemResponse, as_dict, problem_of

M = TypeVar("M", Interaction, Item)
Written = Mapping[str, object]

# Entries read before other requests get their turn: about 2 ms.
_CHUNK = 100


@dataclass(slots=True)
class Taken:
    """What became of the entries of a request.

    Attributes
    ----------
    ids
        Of each entry, in the order of the request; None where the entry failed.
    failed
        Place of an entry -> why the broker does not have it.
    """

    ids: list[str | None]
    failed: dict[int, MillraceError] = field(default_factory=dict)

    def response(self, batch: bool) -> Response:
        """202 if the broker has all of them, 207 if some; an error if none, or for one entry that is no batch."""
        if not self.failed:
            return JSONResponse(self._content([]), 202)
        if not batch:
            raise self.failed[0]
        failed = [as_dict(problem_of(self.failed[place])) | {"index": place} for place in sorted(self.failed)]
        if len(failed) < len(self.ids):
            return EntriesResponse(self._content(failed), 207)
        worst = problem_of(max(self.failed.values(), key=lambda error: problem_of(error).kind.status))
        raise Problem(worst.kind, f"none of {len(failed)} entries was taken", failed=failed)

    def _content(self, failed: list[dict[str, object]]) -> dict[str, object]:
        return {"accepted": len(self.ids) - len(failed), "ids": self.ids, "failed": failed}


class EntriesResponse(ProblemResponse):
    """Problems among what was taken."""

    media_type = "application/json"


class Intake:
    """Puts entries on their topics, and answers when the broker has them."""

    def __init__(self, events: AsyncEventProducer, own: GatewaySettings) -> None:
        self._events = events
        self._batch_max = own.batch_max
        self._pending_max = own.events_pending_max
        self._pending = 0
        metrics.PENDING.set_function(lambda: self._pending)
        metrics.PENDING_MAX.set(self._pending_max)

    async def take(
        self, topic: Topic, body: object, read: Callable[[Written, int], M], id_of: Callable[[M], str]
    ) -> Response:
        """Take an object, or a list of them.

        Parameters
        ----------
        read
            Makes the message of an object and its place; raises InvalidField.
        id_of
            The id that is told of a message.

        Raises
        ------
        InvalidField, Problem, DeliveryFailed
            Nothing was taken.
        """
        batch = isinstance(body, list)
        entries = body if isinstance(body, list) else [body]
        if not 1 <= len(entries) <= self._batch_max:
            raise InvalidField("body", f"{len(entries)} entries", f"1 to {self._batch_max}")
        if self._pending + len(entries) > self._pending_max:
            raise Problem(OVERLOADED, f"{self._pending} events and items wait for the broker", system="kafka")
        self._pending += len(entries)
        try:
            taken = await self._send(entries, read, id_of)
        finally:
            self._pending -= len(entries)
        metrics.MESSAGES.labels(topic.name, "acknowledged").inc(len(entries) - len(taken.failed))
        if taken.failed:
            invalid = sum(isinstance(error, InvalidField) for error in taken.failed.values())
            metrics.MESSAGES.labels(topic.name, "invalid").inc(invalid)
            metrics.MESSAGES.labels(topic.name, "undelivered").inc(len(taken.failed) - invalid)
        return taken.response(batch)

    async def put(self, topic: Topic, message: Interaction) -> None:
        """Have the broker take one message. Raises Problem or DeliveryFailed."""
        if self._pending >= self._pending_max:
            raise Problem(OVERLOADED, f"{self._pending} events and items wait for the broker", system="kafka")
        self._pending += 1
        try:
            undelivered = await self._events.deliver([message])
        finally:
            self._pending -= 1
        metrics.MESSAGES.labels(topic.name, "undelivered" if undelivered else "acknowledged").inc()
        if undelivered:
            raise undelivered[0]

    async def _send(self, entries: list[object], read: Callable[[Written, int], M], id_of: Callable[[M], str]) -> Taken:
        taken = Taken([None] * len(entries))
        messages: list[M] = []
        places: list[int] = []
        for place, entry in enumerate(entries):
            if place and place % _CHUNK == 0:
                await asyncio.sleep(0)
            try:
                if not isinstance(entry, dict):
                    raise InvalidField("body", f"a JSON {type(entry).__name__}", "a JSON object, or a list of them")
                messages.append(read(entry, place))
                places.append(place)
            except InvalidField as error:
                taken.failed[place] = error
        undelivered = await self._events.deliver(messages)
        for number, (place, message) in enumerate(zip(places, messages, strict=True)):
            if number in undelivered:
                taken.failed[place] = undelivered[number]
            else:
                taken.ids[place] = id_of(message)
        return taken
