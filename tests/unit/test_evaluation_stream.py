"""Reading what is to be evaluated: in order, checked, in periods; what is wrong is refused with its line."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from millrace.errors import MillraceError
from millrace.evaluation.stream import read_files, read_sessions, read_source, select
from millrace.events.columns import Columns, TimeUnit
from millrace.events.files import NumberedRow
from millrace.events.sources import Source

COLUMNS = Columns("user", "item", "time")


def written(folder: Path, text: str, name: str = "clicks.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def items(path: Path, columns: Columns = COLUMNS) -> list[str]:
    return [event.item_id for event in read_files([path], "csv", columns).events]


def test_rows_out_of_order_are_sorted_and_said(tmp_path: Path) -> None:
    path = written(tmp_path, "user,item,time\nu,a,1700000002\nu,b,1700000001\nv,c,1700000001\n")
    stream = read_files([path], "csv", COLUMNS)
    assert [event.item_id for event in stream.events] == ["b", "c", "a"], "equal times stay in their order"
    assert stream.notes == ["clicks.csv: not in the order of time (event 2 is the first that is earlier); sorted"]


def test_rows_of_one_event_id_count_once_for_a_user(tmp_path: Path) -> None:
    rows = "u,a,1700000001,1\nu,a,1700000001,1\nv,a,1700000001,1\nu,a,1700000001,2\n"
    path = written(tmp_path, "user,item,time,id\n" + rows)
    stream = read_files([path], "csv", Columns("user", "item", "time", event_id="id"))
    assert [(event.user_id, event.event_id) for event in stream.events] == [("u", "1"), ("v", "1"), ("u", "2")]
    assert stream.notes == ["clicks.csv: 1 rows left out whose event_id came before"]


def test_without_ids_rows_that_are_the_same_in_everything_count_once(tmp_path: Path) -> None:
    rows = "u,a,1700000001\nu,a,1700000001\nv,a,1700000001\nu,a,1700000002\nu,a,1700000001\n"
    stream = read_files([written(tmp_path, "user,item,time\n" + rows)], "csv", COLUMNS)
    assert [(event.user_id, event.occurred_at_ms % 10_000) for event in stream.events] == [
        ("u", 1_000),
        ("v", 1_000),
        ("u", 2_000),
    ]
    assert stream.notes[0].startswith("clicks.csv: 2 rows left out that say the same")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("user,item\nu,a\n", "has no column 'time'"),
        ("user,item,time\nu,a,1700000001\nu,b,1700000002000\n", "line 3: time: .* looks like milliseconds"),
        ("user,item,time\nu,a,1700000001000\nu,b,1700000002\n", "line 3: time: .* looks like seconds"),
        ("user,item,time\nu,a,1700000001\nu,,1700000002\n", "line 3: item_id"),
        ("user,item,time\nu,a\n", "line 2: line: 2 columns"),
        ("user,item,time\nu,a,yesterday\n", "line 2: occurred_at_ms"),
        ("user,item,time\nu,a,1700000001\nu,a,NaN\n", "line 3: occurred_at_ms: .* a finite number"),
        ("", "has no column 'user', 'item', 'time'; it has nothing"),
        ("user,item,time,user\nu,a,1700000001,v\n", "has column 'user' more than once"),
        ("user,item,time\n", "no events"),
    ],
)
def test_what_is_wrong_is_refused_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(MillraceError, match=says):
        items(written(tmp_path, text))


@pytest.mark.parametrize(
    ("unit", "time"), [("s", "1700000001"), ("ms", "1700000001000"), ("iso", "2023-11-14T22:13:21")]
)
def test_one_unit_that_is_named_is_taken(tmp_path: Path, unit: TimeUnit, time: str) -> None:
    path = written(tmp_path, f"user,item,time\nu,a,{time}\n")
    columns = Columns("user", "item", "time", time_unit=unit)
    assert read_files([path], "csv", columns).events[0].occurred_at_ms == 1_700_000_001_000


def test_train_and_test_are_periods_and_may_overlap(tmp_path: Path) -> None:
    train = written(tmp_path, "user,item,time\nu,a,1700000001\nu,b,1700000009\n", "train.csv")
    test = written(tmp_path, "user,item,time\nv,c,1700000005\n", "test.csv")
    stream = read_files([train, test], "csv", COLUMNS)
    assert (list(stream.starts), stream.tested_from) == ([0, 2], 2)
    assert stream.notes == ["test.csv: begins 4 s before the file in front of it ends; taken as given"]


def test_a_folder_of_sessions(tmp_path: Path) -> None:
    """Files in the order of their names, plain or gzip; a period each; a session is somebody of its period."""
    written(tmp_path, "7 a\n8 b\n7 c\n7 c\n", "period_00.txt")
    (tmp_path / "period_01.txt.gz").write_bytes(gzip.compress(b"7 d\n"))
    stream = read_sessions(tmp_path, period_ms=4_000)
    first = stream.events[0].occurred_at_ms
    found = [(event.session_id, event.item_id, event.occurred_at_ms - first) for event in stream.events]
    assert found == [
        ("0-7", "a", 0),
        ("0-8", "b", 1_000),
        ("0-7", "c", 2_000),
        ("0-7", "c", 3_000),
        ("1-7", "d", 4_000),
    ]
    assert (list(stream.starts), stream.tested_from) == ([0, 4], 0)
    written(tmp_path, "7\n", "period_02.txt")
    with pytest.raises(MillraceError, match=r"period_02.txt, line 1: item_id"):
        read_sessions(tmp_path)
    with pytest.raises(MillraceError, match="is no folder"):
        read_sessions(tmp_path / "none")


def test_numbers_in_names_of_periods_count_as_numbers(tmp_path: Path) -> None:
    for number in (10, 9, 1, 100):
        written(tmp_path, f"7 i{number}\n", f"period_{number}.txt")
    assert [event.item_id for event in read_sessions(tmp_path).events] == ["i1", "i9", "i10", "i100"]


def test_a_selection_keeps_periods_and_where_the_test_begins(tmp_path: Path) -> None:
    train = written(tmp_path, "user,item,time\nu,a,1700000001\nu,b,1700000002\nu,b,1700000003\n", "train.csv")
    test = written(tmp_path, "user,item,time\nv,a,1700000005\nv,b,1700000006\nv,a,1700000007\n", "test.csv")
    stream = read_files([train, test], "csv", COLUMNS)
    some = select(stream, lambda event: event.item_id == "b", limit=5)
    assert [event.user_id for event in some.events] == ["u", "u", "v"]
    assert (list(some.starts), some.tested_from) == ([0, 2], 2)
    assert some.checksum != stream.checksum
    with pytest.raises(MillraceError, match="the test begins after 3 events"):
        select(stream, lambda event: True, limit=3)
    with pytest.raises(MillraceError, match="none of its 6 events"):
        select(stream, lambda event: False)


def test_of_a_known_data_set_no_more_is_read_than_is_wanted() -> None:
    def rows() -> Iterator[NumberedRow]:
        for number in range(3):
            yield number, {"user": "u", "item": f"i{number}", "time": 1_700_000_001 + number}
        raise AssertionError("the fourth row is read")

    read = 0

    def step() -> None:
        nonlocal read
        read += 1

    stream = read_source(Source("known", COLUMNS, rows), limit=3, step=step)
    assert [event.item_id for event in stream.events] == ["i0", "i1", "i2"]
    assert read == 3
