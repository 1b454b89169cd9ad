"""``millrace evaluate``: how good recommendations are on recorded events."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING

import click

from millrace.cli._bar import events_bar
from millrace.cli._output import print_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from millrace.evaluation.learner_ablation import Row
    from millrace.events.sources import Source
    from millrace.v1.interaction_pb2 import Interaction


@click.command()
@click.option("--dataset", "name", required=True, help="A known data set, for example globo (see `millrace replay`).")
@click.option("--limit", type=click.IntRange(min=1), help="Only this many rows, counted from the beginning.")
@click.option("--warm-up", default=0, type=click.IntRange(min=0), help="Rows that are learned and not counted.")
@click.option("--every", default=1, type=click.IntRange(min=1), help="Ask only before every N-th eligible event.")
@click.option("--seed", default=0, show_default=True, help="Of draws, and of which events --every takes.")
@click.option(
    "--ablation",
    type=click.Choice(["learner"]),
    required=True,
    help="learner: pointwise, pairwise and listwise learning on the same candidates.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(name: str, limit: int | None, warm_up: int, every: int, seed: int, ablation: str, as_json: bool) -> None:
    """Go through recorded events in order: before each click that has one before it in its session, ask which item
    comes; then learn it. The whole catalogue is ranked, with the functions that serve."""
    from millrace.evaluation.learner_ablation import run
    from millrace.events.datasets import dataset
    from millrace.settings import settings

    del ablation  # there is one
    source = dataset(name, settings().client.data)
    total = min(filter(None, (source.rows, limit)), default=None)
    with events_bar(name, total) as step:
        rows = run(islice(_valid(source), limit), settings(), every, warm_up, seed, step)
    if as_json:
        click.echo(json.dumps({"rows": [asdict(row) for row in rows]}))
    else:
        _print_learners(rows)


def _valid(source: Source) -> Iterator[Interaction]:
    """The events of a source, whose rows are known to be good."""
    for line, event in source.events():
        if isinstance(event, Exception):
            raise click.ClickException(f"{source.name}, line {line}: {event}")
        yield event


def _print_learners(rows: Sequence[Row]) -> None:
    def interval(value: tuple[float, float, float]) -> str:
        return "{:.4f} [{:.4f}, {:.4f}]".format(*value)

    def slots(row: Row, kind: str) -> Iterable[str]:
        figures = row.slots.get(kind)
        if figures is None:
            return "", ""
        return tuple(
            " / ".join(f"{figures[before + name]:.3f}" for name in ("log_loss", "calibration_error", "bias"))
            for before in ("", "platt_")
        )

    kinds = ("sampled", "shown")
    calibrations = (f"{kind} slots{platt}: loss / ECE / bias" for kind in kinds for platt in ("", ", Platt"))
    print_table(
        ("learner", "n", "HR@20", "MRR@20", "HR gain", "MRR gain", *calibrations),
        [
            (
                row.learner,
                row.n,
                *(interval(value) for value in (row.hr, row.mrr, row.hr_gain, row.mrr_gain)),
                *(text for kind in kinds for text in slots(row, kind)),
            )
            for row in rows
        ],
    )
