"""Publishes a source's events in order, at a chosen speed, so that it can be stopped and gone on with.

Progress is saved when the broker has acknowledged everything before it: after a crash at any moment no row is
missing, and the few that are published twice carry the same ids and count once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Protocol

from millrace.errors import InvalidField, MillraceError
from millrace.events.progress import Progress
from millrace.events.sources import Source
from millrace.flag import Flag
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.item_pb2 import Item

SAVE_ROWS = 5_000
"""Rows between two saves. A crash repeats at most these: few enough that a user's share of them is far inside the
de-duplication window (128 events of a user), many enough that waiting for the broker (5 ms) costs nothing."""
SAVE_INTERVAL_S = 1.0
"""A slow replay saves this often."""


class Publisher(Protocol):
    """The part of ``EventProducer`` that a replay needs."""

    def send(self, event: Interaction | Item) -> None: ...

    def flush(self) -> None: ...


@dataclass(frozen=True, slots=True)
class BadLine:
    """A row that is no valid event."""

    line: int
    error: InvalidField


class Pace:
    """Holds events back until their turn.

    Parameters
    ----------
    factor
        How many times as fast as recorded; None: as fast as it goes.
    """

    def __init__(self, factor: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._factor = factor
        self._clock = clock
        self._began: tuple[float, int] | None = None

    def due_in_s(self, occurred_at_ms: int) -> float:
        """Seconds until the event's turn; at most 0 if it has come."""
        if self._factor is None:
            return 0.0
        now = self._clock()
        if self._began is None:
            self._began = now, occurred_at_ms
        began, first_ms = self._began
        return began + (occurred_at_ms - first_ms) / 1000 / self._factor - now


def parse_speed(speed: str) -> float | None:
    """``asap`` (None), ``recorded`` (1) or ``10x`` (10)."""
    if speed == "asap":
        return None
    if speed == "recorded":
        return 1.0
    try:
        factor = float(speed.removesuffix("x"))
    except ValueError:
        factor = 0.0
    if not 0 < factor < float("inf"):
        raise MillraceError(f"--speed {speed}: say asap, recorded, or how many times as fast, for example 60x")
    return factor


def publish_catalogue(source: Source, publisher: Publisher) -> int:
    """Publish the catalogue entries that belong to a source; returns how many."""
    count = 0
    if source.catalogue is not None:
        for count, item in enumerate(source.catalogue(), start=1):  # noqa: B007  (the count is the answer)
            publisher.send(item)
        publisher.flush()
    return count


class Replay:
    """One run over a source.

    Parameters
    ----------
    start
        Where to go on from.
    pace
        Holds events back.
    stop
        Ends the run before the next row when it is set, from a signal handler or another thread.
    save
        Called with every progress that a later run may start from.
    report
        Called with every bad line.
    strict
        Whether a bad line ends the run with MillraceError; the next run begins at that line again.
    """

    def __init__(
        self,
        source: Source,
        publisher: Publisher,
        start: Progress,
        *,
        pace: Pace,
        stop: Flag,
        save: Callable[[Progress], None],
        report: Callable[[BadLine], None],
        strict: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._publisher = publisher
        self._pace = pace
        self._stop = stop
        self._save = save
        self._report = report
        self._strict = strict
        self._clock = clock
        self._done = self._saved = start
        self._saved_at = clock()

    def run(self, limit: int | None = None) -> Progress:
        """Publish the rows up to ``limit``, counted from the source's beginning; returns how far it came.

        Raises
        ------
        DeliveryFailed
            The broker did not take the events; a later run goes on from the last saved progress.
        """
        rest = None if limit is None else max(0, limit - self._done.rows)
        for line, event in islice(self._source.events(skip=self._done.rows), rest):
            if isinstance(event, InvalidField):
                self._take_bad(BadLine(line, event))
            elif self._await_turn(event):
                self._publisher.send(event)
                self._done = replace(self._done, rows=self._done.rows + 1)
            if self._stop.is_set():
                break
            self._save_if_due()
        self._settle()
        return self._done

    def _take_bad(self, bad: BadLine) -> None:
        self._report(bad)
        if self._strict:
            self._settle()
            raise MillraceError(f"stopped at line {bad.line} ({bad.error})")
        self._done = replace(self._done, rows=self._done.rows + 1, bad=self._done.bad + 1)

    def _await_turn(self, event: Interaction) -> bool:
        """Wait until it is the event's turn; False where the run is to stop."""
        while not self._stop.is_set():
            wait_s = self._pace.due_in_s(event.occurred_at_ms)
            if wait_s <= 0:
                return True
            self._save_if_due()
            self._stop.wait(min(wait_s, SAVE_INTERVAL_S))
        return False

    def _save_if_due(self) -> None:
        if self._done.rows - self._saved.rows >= SAVE_ROWS or self._clock() - self._saved_at >= SAVE_INTERVAL_S:
            self._settle()

    def _settle(self) -> None:
        if self._done != self._saved:
            self._publisher.flush()
            self._save(self._done)
            self._saved = self._done
        self._saved_at = self._clock()
