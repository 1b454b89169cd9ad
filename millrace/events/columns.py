"""Turns a row of somebody's file into an interaction, by a mapping of the contract's words to its columns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, TypeAlias

from millrace.errors import InvalidField, MillraceError
from millrace.events.build import CONTEXT_FIELDS, EventType, event_type, fill, fill_context
from millrace.events.rules import check_interaction
from millrace.v1.interaction_pb2 import Interaction

TimeUnit: TypeAlias = Literal["auto", "s", "ms", "iso"]
Row: TypeAlias = Mapping[str, object]
"""One row: the value of each column, as text (CSV, TSV) or as JSON gave it."""

SECONDS_BELOW = 100_000_000_000
"""A bare number below it is seconds (the year 5138), else milliseconds (from March 1973)."""

_DIGITS_MAX = 19
"""Of a 64-bit number. Longer text goes through float, which takes any length; int refuses thousands of digits."""
_INT64_MAX = 2**63 - 1
_REQUIRED = ("user", "item", "time")
_OPTIONAL = ("session", "type", "value", "event_id", "request_id", "custom_type")
_ATTRIBUTE = "attributes."


@dataclass(frozen=True)
class Columns:
    """Which column holds what.

    Attributes
    ----------
    user, item, time
        Columns that every row has.
    session, type, value, event_id, request_id, custom_type
        Further columns; None: the file has no such column.
    context
        Field of the contract's context, or name of an attribute -> column.
    default_type
        What was done, where no column says it.
    time_unit
        Unit of the time; ``auto`` takes numbers below 1e11 for seconds, other numbers for milliseconds, text for
        ISO 8601 (UTC where it names no zone).
    """

    user: str
    item: str
    time: str
    session: str | None = None
    type: str | None = None
    value: str | None = None
    event_id: str | None = None
    request_id: str | None = None
    custom_type: str | None = None
    context: Mapping[str, str] = field(default_factory=dict)
    default_type: EventType | str = "click"
    time_unit: TimeUnit = "auto"

    def names(self) -> list[str]:
        """Every column that is read."""
        return [column for word in _REQUIRED + _OPTIONAL if (column := getattr(self, word))] + list(
            self.context.values()
        )

    def interaction(self, row: Row, event_id: str) -> Interaction:
        """The interaction in a row, checked. ``event_id`` is used where no column holds one.

        Raises
        ------
        InvalidField
            A value is missing or breaks the contract.
        """
        event = Interaction(type=event_type(self.default_type if self.type is None else _text(row, self.type)))
        fill(
            event,
            event_id=event_id if self.event_id is None else _text(row, self.event_id),
            user_id=_text(row, self.user),
            item_id=_text(row, self.item),
            occurred_at_ms=time_ms(_present(row, self.time), self.time_unit),
            session_id=None if self.session is None else _text(row, self.session),
            value=None if self.value is None else _number(row, self.value),
            request_id=None if self.request_id is None else _text(row, self.request_id),
            custom_type=None if self.custom_type is None else _text(row, self.custom_type),
        )
        if self.context:
            fill_context(event.context, {name: _text(row, column) for name, column in self.context.items()})
        check_interaction(event)
        return event


def parse_columns(mapping: str, default_type: str = "click", time_unit: TimeUnit = "auto") -> Columns:
    """The mapping given as ``user=visitor,item=sku,time=ts,device=agent,attributes.plan=plan``.

    Raises
    ------
    MillraceError
        A word is unknown, given twice or has no column, or a required one is missing.
    """
    words: dict[str, str] = {}
    context: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in mapping.split(","))):
        word, _, column = (part.strip() for part in pair.partition("="))
        if not column:
            raise MillraceError(f"--map: {pair!r} is not WORD=COLUMN")
        if word in words or word in context:
            raise MillraceError(f"--map: {word} is given twice")
        if word in _REQUIRED or word in _OPTIONAL:
            words[word] = column
        elif word in CONTEXT_FIELDS:
            context[word] = column
        elif word.startswith(_ATTRIBUTE) and len(word) > len(_ATTRIBUTE):
            context[word.removeprefix(_ATTRIBUTE)] = column
        else:
            known = ", ".join((*_REQUIRED, *_OPTIONAL, *CONTEXT_FIELDS, _ATTRIBUTE + "NAME"))
            raise MillraceError(f"--map: {word!r} is unknown; known: {known}")
    if missing := [word for word in _REQUIRED if word not in words]:
        raise MillraceError(f"--map: no column for {', '.join(missing)}")
    event_type(default_type)
    return Columns(**words, context=context, default_type=default_type, time_unit=time_unit)


def check_header(columns: Columns, header: Iterable[str], path: object) -> None:
    """Check that a file has every column that is mapped, and has it once."""
    header = list(header)
    if missing := [name for name in columns.names() if name not in header]:
        raise MillraceError(
            f"{path} has no column {', '.join(map(repr, missing))}; it has {', '.join(header) or 'nothing'}"
        )
    if twice := [name for name in columns.names() if header.count(name) > 1]:
        raise MillraceError(f"{path} has column {', '.join(map(repr, twice))} more than once; each needs its own name")


def time_ms(value: object, unit: TimeUnit, field: str = "occurred_at_ms") -> int:
    """Unix milliseconds of a time as files hold it."""
    if unit != "iso":
        number = as_number(value)
        if number is not None:
            if unit == "s" or (unit == "auto" and number < SECONDS_BELOW):
                number *= 1000
            try:
                return round(number)
            except (OverflowError, ValueError) as error:  # inf, nan
                raise InvalidField(field, repr(value), "a finite number") from error
    if unit in ("auto", "iso") and isinstance(value, str):
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            pass  # named below, as any other value that is no time
        else:
            return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
    allowed = {"auto": "seconds, milliseconds or ISO 8601", "iso": "ISO 8601"}.get(unit, f"a number of {unit}")
    raise InvalidField(field, repr(value), allowed)


def as_number(value: object) -> int | float | None:
    """The number that a value is or spells; None if it is none."""
    if isinstance(value, str):
        if value.isdecimal() and len(value) <= _DIGITS_MAX:
            return int(value)
        try:
            return float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if abs(value) > _INT64_MAX:
        # JSON takes whole numbers of any length, which neither a field nor a float can hold.
        return math.inf if value > 0 else -math.inf
    return value


def _present(row: Row, column: str) -> object:
    try:
        return row[column]
    except KeyError:
        raise InvalidField(column, "missing", "a value in every row") from None


def _text(row: Row, column: str) -> str:
    """A column's value as text; JSON files hold ids as numbers too."""
    value = _present(row, column)
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is None:
        return ""
    raise InvalidField(column, repr(value), "text or a whole number")


def _number(row: Row, column: str) -> float | None:
    """A column's value as a number; None where it is empty."""
    value = _present(row, column)
    if value is None or value == "":
        return None
    number = as_number(value)
    if number is None:
        raise InvalidField(column, repr(value), "a number")
    return float(number)
