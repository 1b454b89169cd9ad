"""``millrace tail``: the records of a topic, with their messages' names and fields."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from millrace.cli._completing import complete_topic
from millrace.cli._output import quiet_logs
from millrace.errors import InvalidField
from millrace.settings import settings

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from millrace.inspection.raw import RawReader
    from millrace.inspection.shown import Shown

# How often Ctrl-C is looked for while nothing comes.
_WAIT_S = 0.2


@click.command()
@click.argument("topic", shell_complete=complete_topic)
@click.option(
    "--from",
    "start",
    default="-10",
    show_default=True,
    metavar="beginning|end|-N|TIME|OFFSET",
    help="Where to begin: -N are the N newest of all partitions; a TIME is 15m, 2h, 3d (ago), ISO 8601, or @ and Unix "
    "time; an OFFSET counts in each partition.",
)
@click.option("--partition", "-p", type=click.IntRange(0), multiple=True, help="This partition only; may be repeated.")
@click.option("--key", "-k", help="Records with this key only.")
@click.option(
    "--where",
    metavar="EXPRESSION",
    help="Records whose message fits only: 'item_id == x and not type in (view, click)'; == != < <= > >= ~ (holds a "
    "text), and, or, not, brackets, fields in fields as context.device or slots.item_id.",
)
@click.option("-n", "--limit", type=click.IntRange(1), help="End after so many records.")
@click.option("--exit", "-e", "ends", is_flag=True, help="End with the last record instead of waiting for more.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json", "raw"]),
    default="table",
    show_default=True,
    help="table: a line each, tab-separated in a pipe; json: an object a line; raw: the value's bytes and a newline.",
)
def command(
    topic: str,
    start: str,
    partition: tuple[int, ...],
    key: str | None,
    where: str | None,
    limit: int | None,
    ends: bool,
    output: str,
) -> None:
    """Show the records of TOPIC, and those that come, until Ctrl-C.

    Any topic of the broker; messages are decoded for those of Millrace and for their dead-letter topics (TOPIC.dlq).
    Within a partition records come in their order; only those of --from -N come in the order of their times.
    """
    from millrace.events.build import now_ms
    from millrace.inspection.raw import RawReader
    from millrace.inspection.shown import source_of
    from millrace.inspection.start import parse_start

    begin = parse_start(start, now_ms())
    source = source_of(topic)
    if where is None:
        fits: Callable[[Message], bool] | None = None
    elif source is None:
        raise InvalidField("where", f"the messages of topic {topic} are not known", "topics of `millrace topics list`")
    else:
        from millrace.inspection.where import parse

        fits = parse(where, source.message)
    quiet_logs()
    wanted_key = None if key is None else key.encode()
    with RawReader(settings().kafka, topic, begin, partition) as reader:
        _print(_chosen(reader, topic, wanted_key, fits, ends), limit, output)


def _chosen(
    reader: RawReader, topic: str, key: bytes | None, fits: Callable[[Message], bool] | None, ends: bool
) -> Iterator[Shown]:
    """The records that are asked for."""
    from millrace.inspection.shown import show, source_of

    source = source_of(topic)
    while True:
        found = reader.rest() if ends else reader.poll(_WAIT_S)
        if ends and not found:
            return
        for raw in found:
            if key is not None and raw.key() != key:
                continue
            shown = show(raw, source)
            if fits is None or (shown.message is not None and fits(shown.message)):
                yield shown


def _print(records: Iterator[Shown], limit: int | None, output: str) -> None:
    from millrace.cli._records_view import print_columns, print_line

    if output == "table":
        print_columns()
    for number, shown in enumerate(records, 1):
        if output == "json":
            click.echo(json.dumps(shown.as_json()))
        elif output == "raw":
            click.echo((shown.value or b"") + b"\n", nl=False)
        else:
            print_line(shown)
        if number == limit:
            return
