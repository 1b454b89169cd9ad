"""What a model version keeps of its training window: one ``.npz`` of plain numbers beside it, never a pickle."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from millrace.drift.block import Baseline
from millrace.drift.counts import Categories, Edges
from millrace.drift.hours import Hours
from millrace.drift.reference import AnyReference, Reference
from millrace.errors import MillraceError

FORMAT = 1
REFERENCE_FILE = "reference.npz"
"""Name of the file in a model version's artifacts."""


class UnusableReference(MillraceError):
    """A reference that cannot be read: damaged, or of another format."""


@dataclass(frozen=True, slots=True)
class Labels:
    """What one measure of the labels was like, for example the click-through of a segment."""

    baseline: Baseline
    hours: Hours = field(default_factory=Hours)


@dataclass(frozen=True)
class ModelReference:
    """What a model version is compared with.

    Attributes
    ----------
    values
        Its features and scores.
    labels
        Measures by name.
    """

    values: tuple[AnyReference, ...] = ()
    labels: Mapping[str, Labels] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The reference as the bytes of an ``.npz``; the same one gives the same bytes."""
        words = {
            "format": FORMAT,
            "values": [
                {"name": each.name, "names": each.cells.names if isinstance(each.cells, Categories) else None}
                for each in self.values
            ],
            "labels": {
                name: asdict(each.baseline) | {"hours": each.hours.factors} for name, each in self.labels.items()
            },
        }
        numbers: dict[str, npt.NDArray[Any]] = {"words": np.frombuffer(json.dumps(words).encode(), dtype=np.uint8)}
        for at, each in enumerate(self.values):
            numbers |= {f"blocks_{at}": each.blocks, f"missing_{at}": each.missing}
            if isinstance(each.cells, Edges):
                numbers[f"edges_{at}"] = each.cells.edges
        file = io.BytesIO()
        np.savez_compressed(file, **numbers)  # type: ignore[arg-type]  # its own options are no arrays
        return file.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> ModelReference:
        """The reference in the bytes of an ``.npz``. Raises UnusableReference, saying what is wrong."""
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as numbers:
                words = json.loads(numbers["words"].tobytes())
                if words["format"] != FORMAT:
                    raise UnusableReference(f"reference: format {words['format']!r}, not {FORMAT}")
                return cls(
                    tuple(_values(each, at, numbers) for at, each in enumerate(words["values"])),
                    {str(name): _labels(each) for name, each in words["labels"].items()},
                )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
            raise UnusableReference(f"reference is damaged: {type(error).__name__}: {error}") from error


def _values(words: Mapping[str, Any], at: int, numbers: Mapping[str, npt.NDArray[Any]]) -> AnyReference:
    blocks, missing = (numbers[f"{name}_{at}"].astype(np.int64) for name in ("blocks", "missing"))
    if words["names"] is None:
        return Reference(str(words["name"]), Edges(numbers[f"edges_{at}"].astype(np.float32)), blocks, missing)
    return Reference(str(words["name"]), Categories(tuple(str(name) for name in words["names"])), blocks, missing)


def _labels(words: Mapping[str, Any]) -> Labels:
    numbers = {name: float(words[name]) for name in ("ratio", "rate", "error", "dispersion")}
    return Labels(Baseline(**numbers), Hours(tuple(float(factor) for factor in words["hours"])))
