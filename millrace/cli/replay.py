"""``millrace replay``: publish a file or a known data set as events."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from millrace.cli._output import quiet_logs
from millrace.errors import MillraceError

if TYPE_CHECKING:
    from millrace.events.columns import TimeUnit
    from millrace.events.files import Format
    from millrace.events.progress import Progress
    from millrace.events.replay import BadLine
    from millrace.events.sources import Source

BAD_LINES_SHOWN = 20
"""Enough to see a pattern; the rest is counted."""


@click.command()
@click.option("--dataset", "name", help="A known data set: globo, ml-100k, ml-latest-small, serenade-toy.")
@click.option("--file", "path", type=click.Path(path_type=Path), help="A file instead (plain or gzip); needs --map.")
@click.option("--format", "form", type=click.Choice(["csv", "tsv", "jsonl"]), help="Its format; default: by its name.")
@click.option("--map", "mapping", default="", help="Its columns: user=...,item=...,time=...[,type=,value=,...].")
@click.option("--type", "default_type", default="click", show_default=True, help="What was done, if no column says it.")
@click.option(
    "--time-unit",
    type=click.Choice(["auto", "s", "ms", "iso"]),
    default="auto",
    show_default=True,
    help="Unit of time.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Only this many rows, counted from the beginning.")
@click.option("--speed", default="asap", show_default=True, help="asap, recorded, or N times as fast: 60x.")
@click.option("--restart", is_flag=True, help="Begin anew instead of going on where the last run ended.")
@click.option("--strict", is_flag=True, help="Stop at the first bad line.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def command(
    name: str | None,
    path: Path | None,
    form: Format | None,
    mapping: str,
    default_type: str,
    time_unit: TimeUnit,
    limit: int | None,
    speed: str,
    restart: bool,
    strict: bool,
    as_json: bool,
) -> None:
    """Publish a file or a known data set as events, at the speed you choose.

    Ctrl-C stops it; the same command goes on where it stopped. Bad lines are reported and passed over.
    """
    from millrace.client import EventProducer
    from millrace.events.progress import Progress, ProgressFile
    from millrace.events.replay import Pace, Replay, parse_speed, publish_catalogue
    from millrace.settings import settings
    from millrace.stream.admin import topic_ids
    from millrace.topics import INTERACTIONS

    quiet_logs()
    pace = Pace(parse_speed(speed))
    source = _source(name, path, form, mapping, default_type, time_unit, settings().client.data)
    kafka = settings().kafka
    topic_id = topic_ids(kafka, [INTERACTIONS.name])[INTERACTIONS.name]
    file = ProgressFile(source.name)
    start = Progress(topic_id) if restart else file.load(topic_id)
    if start.rows:
        click.echo(f"going on after row {start.rows} (--restart begins anew)", err=True)
    began = time.monotonic()
    with EventProducer(kafka) as events, _stop_signals() as stopped, _bar(source, limit, start) as show:
        if not start.rows and (items := publish_catalogue(source, events)):
            click.echo(f"published {items} catalogue entries", err=True)

        def save(progress: Progress) -> None:
            file.save(progress)
            show(progress)

        run = Replay(source, events, start, pace=pace, stop=stopped, save=save, report=_report(), strict=strict)
        end = run.run(limit)
    _print_outcome(source, start, end, time.monotonic() - began, stopped.is_set(), as_json)
    if stopped.is_set():
        sys.exit(128 + signal.SIGINT)  # as a shell expects of a command that Ctrl-C ended


def _source(
    name: str | None,
    path: Path | None,
    form: Format | None,
    mapping: str,
    default_type: str,
    time_unit: TimeUnit,
    data: Path,
) -> Source:
    from millrace.events.columns import parse_columns
    from millrace.events.datasets import dataset
    from millrace.events.files import format_of
    from millrace.events.sources import file_source

    if (name is None) == (path is None):
        raise MillraceError("say what to replay: --dataset NAME, or --file FILE with --map")
    if name is not None:
        return dataset(name, data)
    assert path is not None
    if not path.is_file():
        raise MillraceError(f"no file {path}")
    return file_source(path, form or format_of(path), parse_columns(mapping, default_type, time_unit))


@contextlib.contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """A flag that Ctrl-C and SIGTERM set; a second one ends the process at once."""
    stopped = threading.Event()

    def stop(number: int, frame: object) -> None:
        del frame
        stopped.set()
        signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _bar(source: Source, limit: int | None, start: Progress) -> Iterator[Callable[[Progress], None]]:
    """A progress bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed or 0:,.0f} rows/s")

    total = min((rows for rows in (source.rows, limit) if rows is not None), default=None)
    columns = (TextColumn(source.name), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(source.name, total=total, completed=start.rows)
        yield lambda progress: bar.update(task, completed=progress.rows)


def _report() -> Callable[[BadLine], None]:
    """Prints the first bad lines."""
    shown = 0

    def report(bad: BadLine) -> None:
        nonlocal shown
        shown += 1
        if shown <= BAD_LINES_SHOWN:
            click.echo(f"line {bad.line}: {bad.error}", err=True)
        elif shown == BAD_LINES_SHOWN + 1:
            click.echo("further bad lines are counted only", err=True)

    return report


def _print_outcome(
    source: Source, start: Progress, end: Progress, seconds: float, stopped: bool, as_json: bool
) -> None:
    rows, bad = end.rows - start.rows, end.bad - start.bad
    if as_json:
        outcome = {
            "source": source.name,
            "from_row": start.rows,
            "to_row": end.rows,
            "published": rows - bad,
            "bad": bad,
            "seconds": round(seconds, 3),
            "rows_per_s": round(rows / seconds, 1),
            "stopped": stopped,
        }
        click.echo(json.dumps(outcome))
    elif not rows and not stopped:
        click.echo(f"{source.name}: nothing left, {end.rows} rows are done (--restart begins anew)")
    else:
        click.echo(
            f"{source.name}: rows {start.rows + 1}-{end.rows}: {rows - bad} events published and acknowledged, "
            f"{bad} bad lines, {seconds:.1f} s, {rows / seconds:,.0f} rows/s"
            + ("; stopped: the same command goes on from here" if stopped else "")
        )
