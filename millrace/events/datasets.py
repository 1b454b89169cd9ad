"""The public data sets that ``millrace replay --dataset`` knows. The data itself is not part of Millrace.

Figures and licences: README.md of the folder that ``MILLRACE_DATA`` names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

from millrace.errors import InvalidField, MillraceError
from millrace.events import build
from millrace.events.columns import Columns
from millrace.events.files import NumberedRow, open_text, read_rows
from millrace.events.rules import PUBLISHED_MIN_MS
from millrace.events.sources import Source
from millrace.settings import DAY_MS
from millrace.v1.item_pb2 import Item


@dataclass(frozen=True)
class Dataset:
    """A data set as it lies in its folder.

    Attributes
    ----------
    files
        What is needed, relative to the data folder.
    origin
        Where it comes from, for those who do not have it.
    rows
        Rows of events in all files.
    """

    files: tuple[str, ...]
    origin: str
    rows: int
    columns: Columns
    read: Callable[[Sequence[Path]], Iterator[NumberedRow]]
    catalogue: Callable[[Sequence[Path]], Iterator[Item]] | None = None


def dataset(name: str, folder: Path) -> Source:
    """The data set of this name.

    Raises
    ------
    MillraceError
        The name is unknown, or its files are not in the folder; the message says how to get them.
    """
    known = DATASETS.get(name)
    if known is None:
        raise MillraceError(f"data set {name!r} is unknown; known: {', '.join(DATASETS)}")
    paths = [folder / file for file in known.files]
    if absent := [path for path in paths if not path.is_file()]:
        raise MillraceError(
            f"data set {name}: no {absent[0]}. It cannot be shipped with Millrace; get it from {known.origin}, put "
            f"it there, or set MILLRACE_DATA to the folder that holds {Path(known.files[0]).parent}/"
        )
    catalogue = known.catalogue
    return Source(
        name,
        known.columns,
        lambda: known.read(paths),
        known.rows,
        None if catalogue is None else lambda: catalogue(paths),
    )


def _globo(paths: Sequence[Path]) -> Iterator[NumberedRow]:
    return read_rows(paths[0], "csv")


def _ml_100k(paths: Sequence[Path]) -> Iterator[NumberedRow]:
    """Ratings, with what u.user (user | age | gender | occupation | zip code) says of who rates."""
    with open_text(paths[3], "latin-1") as lines:
        fields = (line.rstrip("\r\n").split("|") for line in lines)
        people = {user: {"age": f"{age[:-1]}0", "gender": gender, "job": job} for user, age, gender, job, _ in fields}
    ratings = read_rows(paths[0], "tsv", header=("user", "item", "rating", "timestamp"))
    for number, row in _by_time(ratings, "timestamp"):
        known = {} if isinstance(row, InvalidField) else people.get(str(row["user"]), {})
        yield number, row if isinstance(row, InvalidField) else {"age": "", "gender": "", "job": "", **row, **known}


def _ml_latest_small(paths: Sequence[Path]) -> Iterator[NumberedRow]:
    return _by_time(read_rows(paths[0], "csv"), "timestamp")


def _by_time_tsv(paths: Sequence[Path]) -> Iterator[NumberedRow]:
    return _by_time(chain.from_iterable(read_rows(path, "tsv") for path in paths), "Time")


def _by_time(rows: Iterator[NumberedRow], column: str) -> Iterator[NumberedRow]:
    """The rows in the order of their times. Holds them all: the data sets that need it have 100,000 rows."""

    def time(numbered: NumberedRow) -> float:
        row = numbered[1]
        try:
            return 0.0 if isinstance(row, InvalidField) else float(str(row[column]))
        except ValueError:
            return 0.0  # comes first, and is reported like any other bad row

    yield from sorted(rows, key=time)


# A Monday, of the year that DIGINETICA's sessions are from.
_PERIODS_FROM_MS = int(datetime(2016, 1, 4, tzinfo=UTC).timestamp()) * 1000
WEEK_MS = 7 * DAY_MS


def session_columns() -> Columns:
    """The columns of ``session_rows``. Sessions are all that is known: each is somebody."""
    return Columns("session", "item", "time", session="session", time_unit="ms")


def session_rows(path: Path, period: int, period_ms: int) -> Iterator[NumberedRow]:
    """Rows of a file with lines "session item" in order and without times: spread evenly over the period.

    ``period`` is the file's place among the periods, from 0. Holds the file in memory.
    """
    rows = list(read_rows(path, "tsv", header=("line",)))
    for place, (number, row) in enumerate(rows):
        if isinstance(row, InvalidField):
            yield number, row
            continue
        session, _, item = str(row["line"]).strip().partition(" ")
        time_ms = _PERIODS_FROM_MS + period * period_ms + place * period_ms // len(rows)
        yield number, {"session": f"{period}-{session}", "item": item.strip(), "time": time_ms}


def _diginetica(paths: Sequence[Path]) -> Iterator[NumberedRow]:
    return chain.from_iterable(session_rows(path, week, WEEK_MS) for week, path in enumerate(paths))


def _ml_100k_items(paths: Sequence[Path]) -> Iterator[Item]:
    """u.item: id | title | release date | video date | url | one flag per genre; the genres' names are in u.genre."""
    with open_text(paths[2], "latin-1") as lines:
        genres = [line.partition("|")[0] for line in lines if "|" in line]
    with open_text(paths[1], "latin-1") as lines:
        for line in lines:
            fields = line.rstrip("\r\n").split("|")
            if len(fields) != 5 + len(genres):
                raise MillraceError(f"{paths[1]}: {len(fields)} fields in the line of item {fields[0]!r}")
            tags = [genre for genre, flag in zip(genres, fields[5:], strict=True) if flag == "1"]
            yield build.item(
                fields[0],
                title=fields[1],
                category=tags[0] if tags else "",
                tags=tags,
                published_at=_release_ms(fields[2]),
                url=fields[4],
            )


