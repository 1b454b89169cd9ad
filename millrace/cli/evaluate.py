"""``millrace evaluate``: how good recommendations are on recorded events."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from millrace.cli._bar import events_bar
from millrace.cli._evaluate_options import Data, Passes, taken
from millrace.cli._evaluate_view import as_row, print_figures, print_learners
from millrace.errors import MillraceError

if TYPE_CHECKING:
    from millrace.evaluation.figures import Figures
    from millrace.evaluation.stream import EventStream
    from millrace.settings import Settings


@click.command()
@Data.add
@Passes.add
@click.option("--ablation", type=click.Choice(["learner"]), help="learner: ways to learn, on the same candidates.")
@click.option("--plots", type=click.Path(path_type=Path, file_okay=False), help="Draw the figures into this folder.")
@click.option("--restart", is_flag=True, help="Begin anew instead of going on where the last run was interrupted.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(ablation: str | None, plots: Path | None, restart: bool, as_json: bool, **given: Any) -> None:
    """Go through recorded events in order: ask before each what comes next, then learn it.

    With the functions that serve and learn in production, on features in memory: no servers are needed. All items
    are ranked unless --negatives says otherwise, ties count against us, and nothing is known of an event before it has
    been asked for. A run that was interrupted goes on when the same command is given again.
    """
    data, passes = taken(Data, given), taken(Passes, given)
    lags = passes.each
    others = passes.negatives or passes.without or plots
    if ablation and (passes.protocol != "next-in-session" or lags != ["0"] or others):
        raise click.UsageError(
            "--ablation goes with --protocol next-in-session and --lag 0; no --negatives, no --without, no --plots"
        )
    if passes.negatives and passes.protocol == "serenade":
        raise click.UsageError("--negatives: protocol serenade judges the whole answer, which needs all items")
    if plots:
        from millrace.evaluation.plots import check

        check()
    from millrace.settings import settings

    stream = data.read(passes.protocol)
    if ablation:
        _ablation(stream, passes, as_json)
        return
    found = [(lag, figures_of(stream, passes, lag, settings(), restart)) for lag in lags]
    if as_json:
        click.echo(json.dumps({"rows": [as_row(lag, passes, one) for lag, one in found]}))
    else:
        print_figures(stream.name, passes, found)
    if plots:
        from millrace.evaluation.plots import draw

        for path in draw(plots, passes.of(stream.name), passes.k, found):
            click.echo(f"drawn: {path}", err=True)


def figures_of(stream: EventStream, passes: Passes, lag: str, settings: Settings, restart: bool = False) -> Figures:
    """The figures of one pass, with a bar; it goes on where an earlier one was interrupted. Raises MillraceError."""
    from millrace.evaluation.ablation import Ablation
    from millrace.evaluation.checkpoint import CheckpointFile
    from millrace.evaluation.figures import measure
    from millrace.evaluation.lag import parse_lag
    from millrace.evaluation.prequential import Prequential
    from millrace.evaluation.protocols import protocol

    rules = protocol(passes.protocol, stream, passes.warm_up)
    ablation = Ablation(passes.without)
    how = (passes.every, passes.seed, passes.negatives)
    run = Prequential(stream, rules, settings, passes.k, parse_lag(lag), *how, ablation)
    what = (passes.k, passes.warm_up, *how, passes.without)
    file = CheckpointFile(settings, stream.checksum, passes.protocol, lag, *what)
    if restart:
        file.drop()
    with events_bar(f"{passes.of(stream.name)}, lag {lag}", len(stream.events)) as step:
        figures = measure(run, rules.by_period, passes.k, step, file)
    if figures is None:
        raise MillraceError(
            f"{stream.name}: protocol {passes.protocol} asked before none of its {len(stream.events)} events "
            f"(warm-up {passes.warm_up}); next-in-session needs sessions of two events and more, in --map or by their "
            "times"
        )
    return figures


def _ablation(stream: EventStream, passes: Passes, as_json: bool) -> None:
    from millrace.evaluation.learner_ablation import run
    from millrace.settings import settings

    warm_up = max(passes.warm_up, stream.tested_from)
    with events_bar(stream.name, len(stream.events)) as step:
        rows = run(stream.events, settings(), passes.every, warm_up, passes.seed, step)
    if as_json:
        click.echo(json.dumps({"rows": [asdict(row) for row in rows]}))
    else:
        print_learners(rows)
