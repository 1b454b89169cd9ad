"""What ``evaluate`` and ``tune`` are told: which events, and how they are gone through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import click

from millrace.cli._bar import events_bar
from millrace.errors import MillraceError
from millrace.evaluation.parts import PARTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from millrace.evaluation.stream import EventStream
    from millrace.events.columns import TimeUnit
    from millrace.events.files import Format
    from millrace.v1.item_pb2 import Item

Command = TypeVar("Command", bound=Callable[..., object])
PROTOCOLS = ("next-in-session", "next-item", "flurs", "ader", "serenade")
_FILE = click.Path(path_type=Path)


@dataclass(frozen=True, slots=True)
class _Options:
    """A group of options, each an attribute of the same name."""

    DECLARED: ClassVar[tuple[Callable[[Any], Any], ...]]

    @classmethod
    def add(cls, command: Command) -> Command:
        """Give a command these options, in this order."""
        added: Command = reduce(lambda wrapped, option: option(wrapped), reversed(cls.DECLARED), command)
        return added


Group = TypeVar("Group", bound=_Options)


def taken(group: type[Group], given: Mapping[str, Any]) -> Group:
    """Of what a command was given, the options of a group."""
    return group(**{field.name: given[field.name] for field in fields(group)})


@dataclass(frozen=True, slots=True)
class Data(_Options):
    """Which events."""

    DECLARED = (
        click.option(
            "--events", "path", type=_FILE, help="A file of events (plain or gzip), or a folder of period files."
        ),
        click.option("--train", type=_FILE, help="Instead: a file that is learned,"),
        click.option("--test", type=_FILE, help="and a later one that is tested, then learned."),
        click.option("--dataset", "name", help="Instead: a known data set, for example globo (README.md)."),
        click.option(
            "--format",
            "form",
            type=click.Choice(["csv", "tsv", "jsonl", "sessions"]),
            help='Format; default: by the name. sessions: a folder of files with lines "session item", a period each.',
        ),
        click.option(
            "--map", "mapping", default="", help="Columns: user=...,item=...,time=...[,session=,type=,value=,...]."
        ),
        click.option(
            "--type", "default_type", default="click", show_default=True, help="What was done, if no column says it."
        ),
        click.option("--time-unit", type=click.Choice(["auto", "s", "ms", "iso"]), default="auto", show_default=True),
        click.option(
            "--items",
            type=click.Path(path_type=Path, exists=True, dir_okay=False),
            help="What is known of the items: catalogue entries, a line of JSON each, as millrace produce --items has "
            "them. Known data sets have their own.",
        ),
        click.option("--limit", type=click.IntRange(min=1), help="Only this many events, counted from the beginning."),
    )

    path: Path | None
    train: Path | None
    test: Path | None
    name: str | None
    form: Format | Literal["sessions"] | None
    mapping: str
    default_type: str
    time_unit: TimeUnit
    items: Path | None
    limit: int | None

    def read(self, protocol: str) -> EventStream:
        """The events that a protocol takes. Raises MillraceError."""
        from millrace.evaluation.protocols import kept
        from millrace.evaluation.stream import select, with_catalogue

        stream = self._all()
        if self.items is not None:
            stream = with_catalogue(stream, _catalogue(self.items))
        for note in stream.notes:
            click.echo(note, err=True)
        return select(stream, lambda event: kept(protocol, event), self.limit)

    def _all(self) -> EventStream:
        from millrace.evaluation.stream import read_files, read_sessions, read_source
        from millrace.events.columns import parse_columns
        from millrace.events.datasets import dataset
        from millrace.events.files import format_of
        from millrace.settings import settings

        path, train, test = self.path, self.train, self.test
        if [path is not None, train is not None or test is not None, self.name is not None].count(True) != 1:
            raise MillraceError("say what to evaluate: --events FILE, or --train FILE --test FILE, or --dataset NAME")
        if self.name is not None:
            named = dataset(self.name, settings().client.data)
            with events_bar(f"reading {named.name}", self.limit or named.rows) as step:
                return read_source(named, limit=self.limit, step=step)
        if path is not None and self.form == "sessions":
            with events_bar(f"reading {path.name}", None) as step:
                return read_sessions(path, step=step)
        if self.form == "sessions":
            raise MillraceError("--format sessions takes one folder, --events FOLDER: its files are the periods")
        if path is None and (train is None or test is None):
            raise MillraceError("--train and --test go together")
        paths = [one for one in (path, train, test) if one is not None]
        if folders := [one for one in paths if one.is_dir()]:
            raise MillraceError(f"{folders[0]} is a folder: --format sessions takes one, the other formats a file")
        if absent := [one for one in paths if not one.is_file()]:
            raise MillraceError(f"no file {absent[0]}")
        columns = parse_columns(self.mapping, self.default_type, self.time_unit)
        with events_bar("reading " + " + ".join(one.name for one in paths), None) as step:
            return read_files(paths, self.form or format_of(paths[0]), columns, step)


def _catalogue(path: Path) -> Iterator[Item]:
    """The catalogue entries in a file. Raises MillraceError with the line."""
    from millrace.errors import InvalidField
    from millrace.events.files import read_rows
    from millrace.events.jsonl import read_item

    for number, row in read_rows(path, "jsonl"):
        try:
            if isinstance(row, InvalidField):
                raise row
            yield read_item(row)
        except InvalidField as error:
            raise MillraceError(f"{path}, line {number}: {error}") from error


@dataclass(frozen=True, slots=True)
class Passes(_Options):
    """How they are gone through."""

    DECLARED = (
        click.option(
            "--protocol",
            type=click.Choice(PROTOCOLS),
            default="next-in-session",
            show_default=True,
            help="Before which events is asked and how answers are judged.",
        ),
        click.option(
            "--lag",
            "lags",
            default="0",
            show_default=True,
            help="Learn so much later, in a batch at each boundary: 0, a time (1m, 6h), 500sessions, period; several "
            "by comma.",
        ),
        click.option(
            "-k", "--k", default=20, show_default=True, type=click.IntRange(1, 200), help="Items of an answer."
        ),
        click.option(
            "--warm-up", default=0, type=click.IntRange(min=0), help="Events that are learned and not counted."
        ),
        click.option(
            "--every", default=1, type=click.IntRange(min=1), help="Ask only before every N-th eligible event."
        ),
        click.option(
            "--negatives",
            default=0,
            type=click.IntRange(0, 5_000),
            help="Rank among N items drawn at random, not among all: biased, for comparison with papers only.",
        ),
        click.option(
            "--without",
            multiple=True,
            type=click.Choice(tuple(PARTS)),
            # In one order, so that the same parts are the same pass.
            callback=lambda _context, _option, given: tuple(part for part in PARTS if part in given),
            help="Leave out a part of the recommender, its candidates and its features; again for more.",
        ),
        click.option(
            "--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Of draws, and of --every."
        ),
    )

    protocol: str
    lags: str
    k: int
    warm_up: int
    every: int
    negatives: int
    without: tuple[str, ...]
    seed: int

    @property
    def each(self) -> list[str]:
        """The lags one by one; a pass each. Raises MillraceError."""
        from millrace.evaluation.lag import parse_lag

        return [parse_lag(text.strip()).text for text in self.lags.split(",")]

    def of(self, name: str) -> str:
        """A stream's name, with the parts that are left out."""
        return f"{name} without {' and '.join(self.without)}" if self.without else name
