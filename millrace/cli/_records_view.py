"""How records look in a terminal: one line each, with the names of their fields."""

from __future__ import annotations

import json
import shutil
import sys
from datetime import UTC, datetime
from typing import Any

import click

from millrace.inspection.plain import plain, readable
from millrace.inspection.shown import Shown

COLUMNS = ("appended", "partition", "offset", "key", "message")
# Where the columns of a terminal stand; longer keys move the rest of their line.
_WIDTHS = (23, 9, 9, 16)


def print_columns() -> None:
    """The first line."""
    if sys.stdout.isatty():
        click.secho(" ".join(name.ljust(width) for name, width in zip(COLUMNS, (*_WIDTHS, 0), strict=True)), bold=True)
    else:
        click.echo("\t".join(COLUMNS))


def print_line(shown: Shown) -> None:
    """A record: cut to the width of a terminal, whole and separated by tabs elsewhere."""
    cells = (
        time_text(shown.append_time_ms),
        str(shown.partition),
        str(shown.offset),
        printable(readable(shown.key) or ""),
    )
    if not sys.stdout.isatty():
        click.echo("\t".join((*cells, printable(summary(shown)))))
        return
    before = " ".join(cell.ljust(width) for cell, width in zip(cells, _WIDTHS, strict=True))
    left = max(20, shutil.get_terminal_size().columns - len(before) - 1)
    what = printable(summary(shown))
    click.echo(f"{before} " + click.style(what[:left], fg="red" if shown.problem else None))


def time_text(at_ms: int) -> str:
    """A time for people: UTC, to the millisecond."""
    return datetime.fromtimestamp(at_ms / 1_000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def summary(shown: Shown) -> str:
    """What a record says, on one line."""
    if shown.message is not None:
        return f"{shown.message.DESCRIPTOR.name} {fields_text(plain(shown.message))}".rstrip()
    if shown.value is None:
        return "(no value)"
    value = readable(shown.value)
    return f"({shown.problem}) {value}" if shown.problem else f"{value}"


def fields_text(fields: dict[str, Any]) -> str:
    """``name=value`` of each field."""
    return " ".join(f"{name}={_word(value)}" for name, value in fields.items())


def printable(text: str) -> str:
    """A text in which nothing moves the cursor or rings a bell: records hold whatever somebody sent."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def _word(value: Any) -> str:
    if isinstance(value, str) and value and " " not in value:
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
