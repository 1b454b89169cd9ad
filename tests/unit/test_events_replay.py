"""Replay: order, pace, bad lines, and going on after any end."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.client import DeliveryFailed
from millrace.errors import InvalidField, MillraceError
from millrace.events import replay as replaying
from millrace.events.columns import Columns
from millrace.events.files import NumberedRow
from millrace.events.progress import Progress, ProgressFile
from millrace.events.replay import BadLine, Pace, Replay, parse_speed, publish_catalogue
from millrace.events.sources import Source
from millrace.flag import Flag
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.item_pb2 import Item

FIRST_MS = 1_506_826_800_000
BAD = InvalidField("line", "broken", "a line")


class Log:
    """A broker: what is flushed is safe, the rest is lost when the process dies."""

    def __init__(self, fails_after: int | None = None) -> None:
        self.safe: list[Interaction | Item] = []
        self.queued: list[Interaction | Item] = []
        self.fails_after = fails_after

    def send(self, event: Interaction | Item) -> None:
        if self.fails_after is not None and len(self.safe) + len(self.queued) >= self.fails_after:
            raise DeliveryFailed("the broker is away")
        self.queued.append(event)

    def flush(self) -> None:
        self.safe += self.queued
        self.queued = []

    @property
    def ids(self) -> list[str]:
        return [event.event_id for event in self.safe if isinstance(event, Interaction)]


def source(rows: int, bad: frozenset[int] = frozenset()) -> Source:
    def read() -> Iterator[NumberedRow]:
        for n in range(rows):
            yield n + 2, BAD if n in bad else {"u": f"u{n % 3}", "i": "i", "t": str(FIRST_MS + n * 1000)}

    return Source("few", Columns("u", "i", "t"), read)


def run(
    events: Source,
    log: Log,
    start: Progress,
    saves: list[Progress],
    *,
    limit: int | None = None,
    pace: Pace | None = None,
    stop: Flag | None = None,
    report: Callable[[BadLine], None] = lambda bad: None,
    strict: bool = False,
) -> Progress:
    return Replay(
        events,
        log,
        start,
        pace=pace or Pace(None),
        stop=stop or Flag(),
        save=saves.append,
        report=report,
        strict=strict,
    ).run(limit)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress is saved every seven rows."""
    monkeypatch.setattr(replaying, "SAVE_ROWS", 7)


def test_every_row_in_order_and_the_limit_counts_from_the_beginning(often: None) -> None:
    log, saves = Log(), list[Progress]()
    end = run(source(100), log, Progress("t"), saves, limit=30)
    assert end == saves[-1] == Progress("t", 30)
    assert log.ids == [f"few:{n}" for n in range(30)]
    end = run(source(100), log, end, saves)
    assert end == Progress("t", 100)
    assert log.ids == [f"few:{n}" for n in range(100)]
    assert run(source(100), log, end, saves, limit=50) == end


