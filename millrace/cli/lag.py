"""``millrace lag``: how far behind each worker is, partition by partition, and when it will have caught up."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from millrace.cli._output import print_table, quiet_logs
from millrace.settings import settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from millrace.inspection.lag import Look

COLUMNS = (
    "group",
    "worker",
    "topic",
    "partition",
    "committed",
    "end",
    "lag",
    "arriving/s",
    "handled/s",
    "caught up in",
)


@click.command()
@click.option("--watch", "-w", is_flag=True, help="Look again and again, until Ctrl-C.")
@click.option("--group", "-g", help="This group only.")
@click.option(
    "--over",
    type=click.FloatRange(0, 3600),
    default=2.0,
    show_default=True,
    help="Rates over so many seconds, which the command takes; 0: no rates, at once.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, an object for each look.")
def command(watch: bool, group: str | None, over: float, as_json: bool) -> None:
    """Show how far behind the groups are that read Millrace's topics.

    Lag counts offsets from what is committed to the end; workers commit every half second, the feature updater what is
    older than its durability margin (2 s): a lag of some seconds' records is no delay. Who reads without a group (the
    recommender's mirrors, the gateway's views) is in their metrics. Exit status 1 if there is no such group.
    """
    if watch and over == 0:
        raise click.UsageError("--watch needs an --over above 0: the time between two looks")
    quiet_logs()
    from millrace.inspection.lag import LagWatch

    groups = LagWatch(settings().kafka)
    before, now = None, groups.look()
    if over:
        time.sleep(over)
        before, now = now, groups.look()
    while True:
        rows = _rows(before, now, group)
        if as_json:
            click.echo(json.dumps({"seconds": over, "partitions": rows}))
        else:
            _print(rows, clear=watch)
        if not watch:
            sys.exit(0 if rows else 1)
        time.sleep(over)
        before, now = now, groups.look()


def _rows(before: Look | None, now: Look, group: str | None) -> list[dict[str, Any]]:
    from millrace.inspection.lag import pace

    rows = []
    for place, standing in now.standings.items():
        if group not in (None, place[0]):
            continue
        earlier = None if before is None else before.standings.get(place)
        moved = None if earlier is None or before is None else pace(earlier, standing, now.at_s - before.at_s)
        rows.append(
            {
                "group": place[0],
                "worker": standing.owner or None,
                "topic": place[1],
                "partition": place[2],
                "committed": standing.committed,
                "end": standing.end,
                "lag": standing.lag,
                "arriving_per_s": None if moved is None else round(moved.arriving, 1),
                "handled_per_s": None if moved is None else round(moved.handled, 1),
                "catch_up_s": None if moved is None or moved.catch_up_s is None else round(moved.catch_up_s, 1),
            }
        )
    return rows


def _print(rows: Sequence[dict[str, Any]], clear: bool) -> None:
    if clear and sys.stdout.isatty():
        click.clear()
    if not rows:
        click.echo("no group reads a topic of Millrace", err=True)
        return
    print_table(COLUMNS, [_cells(row) for row in rows])
    if clear and not sys.stdout.isatty():
        click.echo()


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    rated = row["arriving_per_s"] is not None
    left = row["catch_up_s"]
    return (
        row["group"],
        row["worker"] or "nobody",
        row["topic"],
        row["partition"],
        row["committed"],
        row["end"],
        row["lag"],
        row["arriving_per_s"],
        row["handled_per_s"],
        "" if not rated else "not at this pace" if left is None else "-" if left == 0 else _span(left),
    )


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{seconds / 3600:.1f} h"
