"""Live learning against nightly retraining, in a month that is simulated without servers beside the demo.

``python -m deploy.demo.comparison FILE``: the people, items and click model of ``millrace simulate``, the functions of
production, each way with the shop to itself and with the same visitors (``millrace.evaluation.month``).
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import click

from millrace.settings import Settings
from millrace.simulation.days import DAY_S, Days, DaysPlan
from millrace.simulation.figures import Count
from millrace.simulation.people import Habits
from millrace.simulation.worlds import WorldKind, make_month_world

WARM_UP_DAYS, SHIFT_AFTER = 2, 5
"""Days before the figures begin, and from there to Black Friday."""
KIND = WorldKind(
    DaysPlan(WARM_UP_DAYS + 10, 150.0, shift_on=WARM_UP_DAYS + SHIFT_AFTER),
    warm_up_days=WARM_UP_DAYS,
    shoppers=150,
    items=300,
    # Items stay: what is compared is how soon changed tastes are known.
    lifetime_s=180 * DAY_S,
    habits=Habits(),
)
NICE = 10
"""The pipeline beside it comes first."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Click-through by day of each way, without the warm-up."""

    days: dict[str, list[float]]


def compare(kind: WorldKind = KIND, seed: int = 1) -> Comparison:
    """Run the month once for each way; takes about a minute."""
    # Here, because the demo needs the rest of this module while its pipeline starts, and this loads all of ranking.
    from millrace.evaluation.month import WAYS, make_front

    found = {}
    for way in ("live", "nightly"):
        world = make_month_world(seed, kind)
        days = Days(world, make_front(WAYS[way], world, kind, Settings()), kind.plan)
        for _ in days.run():
            pass
        counts = days.counts[kind.warm_up_days :].sum(axis=1)
        found[way] = (counts[:, Count.CLICKS] / counts[:, Count.SLOTS]).tolist()
    return Comparison(found)


def read(file: Path) -> Comparison | None:
    """What was written so far; None while it is not done."""
    return Comparison(json.loads(file.read_text())) if file.exists() else None


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
def main(file: Path) -> None:
    """Write the click-through by day of live and nightly learning, JSON."""
    os.nice(NICE)
    written = file.with_suffix(".part")
    written.write_text(json.dumps(compare().days))
    written.rename(file)


if __name__ == "__main__":
    main()
