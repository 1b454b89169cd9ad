"""How commands print: tables for people, tab-separated lines for pipes; and no library's log lines in between."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime

import click


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table on a terminal. Elsewhere one line a row, separated by tabs and never cut to a width."""
    texts = [["" if value is None else str(value) for value in row] for row in rows]
    if not sys.stdout.isatty():
        for row in (columns, *texts):
            click.echo("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in texts:
        table.add_row(*(Text(text) for text in row))  # Text: brackets in a title are no markup
    Console(highlight=False).print(table)


def when(at_ms: int) -> str:
    """A time for people: UTC, to the second."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def quiet_logs() -> None:
    """Keep librdkafka's lines from the terminal: what a person needs to know comes as the command's own error."""
    from millrace.settings import settings
    from millrace.stream import logs

    logs.configure(settings().observability.model_copy(update={"log_level": "CRITICAL"}), "millrace")
