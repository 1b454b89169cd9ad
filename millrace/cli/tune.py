"""``millrace tune``: settings for recorded events, found on their past alone."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from millrace.cli._bar import events_bar
from millrace.cli._evaluate_options import Data, Passes, taken

if TYPE_CHECKING:
    from collections.abc import Callable

    from millrace.evaluation.search import Found, Gain
    from millrace.evaluation.stream import EventStream
    from millrace.settings import Settings


@click.command()
@Data.add
@Passes.add
@click.option(
    "--budget",
    default=32,
    show_default=True,
    type=click.IntRange(2, 1_000),
    help="Most passes over the past, besides two that confirm.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(budget: int, as_json: bool, **given: Any) -> None:
    """Search for better settings, and print them as lines for .env.

    Takes the arguments of `millrace evaluate` and looks at those events only that it would not count: the training
    file, the first period, the warm-up; or the first fifth, where it would count all. The last quarter of them chooses
    nothing and tells how good the choice is. Interrupted, it goes on when the same command is given again.

    \b
    millrace tune --events clicks.csv --map ... --warm-up 60000 --every 5 >> .env
    millrace evaluate --events clicks.csv --map ... --warm-up 60000
    """
    from millrace.settings import settings

    data, passes = taken(Data, given), taken(Passes, given)
    if len(passes.each) > 1 or passes.negatives or passes.without:
        raise click.UsageError("tune takes one --lag, no --negatives and no --without")
    stream = data.read(passes.protocol)
    found = searched(stream, passes, budget, settings(), lambda what: click.echo(what, err=True))
    click.echo(json.dumps(asdict(found)) if as_json else env_lines(found, stream, passes))


def searched(
    stream: EventStream, passes: Passes, budget: int, settings: Settings, say: Callable[[str], object]
) -> Found:
    """The search, with a bar for each pass. Raises MillraceError."""
    from millrace.evaluation.lag import parse_lag
    from millrace.evaluation.search import search

    (lag,) = passes.each
    with ExitStack() as stack:

        def begin(what: str, events: int) -> Callable[[], None]:
            stack.close()
            say(what)
            return stack.enter_context(events_bar(stream.name, events))

        return search(
            stream,
            passes.protocol,
            settings,
            passes.k,
            parse_lag(lag),
            passes.every,
            passes.seed,
            budget,
            passes.warm_up,
            begin=begin,
        )


def env_lines(found: Found, stream: EventStream, passes: Passes) -> str:
    """The choice as lines for ``.env``, with where it comes from and how good it is."""
    from millrace.evaluation.search_space import SPACE

    asked = f"{passes.protocol}, lag {passes.lags}, every {passes.every}, seed {passes.seed}"
    costs = {axis.variable: axis.costs for axis in SPACE}
    lines = [
        f"# Chosen by `millrace tune` from the first {found.past:,} of {len(stream.events):,} events of {stream.name}",
        f"# (checksum {stream.checksum}; {asked}) in {found.passes} passes.",
        f"# Events that chose it: {_words(found.searched, passes.k)}",
        f"# Later ones that did not: {_words(found.confirmed, passes.k)}",
    ]
    # What did not hold is shown and not in force: the lines go into .env as they are.
    off = ""
    if not found.choice:
        lines.append("# Nothing that was tried is better than the settings in force.")
    elif not found.holds:
        lines.append("# Not better on events that did not choose it: stay with the settings in force.")
        off = "# "
    for variable, value in found.choice.items():
        if costs[variable]:
            lines.append(f"# costs {costs[variable]}:")
        lines.append(f"{off}{variable}={value:.15g}")
    return "\n".join(lines)


def _words(gain: Gain, k: int) -> str:
    changes = ", ".join(f"{name.upper()}@{k} {gain.before[name]:.4f} -> {gain.after[name]:.4f}" for name in gain.before)
    return "{}; HR + MRR {:+.4f} [{:+.4f}, {:+.4f}], n = {:,}".format(changes, *gain.gain, gain.n)
