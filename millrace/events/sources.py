"""What ``millrace replay`` reads: a file with a mapping, or one of the data sets that are known by name."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from millrace.errors import InvalidField
from millrace.events.columns import Columns, check_header
from millrace.events.files import Format, NumberedRow, header_of, read_rows
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.item_pb2 import Item

NumberedEvent = tuple[int, Interaction | InvalidField]
"""Number of the line in its file and its event; or what is wrong with the line."""

_NAME_MAX = 64
_FINGERPRINT_BYTES = 64 * 1024
"""Enough to tell two files of one name apart: their first lines differ."""


@dataclass(frozen=True)
class Source:
    """Events to publish, in an order that is the same each time.

    Attributes
    ----------
    name
        Names the progress file; for a file its name and a check sum, so that two files are two sources.
    read
        Begins to read: every row from the first.
    rows
        How many there are, for the progress bar; None if unknown.
    catalogue
        Begins to read the catalogue entries that belong to it.
    """

    name: str
    columns: Columns
    read: Callable[[], Iterator[NumberedRow]]
    rows: int | None = None
    catalogue: Callable[[], Iterator[Item]] | None = None

    def events(self, skip: int = 0) -> Iterator[NumberedEvent]:
        """Every row as an event, after the first ``skip`` rows.

        Event ids are the source's name and the row's place, unless a column holds them: a row that is published
        again has the same id, and counts once within the de-duplication window.
        """
        for place, (number, row) in enumerate(self.read()):
            if place < skip:
                continue
            if isinstance(row, InvalidField):
                yield number, row
                continue
            try:
                yield number, self.columns.interaction(row, f"{self.name}:{place}")
            except InvalidField as error:
                yield number, error


def file_source(path: Path, format: Format, columns: Columns) -> Source:
    """A file with a mapping. Raises MillraceError where it cannot be read or lacks a mapped column."""
    if (header := header_of(path, format)) is not None:
        check_header(columns, header, path)
    with path.open("rb") as file:
        checksum = zlib.crc32(file.read(_FINGERPRINT_BYTES))
    return Source(f"{path.name[:_NAME_MAX]}-{checksum:08x}", columns, lambda: read_rows(path, format))
