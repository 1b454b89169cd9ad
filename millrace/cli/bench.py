"""``millrace bench``: measure this machine."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import click

from millrace.cli._embedded import progress
from millrace.cli._output import quiet_logs
from millrace.errors import MillraceError

_NAMES = (
    *("freshness", "workers", "learning", "experiments", "rollback", "promotion", "recommend", "gateway"),
    *("console", "simulation", "freshness-value", "processor-time"),
)
_WITHOUT_SERVERS = ("freshness-value", "processor-time")


@click.command()
@click.argument("name", type=click.Choice(_NAMES))
@click.option("--bootstrap-servers", default="", help="Use this Kafka, and --redis-url; else both are started for it.")
@click.option("--redis-url", default="", help="Use this Redis. Its data and topics get made-up items and users.")
@click.option("--running", is_flag=True, help="freshness only: through the pipeline that runs, as the settings say.")
@click.option("--world", "worlds", multiple=True, help="freshness-value only: news or shop; all if none is named.")
@click.option("--seed", type=int, help="freshness-value only: of the made-up worlds; another seed is another world.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    name: str,
    bootstrap_servers: str,
    redis_url: str,
    running: bool,
    worlds: tuple[str, ...],
    seed: int | None,
    as_json: bool,
) -> None:
    """Measure freshness, workers, learning, experiments and so on, with the machine's own limit beside each figure.

    simulation measures whether learning pays: click-through with and without it, in a made-up shop of a fixed seed.
    freshness-value simulates a month for each rhythm of learning, without servers: live, hourly, nightly, weekly; in a
    world with the clock of news and in a shop. It also writes docs/freshness-in-simulation.md. Both take about ten
    minutes, the others up to one. console opens pages in a Chromium (`make browser` installs it). processor-time starts
    all of `millrace run` in a folder of its own for three minutes, to see what each worker takes of all workers'
    processor time. Rows are added to benchmarks/results/latest.json.
    """
    if importlib.util.find_spec("benchmarks") is None:
        raise MillraceError(
            "benchmarks are part of the checkout, not of the installed package: "
            "run `pip install -e '.[all]'` in a checkout of Millrace"
        )
    if running and name != "freshness":
        raise click.UsageError(f"--running measures freshness; {name} needs servers without other work")
    if name in _WITHOUT_SERVERS and (bootstrap_servers or redis_url):
        raise click.UsageError(f"{name} needs no servers: leave out --bootstrap-servers and --redis-url")
    if name != "freshness-value" and (worlds or seed is not None):
        raise click.UsageError(f"--world and --seed are freshness-value's; {name} has neither")
    from benchmarks import report

    quiet_logs()
    options: dict[str, Any] = {}
    if worlds:
        options["worlds"] = _known(worlds)
    if seed is not None:
        options["seed"] = seed
    if name not in _WITHOUT_SERVERS:
        options = {"bootstrap_servers": bootstrap_servers, "redis_url": redis_url}
    if running:
        options["running"] = True
    with progress() as say:
        rows = importlib.import_module(f"benchmarks.{name.replace('-', '_')}").run(say, **options)
    report.append(rows)
    if as_json:
        click.echo(report.as_json(rows))
    else:
        report.print_table(rows)


def _known(worlds: tuple[str, ...]) -> tuple[str, ...]:
    from millrace.simulation.worlds import WORLDS

    for world in worlds:
        if world not in WORLDS:
            raise click.UsageError(f"--world {world}: expected {' or '.join(WORLDS)}")
    return worlds
