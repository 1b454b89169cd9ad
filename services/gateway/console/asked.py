"""What a person looks for in a topic: filters, and a place to begin at."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

from pydantic import BaseModel

from millrace.errors import InvalidField
from millrace.events.build import now_ms
from millrace.events.columns import time_ms
from services.gateway.console.messages import Wanted
from services.gateway.console.reading import Piece, Place

AGO_MS: Mapping[str, int] = {
    "1 min ago": 60_000,
    "10 min ago": 600_000,
    "1 h ago": 3_600_000,
    "1 day ago": 86_400_000,
}

FILTERS = ("user", "item", "kind", "partition")
"""Names of what is asked of messages, wherever they stand."""


class Asked(BaseModel):
    """As it stands in an address; what is empty is not asked.

    Attributes
    ----------
    partition, offset
        Numbers. An offset is one of a partition.
    at
        One of ``AGO_MS``, or a time: ISO 8601 (UTC, unless it says otherwise) or Unix seconds or milliseconds.
    goes_on
        Offsets of partitions, as ``Piece.goes_on`` has them: ``0:12,1:40``.
    """

    user: str = ""
    item: str = ""
    kind: str = ""
    partition: str = ""
    offset: str = ""
    at: str = ""
    goes_on: str = ""

    @property
    def wanted(self) -> Wanted:
        """The filters."""
        return Wanted(self.user.strip(), self.item.strip(), self.kind.strip().lower())

    def number(self) -> int | None:
        """The partition; None: all. Raises InvalidField."""
        return _number("partition", self.partition)

    def place(self) -> Place | None:
        """Where to begin; None: now. Raises InvalidField."""
        if self.goes_on:
            return Place(offsets=dict(_pair(one) for one in self.goes_on.split(",")))
        offset, number = _number("offset", self.offset), self.number()
        if offset is not None:
            if number is None:
                raise InvalidField("partition", "missing", "the number of the partition that the offset is of")
            return Place(offsets={number: offset})
        at = self.at.strip()
        if not at:
            return None
        return Place(time_ms=now_ms() - AGO_MS[at] if at in AGO_MS else time_ms(at, "auto", "at"))

    def later(self, topic: str, piece: Piece) -> str:
        """Where it goes on after a piece."""
        given = {name: value for name, value in self.model_dump().items() if value}
        given |= {"goes_on": ",".join(f"{number}:{offset}" for number, offset in piece.goes_on.items())}
        return f"/console/topics/{topic}?{urlencode(given)}"


def _pair(text: str) -> tuple[int, int]:
    number, _, offset = text.partition(":")
    found = _number("goes_on", number), _number("goes_on", offset)
    if found[0] is None or found[1] is None:
        raise InvalidField("goes_on", repr(text), "partition:offset")
    return found[0], found[1]


def _number(name: str, text: str) -> int | None:
    stripped = text.strip()
    if not stripped:
        return None
    if not (stripped.isascii() and stripped.isdecimal()) or len(stripped) > 18:
        raise InvalidField(name, repr(text), "a whole number from 0")
    return int(stripped)
