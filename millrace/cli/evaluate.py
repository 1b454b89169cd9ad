"""``millrace evaluate``: how good recommendations are on recorded events."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from millrace.cli._bar import events_bar
from millrace.cli._evaluate_view import as_row, print_figures, print_learners
from millrace.errors import MillraceError

if TYPE_CHECKING:
    from typing import Literal

    from millrace.evaluation.figures import Figures
    from millrace.evaluation.stream import EventStream
    from millrace.events.columns import TimeUnit
    from millrace.events.files import Format

File = click.Path(path_type=Path)


@click.command()
@click.option("--events", "path", type=File, help="A file of events (plain or gzip), or a folder of period files.")
@click.option("--train", type=File, help="Instead: a file that is learned,")
@click.option("--test", type=File, help="and a later one that is tested, then learned.")
@click.option("--dataset", "name", help="Instead: a known data set, for example globo (README.md).")
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "tsv", "jsonl", "sessions"]),
    help='Format; default: by the name. sessions: a folder of files with lines "session item", a period each.',
)
@click.option("--map", "mapping", default="", help="Columns: user=...,item=...,time=...[,session=,type=,value=,...].")
@click.option("--type", "default_type", default="click", show_default=True, help="What was done, if no column says it.")
@click.option("--time-unit", type=click.Choice(["auto", "s", "ms", "iso"]), default="auto", show_default=True)
@click.option(
    "--protocol",
    "protocol_name",
    type=click.Choice(["next-in-session", "next-item", "flurs", "ader", "serenade"]),
    default="next-in-session",
    show_default=True,
    help="Before which events is asked and how answers are judged.",
)
@click.option(
    "--lag",
    "lags",
    default="0",
    show_default=True,
    help="Learn so much later, in a batch at each boundary: 0, a time (1m, 6h), 500sessions, period; several by comma.",
)
@click.option("-k", "--k", default=20, show_default=True, type=click.IntRange(1, 200), help="Items of an answer.")
@click.option("--limit", type=click.IntRange(min=1), help="Only this many events, counted from the beginning.")
@click.option("--warm-up", default=0, type=click.IntRange(min=0), help="Events that are learned and not counted.")
@click.option("--every", default=1, type=click.IntRange(min=1), help="Ask only before every N-th eligible event.")
@click.option("--seed", default=0, show_default=True, help="Of draws, and of which events --every takes.")
@click.option("--ablation", type=click.Choice(["learner"]), help="learner: ways to learn, on the same candidates.")
@click.option("--restart", is_flag=True, help="Begin anew instead of going on where the last run was interrupted.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    path: Path | None,
    train: Path | None,
    test: Path | None,
    name: str | None,
    form: Format | Literal["sessions"] | None,
    mapping: str,
    default_type: str,
    time_unit: TimeUnit,
    protocol_name: str,
    lags: str,
    k: int,
    limit: int | None,
    warm_up: int,
    every: int,
    seed: int,
    ablation: str | None,
    restart: bool,
    as_json: bool,
) -> None:
    """Go through recorded events in order: ask before each what comes next, then learn it.

    With the functions that serve and learn in production, on features in memory: no servers are needed. All items
    are ranked, ties count against us, and nothing is known of an event before it has been asked for. A run that was
    interrupted goes on when the same command is given again.
    """
    from millrace.evaluation.lag import parse_lag
    from millrace.evaluation.protocols import kept
    from millrace.evaluation.stream import select
    from millrace.settings import settings

    if ablation and (protocol_name != "next-in-session" or lags != "0"):
        raise click.UsageError("--ablation goes with --protocol next-in-session and --lag 0")
    passes = [parse_lag(text.strip()) for text in lags.split(",")]
    stream = _stream(path, train, test, name, form, mapping, default_type, time_unit)
    for note in stream.notes:
        click.echo(note, err=True)
    stream = select(stream, lambda event: kept(protocol_name, event), limit)
    if ablation:
        from millrace.evaluation.learner_ablation import run

        with events_bar(stream.name, len(stream.events)) as step:
            rows = run(stream.events, settings(), every, max(warm_up, stream.tested_from), seed, step)
        if as_json:
            click.echo(json.dumps({"rows": [asdict(row) for row in rows]}))
        else:
            print_learners(rows)
        return
    found = [(lag.text, _figures(stream, protocol_name, lag.text, k, warm_up, every, seed, restart)) for lag in passes]
    if as_json:
        click.echo(json.dumps({"rows": [as_row(lag, protocol_name, k, one) for lag, one in found]}))
    else:
        print_figures(stream.name, protocol_name, k, found)


def _figures(
    stream: EventStream, protocol_name: str, lag: str, k: int, warm_up: int, every: int, seed: int, restart: bool
) -> Figures:
    """The figures of one pass."""
    from millrace.evaluation.checkpoint import CheckpointFile
    from millrace.evaluation.figures import measure
    from millrace.evaluation.lag import parse_lag
    from millrace.evaluation.prequential import Prequential
    from millrace.evaluation.protocols import protocol
    from millrace.settings import settings

    rules = protocol(protocol_name, stream, warm_up)
    run = Prequential(stream, rules, settings(), k, parse_lag(lag), every, seed)
    file = CheckpointFile(settings(), stream.checksum, protocol_name, lag, k, warm_up, every, seed)
    if restart:
        file.drop()
    with events_bar(f"{stream.name}, lag {lag}", len(stream.events)) as step:
        figures = measure(run, rules.by_period, k, step, file)
    if figures is None:
        raise MillraceError(
            f"{stream.name}: protocol {protocol_name} asked before none of its {len(stream.events)} events "
            f"(warm-up {warm_up}); next-in-session needs sessions of two events and more, in --map or by their times"
        )
    return figures


def _stream(
    path: Path | None,
    train: Path | None,
    test: Path | None,
    name: str | None,
    form: Format | Literal["sessions"] | None,
    mapping: str,
    default_type: str,
    time_unit: TimeUnit,
) -> EventStream:
    from millrace.evaluation.stream import read_files, read_sessions, read_source
    from millrace.events.columns import parse_columns
    from millrace.events.datasets import dataset
    from millrace.events.files import format_of
    from millrace.settings import settings

    if [path is not None, train is not None or test is not None, name is not None].count(True) != 1:
        raise MillraceError("say what to evaluate: --events FILE, or --train FILE --test FILE, or --dataset NAME")
    if name is not None:
        return read_source(dataset(name, settings().client.data))
    if path is not None and form == "sessions":
        return read_sessions(path)
    if form == "sessions":
        raise MillraceError("--format sessions takes one folder, --events FOLDER: its files are the periods")
    if path is None and (train is None or test is None):
        raise MillraceError("--train and --test go together")
    paths = [one for one in (path, train, test) if one is not None]
    if absent := [one for one in paths if not one.is_file()]:
        raise MillraceError(f"no file {absent[0]}")
    return read_files(paths, form or format_of(paths[0]), parse_columns(mapping, default_type, time_unit))
