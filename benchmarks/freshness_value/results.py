"""The months measured so far, and what Globo.com's clicks are like."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from millrace.simulation.worlds import WORLDS

# News was reported on it before there was a shop, whose settings were chosen on another.
SEED = 7
RESULTS = Path(__file__).parents[1] / "results" / "freshness-value.json"


Month: TypeAlias = Mapping[str, Any]
"""As ``measuring.measure`` makes it."""


@dataclass
class Results:
    """What the document is written from.

    Attributes
    ----------
    months
        By world, then by seed.
    globo
        As ``clock.clock`` makes it; empty if it was not measured.
    """

    months: list[Month]
    globo: dict[str, Any]

    def of(self, world: str) -> list[Month]:
        """The months of a world, by seed."""
        return [one for one in self.months if one["world"] == world]


def read(file: Path = RESULTS) -> Results:
    """What was measured; nothing if the file is not there."""
    if not file.exists():
        return Results([], {})
    content = json.loads(file.read_text(encoding="utf-8"))
    return Results(content["months"], content["globo"])


def add(month: Month, file: Path = RESULTS) -> None:
    """Keep a month; an earlier one of the same world and seed goes."""
    found = read(file)
    key = (month["world"], month["seed"])
    found.months = [one for one in found.months if (one["world"], one["seed"]) != key] + [month]
    write(found, file)


def write(found: Results, file: Path = RESULTS) -> None:
    """Write all of it; worlds that are not declared any more go."""
    order = list(WORLDS)
    months = sorted(
        (one for one in found.months if one["world"] in order),
        key=lambda one: (order.index(one["world"]), one["seed"]),
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_suffix(".new")
    beside.write_text(json.dumps({"months": months, "globo": found.globo}, indent=1) + "\n", encoding="utf-8")
    beside.replace(file)
