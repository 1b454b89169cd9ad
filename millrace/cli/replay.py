"""``millrace replay``: publish a file or a known data set as events."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from millrace.cli._output import quiet_logs
from millrace.errors import MillraceError
from millrace.flag import Flag

if TYPE_CHECKING:
    from millrace.client import EventProducer
    from millrace.events.asking import Asked, AskingPublisher
    from millrace.events.columns import TimeUnit
    from millrace.events.files import Format
    from millrace.events.progress import Progress
    from millrace.events.replay import BadLine
    from millrace.events.sources import Source

BAD_LINES_SHOWN = 20
"""Enough to see a pattern; the rest is counted."""
ASKED_LINE_S = 5.0
"""Where no terminal shows it, a line about the answers comes so often."""


@click.command()
@click.option("--dataset", "name", help="A known data set, for example globo (README.md).")
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
@click.option(
    "--ask",
    is_flag=True,
    help="Ask for recommendations before each click, as of its time, and show hit rate and MRR. The click goes out "
    "with the request_id of its answer if the clicked item is in it, else without; no views are sent.",
)
@click.option(
    "-k", "--k", default=10, show_default=True, type=click.IntRange(1, 200), help="With --ask: items of an answer."
)
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
    ask: bool,
    k: int,
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
    with contextlib.ExitStack() as until_exit:
        events = until_exit.enter_context(EventProducer(kafka))
        asking = until_exit.enter_context(_asking(events, k)) if ask else None
        stopped = until_exit.enter_context(_stop_signals())
        show = until_exit.enter_context(_bar(source, limit, start, asking))
        publisher = asking or events
        if not start.rows and (items := publish_catalogue(source, events)):
            click.echo(f"published {items} catalogue entries", err=True)

        def save(progress: Progress) -> None:
            file.save(progress)
            show(progress)

        run = Replay(source, publisher, start, pace=pace, stop=stopped, save=save, report=_report(), strict=strict)
        end = run.run(limit)
    asked = asking.asked if asking else None
    _print_outcome(source, start, end, time.monotonic() - began, stopped.is_set(), asked, as_json)
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
def _stop_signals() -> Iterator[Flag]:
    """A flag that Ctrl-C and SIGTERM set; a second one ends the process at once."""
    stopped = Flag()

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
def _asking(events: EventProducer, k: int) -> Iterator[AskingPublisher]:
    from millrace.client import RecommenderClient
    from millrace.events.asking import AskingPublisher
    from millrace.settings import settings

    with (
        RecommenderClient(settings().client.recommender_target) as recommender,
        AskingPublisher(recommender, events, k) as asking,
    ):
        yield asking


@contextlib.contextmanager
def _bar(
    source: Source, limit: int | None, start: Progress, asking: AskingPublisher | None
) -> Iterator[Callable[[Progress], None]]:
    """A progress bar on a terminal; elsewhere nothing, or lines about the answers."""
    if not sys.stderr.isatty():
        yield _asked_lines(asking) if asking else lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed or 0:,.0f} rows/s")

    total = min((rows for rows in (source.rows, limit) if rows is not None), default=None)
    columns = (
        *(TextColumn(source.name), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn()),
        TextColumn("{task.fields[asked]}"),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(source.name, total=total, completed=start.rows, asked="")
        yield lambda progress: bar.update(
            task, completed=progress.rows, asked=_asked_text(asking.asked) if asking else ""
        )


def _asked_lines(asking: AskingPublisher) -> Callable[[Progress], None]:
    """Prints a line from time to time."""
    last = time.monotonic()

    def show(progress: Progress) -> None:
        nonlocal last
        if time.monotonic() - last >= ASKED_LINE_S:
            last = time.monotonic()
            click.echo(f"row {progress.rows}: {_asked_text(asking.asked)}", err=True)

    return show


def _asked_text(asked: Asked) -> str:
    if asked.hit_rate is None:
        return f"no answers, {asked.failed} requests failed"
    return f"hit rate@{asked.k} {asked.hit_rate:.2%}, MRR@{asked.k} {asked.mrr:.4f}" + (
        f", {asked.failed} requests failed" if asked.failed else ""
    )


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
    source: Source, start: Progress, end: Progress, seconds: float, stopped: bool, asked: Asked | None, as_json: bool
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
        if asked:
            outcome["asked"] = {
                "k": asked.k,
                "answered": asked.answered,
                "failed": asked.failed,
                "hits": asked.hits,
                "hit_rate": asked.hit_rate,
                "mrr": asked.mrr,
            }
        click.echo(json.dumps(outcome))
    elif not rows and not stopped:
        click.echo(f"{source.name}: nothing left, {end.rows} rows are done (--restart begins anew)")
    else:
        click.echo(
            f"{source.name}: rows {start.rows + 1}-{end.rows}: {rows - bad} events published and acknowledged, "
            f"{bad} bad lines, {seconds:.1f} s, {rows / seconds:,.0f} rows/s"
            + (f"; {_asked_text(asked)} over {asked.answered} answers" if asked else "")
            + ("; stopped: the same command goes on from here" if stopped else "")
        )
