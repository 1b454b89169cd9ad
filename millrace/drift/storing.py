"""References as a file beside the model: one ``.npz`` of plain numbers, its words as JSON; never a pickle."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from millrace.drift.counts import Categories, Edges
from millrace.drift.reference import AnyReference, Reference
from millrace.errors import MillraceError

FORMAT = 1
REFERENCES_FILE = "references.npz"
"""Name of the file in a model version's artifacts."""


class UnusableReferences(MillraceError):
    """References that cannot be read: damaged, or of another format."""


def to_bytes(references: Sequence[AnyReference]) -> bytes:
    """The references as the bytes of an ``.npz``; the same references give the same bytes."""
    words = [
        {"name": each.name, "names": each.cells.names if isinstance(each.cells, Categories) else None}
        for each in references
    ]
    numbers: dict[str, npt.NDArray[Any]] = {
        "words": np.frombuffer(json.dumps({"format": FORMAT, "features": words}).encode(), dtype=np.uint8)
    }
    for at, each in enumerate(references):
        numbers |= {f"blocks_{at}": each.blocks, f"missing_{at}": each.missing}
        if isinstance(each.cells, Edges):
            numbers[f"edges_{at}"] = each.cells.edges
    file = io.BytesIO()
    np.savez_compressed(file, **numbers)  # type: ignore[arg-type]  # its own options are no arrays
    return file.getvalue()


def from_bytes(content: bytes) -> list[AnyReference]:
    """The references in the bytes of an ``.npz``. Raises UnusableReferences, saying what is wrong."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as numbers:
            words = json.loads(numbers["words"].tobytes())
            if words["format"] != FORMAT:
                raise UnusableReferences(f"references: format {words['format']!r}, not {FORMAT}")
            return [_reference(each, at, numbers) for at, each in enumerate(words["features"])]
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UnusableReferences(f"references are damaged: {type(error).__name__}: {error}") from error


def _reference(words: Mapping[str, Any], at: int, numbers: Mapping[str, npt.NDArray[Any]]) -> AnyReference:
    blocks, missing = (numbers[f"{name}_{at}"].astype(np.int64) for name in ("blocks", "missing"))
    if words["names"] is None:
        return Reference(str(words["name"]), Edges(numbers[f"edges_{at}"].astype(np.float32)), blocks, missing)
    return Reference(str(words["name"]), Categories(tuple(str(name) for name in words["names"])), blocks, missing)
