"""The events that are gone through: compact, checked, in the order of their times, and divided into periods."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import islice, pairwise
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Protocol, TypeAlias

from millrace.errors import InvalidField, MillraceError
from millrace.events.columns import SECONDS_BELOW, Columns, as_number, check_header
from millrace.events.datasets import WEEK_MS, session_columns, session_rows
from millrace.events.files import Format, NumberedRow, header_of, read_rows
from millrace.events.sources import Source
from millrace.features.event_intake import TakenEvent
from millrace.ranking.circumstances import Circumstances, circumstances
from millrace.ranking.labels import labels_of
from millrace.v1.item_pb2 import Item


class Event(TakenEvent, Protocol):
    """What the evaluator reads of an event: an ``Interaction`` has it too."""

    @property
    def value(self) -> float: ...


class Happened(NamedTuple):
    """An event in memory. A sixth of an ``Interaction``, and there are millions."""

    user_id: str
    item_id: str
    type: int
    occurred_at_ms: int
    session_id: str
    value: float
    event_id: str
    """Empty where the file has none: then it is like no other."""
    context: Circumstances = ()


Labels: TypeAlias = Mapping[str, list[int]]


@dataclass(frozen=True)
class EventStream:
    """Events in order.

    Attributes
    ----------
    name
        What is evaluated, for people.
    events
        All of them.
    starts
        Where each period begins among them; the first is 0.
    tested_from
        Place of the first event that is to be counted.
    checksum
        Of the events, to tell whether a run can go on.
    notes
        What was done to the files' rows, for people.
    labels
        Of the items that a catalogue labels, the numbers of their labels (``millrace.ranking.labels``).
    """

    name: str
    events: Sequence[Happened]
    starts: Sequence[int]
    tested_from: int
    checksum: str
    notes: Sequence[str] = field(default=())
    labels: Labels = field(default_factory=dict, repr=False)


def _silent() -> None:
    """Tells nobody."""


def read_files(
    paths: Sequence[Path], format: Format, columns: Columns, step: Callable[[], object] = _silent
) -> EventStream:
    """Files of rows, each a period of its own. Of several the last one is tested. ``step`` is called after each row.

    Rows that are not in the order of their times are sorted within their file. A row counts once: one whose event_id
    came before for its user, or, where the file has no such column, one that says the same as another in everything,
    is left out.

    Raises
    ------
    MillraceError
        A file cannot be read, lacks a mapped column, or holds a row that breaks a rule or times of two units; the
        message has the line.
    """
    notes: list[str] = []
    parts = []
    for path in paths:
        if (header := header_of(path, format)) is not None:
            check_header(columns, header, path)
        unit = _OneUnit(columns)
        events = _happened(path, read_rows(path, format), columns, step, unit.check)
        parts.append(_ordered(path.name, events, notes, once=True))
    for path, (before, after) in zip(paths[1:], pairwise(parts), strict=True):
        if before and after and after[0].occurred_at_ms < before[-1].occurred_at_ms:
            overlap_s = (before[-1].occurred_at_ms - after[0].occurred_at_ms) / 1000
            notes.append(f"{path.name}: begins {overlap_s:,.0f} s before the file in front of it ends; taken as given")
    tested_from = sum(len(part) for part in parts[:-1])
    return _stream(" + ".join(path.name for path in paths), parts, tested_from, notes)


def read_sessions(folder: Path, period_ms: int = WEEK_MS, step: Callable[[], object] = _silent) -> EventStream:
    """A folder of period files, in the order of their names, with lines "session item" and no times.

    Numbers in names count as numbers. Each period's rows are spread evenly over ``period_ms``. Raises MillraceError.
    """
    if not folder.is_dir():
        raise MillraceError(f"{folder} is no folder: --format sessions takes a folder of period files")
    files = (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    paths = sorted(files, key=lambda path: (_by_number(path.name), path.name))
    if not paths:
        raise MillraceError(f"{folder} holds no files")
    columns = session_columns()
    parts = [
        list(_happened(path, session_rows(path, period, period_ms), columns, step)) for period, path in enumerate(paths)
    ]
    return _stream(folder.name, parts, 0, [])


def _by_number(name: str) -> list[tuple[str, int]]:
    """A name in parts, so that ``period_2`` comes before ``period_10``."""
    return [(text, int(number or 0)) for text, number in re.findall(r"([^0-9]*)([0-9]*)", name)]


def read_source(
    source: Source,
    period_ms: int | None = None,
    limit: int | None = None,
    step: Callable[[], object] = _silent,
) -> EventStream:
    """A known data set, or its first ``limit`` rows: these are in the order of time.

    ``period_ms`` divides it into periods as of its first event. Raises MillraceError.
    """
    rows = islice(source.read(), limit)
    events = _ordered(source.name, _happened(Path(source.name), rows, source.columns, step), [])
    parts: list[list[Happened]] = [[]]
    for event in events:
        while period_ms and event.occurred_at_ms - events[0].occurred_at_ms >= len(parts) * period_ms:
            parts.append([])
        parts[-1].append(event)
    stream = _stream(source.name, parts, 0, [])
    return stream if source.catalogue is None else with_catalogue(stream, source.catalogue())


def select(stream: EventStream, keep: Callable[[Happened], bool], limit: int | None = None) -> EventStream:
    """Some events of a stream: those of the first ``limit`` that are to be kept. Raises MillraceError."""
    if limit is not None and 0 < stream.tested_from >= limit:
        raise MillraceError(
            f"{stream.name}: --limit {limit} leaves nothing to test; the test begins after {stream.tested_from} events"
        )
    kept: list[Happened] = []
    starts, tested_from = [0], 0
    for place, event in enumerate(stream.events[:limit]):
        if place in stream.starts[1:]:
            starts.append(len(kept))
        if place == stream.tested_from:
            tested_from = len(kept)
        if keep(event):
            kept.append(event)
    if not kept:
        raise MillraceError(f"{stream.name}: the protocol takes none of its {len(stream.events)} events")
    return EventStream(
        stream.name, kept, starts, tested_from, checksum(kept, stream.labels), stream.notes, stream.labels
    )


def with_catalogue(stream: EventStream, entries: Iterable[Item]) -> EventStream:
    """The stream, and what a catalogue's entries say of its items."""
    labels = {entry.item_id: numbers for entry in entries if (numbers := labels_of(entry))}
    return replace(stream, labels=labels, checksum=checksum(stream.events, labels))


