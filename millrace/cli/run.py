"""``millrace run``: the whole pipeline with simulated shoppers."""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from millrace.cli._embedded import interrupt_on_sigterm, progress, require_embedded, stop_on_signals
from millrace.settings import settings

if TYPE_CHECKING:
    from deploy.embedded.pipeline import Pipeline
    from deploy.embedded.snapshot import Snapshot
    from deploy.embedded.watch import Watch
    from millrace.flag import Flag

INTERVAL_S = 1.0
# Where no terminal shows it, a line every five seconds.
SNAPSHOTS_A_LINE = 5


@click.command()
@click.option(
    "--rate",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    help="Pages per second that simulated shoppers look at; 0: no shoppers, events come from elsewhere.",
)
@click.option("--duration", type=click.FloatRange(min=1), help="Stop after this many seconds [default: at Ctrl-C].")
@click.option("--headless", is_flag=True, help="Show nothing while it runs, only the summary at the end.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary at the end as JSON.")
def command(rate: float, duration: float | None, headless: bool, as_json: bool) -> None:
    """Start Kafka, Redis, MLflow, every process and simulated shoppers, and show what goes on, until Ctrl-C.

    With shoppers, live learning is compared in an experiment with the first parameters and with popularity: what it
    estimates is shown beside the truth, which the shoppers know. It goes on over runs, until it is decided.

    Exit status 1 if a process is not ready when --duration is over. A stack that was up before stays up.
    """
    require_embedded()
    from deploy.embedded.pipeline import pipeline
    from deploy.embedded.trial_follower import TrialFollower
    from deploy.embedded.watch import Watch
    from millrace.cli import _run_view as view
    from millrace.cli._output import quiet_logs

    quiet_logs()
    interrupt_on_sigterm()
    with ExitStack() as until_exit:
        with progress() as say:
            running = until_exit.enter_context(pipeline(settings(), rate, say))
        addresses = {
            "Kafka": running.addresses.kafka,
            "Redis": running.addresses.redis,
            "MLflow": running.addresses.mlflow,
            "gRPC": running.recommender,
            "REST": f"http://{running.gateway}/docs",
            **({"console": f"http://{running.gateway}/"} if settings().gateway.console else {}),
        }
        trial = None
        if rate:
            follower = TrialFollower(running.kafka, settings().stream, settings().recommender.model_name)
            trial = until_exit.enter_context(follower)
        watch = until_exit.enter_context(Watch(running, settings(), trial))
        snapshots = _snapshots(watch, stop_on_signals(), duration)
        if headless or as_json:
            *_, last = snapshots
        elif sys.stdout.isatty():
            last = _show_live(snapshots, addresses)
        else:
            last = _show_lines(snapshots)
        _explain_dead(running, last)
        click.echo("stopping", err=True)
    if as_json:
        click.echo(json.dumps(view.summary(last, addresses), indent=2))
    else:
        for about in view.trial(last):
            click.echo(about)
        click.echo(view.line(last))
    if duration is not None and not last.healthy:
        sys.exit(1)


def _snapshots(watch: Watch, stop: Flag, duration: float | None) -> Iterator[Snapshot]:
    """A snapshot a second until the time is over or a signal comes; the first at once, so that there is a last one.

    After a signal one more comes in its time: the last one is of the end, and its rates are of a whole second.
    """
    began = time.monotonic()
    for number in itertools.count(1):
        yield watch.snapshot()
        next_at = began + number * INTERVAL_S
        if duration is not None and next_at > began + duration:
            return
        if stop.wait(max(0.0, next_at - time.monotonic())):
            time.sleep(max(0.0, next_at - time.monotonic()))
            yield watch.snapshot()
            return


def _show_live(snapshots: Iterator[Snapshot], addresses: Mapping[str, str]) -> Snapshot:
    from rich.live import Live

    from millrace.cli._run_view import screen

    last = next(snapshots)
    with Live(screen(last, addresses), auto_refresh=False) as live:
        for last in snapshots:
            live.update(screen(last, addresses), refresh=True)
    return last


def _show_lines(snapshots: Iterator[Snapshot]) -> Snapshot:
    """A line every few seconds, and at once when a process or the experiment changes its state."""
    from millrace.cli._run_view import line, trial

    shown: Sequence[str] = ()
    on_trial = ""
    for number, last in enumerate(snapshots):
        if last.trial is not None and last.trial.state != on_trial:
            on_trial = last.trial.state
            for about in trial(last):
                click.echo(about)
        states = [process.state for process in last.processes]
        if number % SNAPSHOTS_A_LINE == 0 or states != shown:
            click.echo(line(last))
        shown = states
    return last


def _explain_dead(running: Pipeline, last: Snapshot) -> None:
    from deploy.embedded.member import log_tail

    for process in last.processes:
        if process.state == "dead":
            log = running.log(process.name)
            click.echo(f"{process.name} {process.problem}; the end of its log {log}:\n{log_tail(log)}", err=True)
