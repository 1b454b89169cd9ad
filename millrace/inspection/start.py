"""Where to begin to read: ``--from beginning|end|-N|TIME|OFFSET``, and other times as people write them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from millrace.errors import InvalidField
from millrace.events.columns import time_ms
from millrace.settings import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS

_AGO = re.compile(r"(\d{1,9})(s|m|h|d)")
_UNITS = {"s": SECOND_MS, "m": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS}
_OFFSET = re.compile(r"\d{1,18}")
# They are held in memory, to be put in the order of their times.
_NEWEST = re.compile(r"-(\d{1,5})")
TIMES = "15m, 2h, 3d (ago), ISO 8601 (UTC unless it says otherwise), or @ and Unix seconds or milliseconds"
"""The times that are understood, for messages."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """The oldest records that the topic keeps."""


@dataclass(frozen=True, slots=True)
class End:
    """What comes from now on."""


@dataclass(frozen=True, slots=True)
class Newest:
    """So many records before the end, of all partitions together."""

    records: int


@dataclass(frozen=True, slots=True)
class Since:
    """What was appended at a time (Unix milliseconds) or later."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class Offset:
    """This offset of each partition that is read."""

    offset: int


Start = Beginning | End | Newest | Since | Offset


def parse_start(text: str, now_ms: int) -> Start:
    """What ``--from`` says (``now_ms``: Unix milliseconds). Raises InvalidField."""
    if text == "beginning":
        return Beginning()
    if text == "end":
        return End()
    if newest := _NEWEST.fullmatch(text):
        return Newest(int(newest[1]))
    if _OFFSET.fullmatch(text):
        return Offset(int(text))
    try:
        return Since(parse_time(text, now_ms, "from"))
    except InvalidField as error:
        raise InvalidField("from", repr(text), f"beginning, end, -N (the N newest), an offset, {TIMES}") from error


def parse_time(text: str, now_ms: int, field: str) -> int:
    """A time in Unix milliseconds: ``15m`` (ago), ISO 8601, or ``@`` and Unix seconds or milliseconds."""
    if ago := _AGO.fullmatch(text):
        return max(0, now_ms - int(ago[1]) * _UNITS[ago[2]])
    try:
        at_ms = time_ms(text[1:], "auto", field) if text.startswith("@") else time_ms(text, "iso", field)
    except InvalidField as error:
        raise InvalidField(field, repr(text), TIMES) from error
    if at_ms < 0:
        raise InvalidField(field, repr(text), "times since 1970")
    return at_ms