def checksum(events: Iterable[Happened], labels: Labels = MappingProxyType({})) -> str:
    """16 hexadecimal digits of events and their order, and of what is known of items."""
    digest = blake2b(digest_size=8)
    for event in events:
        digest.update(repr(event).encode())
    for known in sorted(labels.items()):
        digest.update(repr(known).encode())
    return digest.hexdigest()


def _stream(name: str, parts: Sequence[list[Happened]], tested_from: int, notes: Sequence[str]) -> EventStream:
    events: list[Happened] = []
    starts = []
    for part in parts:
        starts.append(len(events))
        events += part
    if not events:
        raise MillraceError(f"{name}: no events")
    return EventStream(name, events, starts, tested_from, checksum(events), notes)


def _happened(
    path: Path,
    rows: Iterable[NumberedRow],
    columns: Columns,
    step: Callable[[], object],
    check: Callable[[object], None] = lambda _: None,
) -> Iterator[Happened]:
    """The events in rows; the first bad one ends it."""
    same = sys.intern
    contexts: dict[Circumstances, Circumstances] = {}
    for number, row in rows:
        try:
            if isinstance(row, InvalidField):
                raise row
            check(row.get(columns.time))
            event = columns.interaction(row, "none")
        except InvalidField as error:
            raise MillraceError(f"{path}, line {number}: {error}") from error
        known = circumstances(event.context) if columns.context else ()
        yield Happened(
            same(event.user_id),
            same(event.item_id),
            event.type,
            event.occurred_at_ms,
            same(event.session_id),
            event.value,
            event.event_id if columns.event_id else "",
            contexts.setdefault(known, known),
        )
        step()


class _OneUnit:
    """Refuses a time that looks like seconds where others look like milliseconds: one of the two is wrong."""

    def __init__(self, columns: Columns) -> None:
        self._auto = columns.time_unit == "auto"
        self._seconds: bool | None = None

    def check(self, value: object) -> None:
        number = as_number(value) if self._auto else None
        if number is None or not math.isfinite(number):  # the latter is refused as no time at all
            return
        seconds = number < SECONDS_BELOW
        if self._seconds is None:
            self._seconds = seconds
        elif seconds != self._seconds:
            units = ("milliseconds", "seconds")
            raise InvalidField(
                "time", f"{value} looks like {units[seconds]}, those before it like {units[not seconds]}", "one unit"
            )


def _ordered(name: str, events: Iterable[Happened], notes: list[str], once: bool = False) -> list[Happened]:
    """The events by time (equal times stay as they were), without those whose event_id came before for their user.

    ``once``: of events without an id that are the same in everything, only the first.
    """
    found: list[Happened] = []
    ids: set[tuple[str, str]] = set()
    same: set[Happened] = set()
    duplicates = repeated = 0
    earlier: int | None = None
    for event in events:
        if event.event_id:
            key = event.user_id, event.event_id
            if key in ids:
                duplicates += 1
                continue
            ids.add(key)
        elif once:
            if event in same:
                repeated += 1
                continue
            same.add(event)
        if earlier is None and found and event.occurred_at_ms < found[-1].occurred_at_ms:
            earlier = len(found) + 1
        found.append(event)
    if duplicates:
        notes.append(f"{name}: {duplicates} rows left out whose event_id came before")
    if repeated:
        notes.append(
            f"{name}: {repeated} rows left out that say the same as an earlier one; --map event_id=... keeps them"
        )
    if earlier is not None:
        notes.append(f"{name}: not in the order of time (event {earlier} is the first that is earlier); sorted")
        found.sort(key=lambda event: event.occurred_at_ms)
    return found
