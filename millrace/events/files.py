"""Reads rows from CSV, TSV and JSON lines, plain or gzip. Nothing is held in memory but the row at hand."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Literal, TypeAlias

from millrace.errors import InvalidField, MillraceError
from millrace.events.columns import Row

Format: TypeAlias = Literal["csv", "tsv", "jsonl"]
NumberedRow: TypeAlias = tuple[int, Row | InvalidField]
"""Number of the line in the file, from 1, and its row; or what is wrong with the line."""

_GZIP_MAGIC = b"\x1f\x8b"
_SUFFIXES: dict[str, Format] = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}


def format_of(path: Path) -> Format:
    """The format by the name of the file, ``.gz`` aside."""
    name = path.with_suffix("") if path.suffix == ".gz" else path
    found = _SUFFIXES.get(name.suffix.lower())
    if found is None:
        raise MillraceError(f"{path}: the name tells no format; say --format csv, tsv or jsonl")
    return found


def read_rows(
    path: Path, format: Format, header: Sequence[str] | None = None, encoding: str = "utf-8-sig"
) -> Iterator[NumberedRow]:
    """Every row of a file; blank lines are passed over.

    Parameters
    ----------
    header
        Names of the columns of a CSV or TSV file whose first line is data; None: the first line names them.

    Raises
    ------
    MillraceError
        The file cannot be read, or breaks off inside its compression.
    """
    try:
        with open_text(path, encoding) as lines:
            if format == "jsonl":
                yield from _json_rows(lines)
            else:
                yield from _separated_rows(lines, format, header)
    except (OSError, EOFError, zlib.error) as error:
        raise MillraceError(f"{path}: {error}") from error


def header_of(path: Path, format: Format) -> list[str] | None:
    """Names of a file's columns; None where each row names its own (JSON lines)."""
    if format == "jsonl":
        return None
    try:
        with open_text(path, "utf-8-sig") as lines:
            return next(_reader(lines, format), [])
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise MillraceError(f"{path}: {error}") from error


def open_text(path: Path, encoding: str) -> IO[str]:
    """The file as text, unpacked if it is gzip (by content, whatever its name)."""
    with path.open("rb") as file:
        packed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    opened = gzip.open if packed else Path.open
    raw: IO[bytes] = opened(path, "rb")  # type: ignore[assignment]
    # Bytes that are not of the encoding stay in the text as surrogates, which no contract field takes: the row
    # is refused with its number, and the others are read.
    return io.TextIOWrapper(raw, encoding=encoding, errors="surrogateescape", newline="")


def _reader(lines: IO[str], format: Format) -> Iterator[list[str]]:
    if format == "tsv":
        return csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    return csv.reader(lines, strict=True)


def _separated_rows(lines: IO[str], format: Format, header: Sequence[str] | None) -> Iterator[NumberedRow]:
    reader = _reader(lines, format)
    while True:
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield reader.line_num, InvalidField("line", str(error), f"a line of {format}")  # type: ignore[attr-defined]
            continue
        number: int = reader.line_num  # type: ignore[attr-defined]
        if header is None:
            header = values
        elif len(values) == len(header):
            yield number, dict(zip(header, values, strict=True))
        elif values:
            yield number, InvalidField("line", f"{len(values)} columns", f"{len(header)} columns")


def _json_rows(lines: IO[str]) -> Iterator[NumberedRow]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, InvalidField("line", f"not JSON ({error})", "a JSON object")
            continue
        if isinstance(row, dict):
            yield number, row
        else:
            yield number, InvalidField("line", f"a JSON {type(row).__name__}", "a JSON object")