@given(st.lists(st.integers(0, 40), max_size=5), st.frozensets(st.integers(0, 49)))
def test_no_row_is_missing_whatever_fails(fails: list[int], bad: frozenset[int]) -> None:
    """Runs that die go on from the last saved progress: each row is published or reported, in order, at least once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replaying, "SAVE_ROWS", 7)
        saves, published, reported = [Progress("t")], list[str](), set[int]()
        for fails_after in [*fails, None]:
            log = Log(fails_after)
            try:
                run(source(50, bad), log, saves[-1], saves, report=lambda line: reported.add(line.line - 2))
            except DeliveryFailed:
                assert fails_after is not None
            published += log.ids
    assert saves[-1] == Progress("t", 50, len(bad))
    assert reported == bad
    wanted = [f"few:{n}" for n in range(50) if n not in bad]
    assert list(dict.fromkeys(published)) == wanted


def test_progress_never_runs_ahead_of_the_broker(often: None) -> None:
    log, ahead = Log(), list[Progress]()

    def save(progress: Progress) -> None:
        if progress.rows > len(log.safe):
            ahead.append(progress)

    Replay(source(50), log, Progress("t"), pace=Pace(None), stop=Flag(), save=save, report=lambda bad: None).run()
    assert ahead == []


def test_strict_stops_at_the_bad_line_and_begins_there_again() -> None:
    log, saves = Log(), list[Progress]()
    for _ in range(2):
        with pytest.raises(MillraceError, match=r"line 12 \(line: broken"):
            run(source(20, frozenset({10})), log, saves[-1] if saves else Progress("t"), saves, strict=True)
    assert saves == [Progress("t", 10)]
    assert len(log.safe) == 10


def test_stop_ends_before_the_next_row_and_keeps_what_is_done() -> None:
    log, saves, stop = Log(), list[Progress](), Flag()

    def read() -> Iterator[NumberedRow]:
        for n in range(10):
            if n == 4:
                stop.set()
            yield n, {"u": "u", "i": "i", "t": str(FIRST_MS)}

    end = run(Source("few", Columns("u", "i", "t"), read), log, Progress("t"), saves, stop=stop)
    assert end == saves[-1] == Progress("t", 4)
    assert len(log.safe) == 4


def test_stop_ends_a_wait() -> None:
    """The second row is due in an hour; a stop from another thread does not wait for it."""
    log, saves, stop = Log(), list[Progress](), Flag()

    def read() -> Iterator[NumberedRow]:
        yield 1, {"u": "u", "i": "i", "t": str(FIRST_MS)}
        threading.Timer(0.05, stop.set).start()
        yield 2, {"u": "u", "i": "i", "t": str(FIRST_MS + 3_600_000)}

    slow = Source("few", Columns("u", "i", "t"), read)
    assert run(slow, log, Progress("t"), saves, pace=Pace(1.0), stop=stop) == Progress("t", 1)


def test_pace() -> None:
    now = [100.0]
    pace = Pace(10.0, clock=lambda: now[0])
    assert pace.due_in_s(FIRST_MS) == 0
    assert pace.due_in_s(FIRST_MS + 20_000) == pytest.approx(2.0)
    now[0] = 103.0
    assert pace.due_in_s(FIRST_MS + 20_000) == pytest.approx(-1.0)
    assert Pace(None).due_in_s(FIRST_MS + 10**9) == 0


def test_speeds() -> None:
    assert [parse_speed(text) for text in ("asap", "recorded", "60x", "0.5x", "2")] == [None, 1.0, 60.0, 0.5, 2.0]
    for text in ("fast", "0x", "-1x", "nanx", "infx", ""):
        with pytest.raises(MillraceError, match="--speed"):
            parse_speed(text)


def test_the_catalogue_is_published_and_safe() -> None:
    log = Log()
    items = [Item(item_id="a"), Item(item_id="b")]
    with_items = Source("few", Columns("u", "i", "t"), lambda: iter(()), catalogue=lambda: iter(items))
    assert publish_catalogue(with_items, log) == 2
    assert log.safe == items
    assert publish_catalogue(source(3), log) == 0


def test_progress_is_kept_by_topic(millrace_home: Path) -> None:
    file = ProgressFile("kept")
    assert file.load("t1") == Progress("t1")
    file.save(Progress("t1", 5, 1))
    assert file.load("t1") == Progress("t1", 5, 1)
    assert file.load("t2") == Progress("t2")
    assert json.loads((millrace_home / "replay" / "kept.json").read_text())["rows"] == 5


@pytest.mark.parametrize("text", ["", "[]", "{", '{"rows": 1}', '{"topic_id": "t", "colour": 1}'])
def test_damaged_progress_is_not_taken_for_the_beginning(text: str, millrace_home: Path) -> None:
    file = ProgressFile("damaged")
    file.save(Progress("t", 5))
    file.path.write_text(text)
    with pytest.raises(MillraceError, match="--restart"):
        file.load("t")
