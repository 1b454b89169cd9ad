"""``millrace recommend``: ask what a user should see now."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import click

from millrace.cli._output import print_table, when
from millrace.settings import settings

if TYPE_CHECKING:
    from millrace.client import Recommendation


@click.command()
@click.option("--user", required=True, help="The user's id; need not be known.")
@click.option("-k", "--k", default=10, show_default=True, help="How many items, 1 to 200.")
@click.option("--as-of", help="Serving time, for replays: seconds, milliseconds or ISO 8601. Default: now.")
@click.option("--exclude", multiple=True, metavar="ITEM", help="Not this item; may be given again.")
@click.option("--restrict", multiple=True, metavar="ITEM", help="Only this item; may be given again.")
@click.option("--explain", is_flag=True, help="Show each item's features.")
@click.option(
    "--timeout", type=float, help="Longest wait for the answer, seconds [default: MILLRACE_RECOMMENDER_TIMEOUT_MS]."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    user: str,
    k: int,
    as_of: str | None,
    exclude: tuple[str, ...],
    restrict: tuple[str, ...],
    explain: bool,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Ask the running recommender what a user should see now."""
    from millrace.client import RecommenderClient
    from millrace.events.columns import time_ms

    as_of_ms = None if as_of is None else time_ms(as_of, "auto", "as_of_ms")
    with RecommenderClient(settings().client.recommender_target, timeout_s=timeout) as recommender:
        answer = recommender.recommend(user, k, as_of=as_of_ms, exclude=exclude, restrict_to=restrict, explain=explain)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(answer)))
    else:
        _print(answer)


def _print(answer: Recommendation) -> None:
    print_table(
        ("rank", "item", "score", "sources", *answer.feature_names),
        [
            (rank, item.item_id, f"{item.score:.4f}", ", ".join(item.sources), *(f"{x:.4g}" for x in item.features))
            for rank, item in enumerate(answer.items, start=1)
        ],
    )
    known = answer.known
    model = f"{answer.model_name} version {answer.model_version}" if answer.model_version else "no model"
    notes = [
        f"request {answer.request_id}, served for {when(answer.served_at_ms)} in {answer.serve_micros / 1000:.1f} ms",
        f"ranked by {model}",
        f"knows the user up to {known.topic}[{known.partition}]@{known.offset}"
        if known
        else "knows nothing of the user",
    ]
    if answer.fallback not in ("", "none"):
        notes.append(f"fallback: {answer.fallback}")
    if answer.status != "ok":
        notes.append(f"status: {answer.status}")
    click.echo("; ".join(notes), err=True)