def _release_ms(date: str) -> int | None:
    """Unix milliseconds of "01-Jan-1995"; None where it is empty or older than the contract can say."""
    if not date:
        return None
    released_ms = round(datetime.strptime(date, "%d-%b-%Y").replace(tzinfo=UTC).timestamp() * 1000)
    return released_ms if released_ms >= PUBLISHED_MIN_MS else None


def _ml_latest_small_items(paths: Sequence[Path]) -> Iterator[Item]:
    for number, row in read_rows(paths[1], "csv"):
        if isinstance(row, InvalidField):
            raise MillraceError(f"{paths[1]}, line {number}: {row}")
        genres = str(row["genres"])
        tags = [] if genres == "(no genres listed)" else genres.split("|")
        yield build.item(str(row["movieId"]), title=str(row["title"]), category=tags[0] if tags else "", tags=tags)


DATASETS: Mapping[str, Dataset] = {
    "globo": Dataset(
        ("globo/clicks_2017-10-01_10.csv.gz",),
        "the CHAMELEON papers' Globo.com news portal data (local use only)",
        2_049_488,
        Columns(
            "user_id",
            "article_id",
            "timestamp_ms",
            session="session_id",
            context={
                "device": "device_group",
                "os": "os",
                "country": "country",
                "region": "region",
                "referrer": "referrer_type",
                "environment": "environment",
            },
            time_unit="ms",
        ),
        _globo,
    ),
    "ml-100k": Dataset(
        ("ml-100k/u.data", "ml-100k/u.item", "ml-100k/u.genre", "ml-100k/u.user"),
        "GroupLens (MovieLens 100K; research, no redistribution)",
        100_000,
        Columns(
            "user",
            "item",
            "timestamp",
            value="rating",
            context={"age": "age", "gender": "gender", "occupation": "job"},
            default_type="rating",
            time_unit="s",
        ),
        _ml_100k,
        _ml_100k_items,
    ),
    "ml-latest-small": Dataset(
        ("ml-latest-small/ratings.csv", "ml-latest-small/movies.csv"),
        "GroupLens (MovieLens latest small; non-commercial)",
        100_836,
        Columns("userId", "movieId", "timestamp", value="rating", default_type="rating", time_unit="s"),
        _ml_latest_small,
        _ml_latest_small_items,
    ),
    # It knows no users: each session is somebody.
    "serenade-toy": Dataset(
        ("serenade-toy/train.txt", "serenade-toy/valid.txt", "serenade-toy/test.txt"),
        "the repository bolcom/serenade (Apache-2.0)",
        116_285,
        Columns("SessionId", "ItemId", "Time", session="SessionId", time_unit="s"),
        _by_time_tsv,
    ),
    "yoochoose-sample": Dataset(
        ("yoochoose-sample/clicks_100k_train_full.tsv.gz", "yoochoose-sample/clicks_100k_test.tsv.gz"),
        "the RecSys 2015 challenge (YOOCHOOSE; no licence stated)",
        83_846,
        Columns("SessionId", "ItemId", "Time", session="SessionId", time_unit="s"),
        _by_time_tsv,
    ),
    "diginetica": Dataset(
        tuple(f"diginetica/period_{period:02}.txt.gz" for period in range(17)),
        "the repository of ADER (DIGINETICA of the CIKM 2016 challenge; no licence stated)",
        993_483,
        session_columns(),
        _diginetica,
    ),
}
