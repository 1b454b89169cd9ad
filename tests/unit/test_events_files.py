"""Files of events: formats, mappings, times, and lines that are no events."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import pytest

from millrace.errors import InvalidField, MillraceError
from millrace.events.columns import TimeUnit, as_number, parse_columns, time_ms
from millrace.events.files import format_of, read_rows
from millrace.events.sources import Source, file_source
from millrace.v1.interaction_pb2 import Interaction, InteractionType

DATA = Path(__file__).parent.parent / "data"
CLICKS_MAP = "user=visitor,item=sku,time=when,type=what,value=paid,device=agent,attributes.note=note"


def source(file: str, mapping: str, **options: str) -> Source:
    path = DATA / file
    return file_source(path, format_of(path), parse_columns(mapping, **options))  # type: ignore[arg-type]


def good(events: Source, skip: int = 0) -> list[Interaction]:
    return [event for _, event in events.events(skip) if isinstance(event, Interaction)]


def bad(events: Source) -> list[tuple[int, str]]:
    return [(line, event.field) for line, event in events.events() if isinstance(event, InvalidField)]


def test_csv_with_a_mapping() -> None:
    clicks = source("clicks.csv", CLICKS_MAP)
    first, second, third, fourth = good(clicks)
    assert (first.user_id, first.item_id, first.occurred_at_ms) == ("ann", "shoe 7", 1_506_826_800_026)
    assert (first.context.device, dict(first.context.attributes)) == ("mobile", {"note": "plain"})
    assert not first.HasField("value")
    assert (second.item_id, second.occurred_at_ms) == ("hat, red", 1_506_826_800_000)
    assert (third.type, third.value) == (InteractionType.INTERACTION_TYPE_PURCHASE, 59.9)
    assert third.occurred_at_ms == 1_506_826_801_000
    assert (fourth.user_id, fourth.occurred_at_ms) == ("zoë", 1_506_826_802_000)
    assert bad(clicks) == []


def test_gzip_is_known_by_its_content(tmp_path: Path) -> None:
    packed = tmp_path / "clicks.csv"
    packed.write_bytes(gzip.compress((DATA / "clicks.csv").read_bytes()))
    events = file_source(packed, "csv", parse_columns(CLICKS_MAP))
    assert [e.user_id for e in good(events)] == [e.user_id for e in good(source("clicks.csv", CLICKS_MAP))]


def test_tsv_takes_quotes_as_they_are() -> None:
    rows = [row for _, row in read_rows(DATA / "ratings.tsv", "tsv", header=("user", "item", "rating", "time"))]
    assert rows[1] == {"user": "bob", "item": 'hat "tall', "rating": "4", "time": "881250950"}


def test_json_lines_with_a_mapping() -> None:
    events = source("events.jsonl", "user=user,item=item,time=time,type=kind,value=price")
    first, second = good(events)
    assert (first.user_id, first.value) == ("42", 12.5)
    assert second.occurred_at_ms == 1_506_826_801_500
    assert bad(events) == [(4, "item"), (5, "line"), (6, "line"), (7, "user")]


def test_bad_lines_are_named_and_the_others_read() -> None:
    events = source("malformed.csv", "user=visitor,item=sku,time=when")
    assert bad(events) == [(3, "user_id"), (4, "line"), (5, "occurred_at_ms"), (6, "occurred_at_ms"), (7, "line")]
    assert [event.user_id for event in good(events)] == ["ann", "bob"]


def test_bytes_that_are_no_utf8_are_a_bad_line(tmp_path: Path) -> None:
    path = tmp_path / "latin.csv"
    path.write_bytes(b"u,i,t\nann,b\xfccher,1506826800000\nbob,hat,1506826800000\n")
    events = file_source(path, "csv", parse_columns("user=u,item=i,time=t"))
    assert bad(events) == [(2, "item_id")]
    assert [event.user_id for event in good(events)] == ["bob"]


def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path: Path) -> None:
    path = tmp_path / "bom.csv"
    path.write_bytes("\ufeffu,i,t\nann,hat,1506826800000\n".encode())
    assert len(good(file_source(path, "csv", parse_columns("user=u,item=i,time=t")))) == 1


def test_an_unclosed_quote_is_one_bad_line(tmp_path: Path) -> None:
    path = tmp_path / "quote.csv"
    path.write_text('u,i,t\nann,"hat"x,1506826800000\nbob,hat,1506826800000\n')
    events = file_source(path, "csv", parse_columns("user=u,item=i,time=t"))
    assert bad(events) == [(2, "line")]
    assert len(good(events)) == 1


def test_broken_compression_is_an_error_and_not_an_end(tmp_path: Path) -> None:
    path = tmp_path / "cut.csv.gz"
    path.write_bytes(gzip.compress(b"u,i,t\n" + b"ann,hat,1506826800000\n" * 1000)[:60])
    events = file_source(path, "csv", parse_columns("user=u,item=i,time=t"))
    with pytest.raises(MillraceError, match=r"cut\.csv\.gz"):
        good(events)


def test_event_ids_are_the_same_each_time_and_differ_between_files(tmp_path: Path) -> None:
    ids = [event.event_id for event in good(source("clicks.csv", CLICKS_MAP))]
    assert ids == [event.event_id for event in good(source("clicks.csv", CLICKS_MAP))]
    assert len(set(ids)) == 4
    other = tmp_path / "clicks.csv"
    other.write_text((DATA / "clicks.csv").read_text().replace("ann", "eve"))
    assert not {e.event_id for e in good(file_source(other, "csv", parse_columns(CLICKS_MAP)))} & set(ids)


def test_going_on_after_some_rows_gives_the_same_events() -> None:
    every = good(source("clicks.csv", CLICKS_MAP))
    assert [good(source("clicks.csv", CLICKS_MAP), skip=skip) for skip in range(6)] == [
        every[skip:] for skip in range(6)
    ]


@pytest.mark.parametrize(
    ("mapping", "says"),
    [
        ("user=a,item=b", "no column for time"),
        ("user=a,item=b,time=c,colour=d", "'colour' is unknown"),
        ("user=a,user=b,item=b,time=c", "user is given twice"),
        ("user=a,item,time=c", "'item' is not WORD=COLUMN"),
        ("user=a,item=b,time=c,attributes.=d", "unknown"),
    ],
)
def test_a_wrong_mapping_is_refused(mapping: str, says: str) -> None:
    with pytest.raises(MillraceError, match=says):
        parse_columns(mapping)


def test_a_missing_column_is_named_with_those_that_are_there() -> None:
    with pytest.raises(MillraceError, match="no column 'buyer'; it has visitor, sku, when"):
        source("malformed.csv", "user=buyer,item=sku,time=when")


def test_formats_by_name() -> None:
    names = ("a.csv", "a.CSV.gz", "a.tsv", "a.jsonl.gz", "a.json")
    assert [format_of(Path(name)) for name in names] == ["csv", "csv", "tsv", "jsonl", "jsonl"]
    with pytest.raises(MillraceError, match="--format"):
        format_of(Path("a.dat"))


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        ("1506826800", "auto", 1_506_826_800_000),
        ("1506826800.5", "auto", 1_506_826_800_500),
        ("1506826800026", "auto", 1_506_826_800_026),
        (1506826800, "auto", 1_506_826_800_000),
        ("1506826800", "s", 1_506_826_800_000),
        ("1506826800", "ms", 1_506_826_800),
        ("2017-10-01T05:00:00+02:00", "iso", 1_506_826_800_000),
        ("2017-10-01T03:00:00", "auto", 1_506_826_800_000),
    ],
)
def test_times(value: object, unit: TimeUnit, expected: int) -> None:
    assert time_ms(value, unit) == expected


@pytest.mark.parametrize(
    ("value", "unit"),
    [
        ("", "auto"),
        ("soon", "auto"),
        ("nan", "auto"),
        ("inf", "s"),
        (10**400, "auto"),
        ("9" * 5000, "ms"),
        (True, "auto"),
        (None, "auto"),
        ("2017-10-01", "ms"),
        ("1506826800", "iso"),
    ],
)
def test_what_is_no_time(value: object, unit: TimeUnit) -> None:
    with pytest.raises(InvalidField):
        time_ms(value, unit)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(math.nan, "nan"), (-math.inf, "-inf"), (10**400, "inf"), ("7", "7"), (True, "None"), ("seven", "None")],
)
def test_a_number_stays_what_it_is(value: object, expected: str) -> None:
    """What the rules refuse is named as it came: JSON's NaN is no infinity."""
    assert str(as_number(value)) == expected
