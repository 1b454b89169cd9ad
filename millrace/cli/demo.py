"""``millrace demo``: Black Friday in ten minutes."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from millrace.cli._embedded import interrupt_on_sigterm, progress, require_embedded, stop_on_signals
from millrace.errors import MillraceError

if TYPE_CHECKING:
    from deploy.demo.stage import Stage
    from deploy.demo.story import Seen
    from millrace.flag import Flag

LOOK_EVERY_S = 1.0
READY_TIMEOUT_S = 180.0


@click.command()
@click.option("--minutes", default=10.0, show_default=True, type=click.FloatRange(min=0.2), help="Length of the story.")
@click.option(
    "--speed",
    default=6.0,
    show_default=True,
    type=click.FloatRange(min=0.1),
    help="How many times as many shoppers as in `millrace run`. A machine that does not keep up needs fewer.",
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the plots go [default: .millrace/demo/ and the time].",
)
def command(minutes: float, speed: float, folder: Path | None) -> None:
    """Tell a story on the whole pipeline: tastes shift, stock changes, and what learns follows.

    Nothing is acted: drift, training, gates and promotion are those of the pipeline, with hours made minutes by its
    settings. At the end there are plots: click-through over the story, and live learning against nightly retraining in
    a simulated month that is computed beside it. Everything is stopped then, and by Ctrl-C; data are not kept.
    """
    require_embedded()
    from deploy.demo.stage import environment, stage
    from millrace.cli._output import quiet_logs
    from millrace.settings import home, settings

    quiet_logs()
    interrupt_on_sigterm()
    target = folder or home() / "demo" / f"{datetime.now(UTC):%Y-%m-%d-%H-%M-%S}"
    target.mkdir(parents=True, exist_ok=True)
    with ExitStack() as until_exit:
        # A folder of its own: what a developer's pipeline has learned stays as it is.
        os.environ["MILLRACE_HOME"] = until_exit.enter_context(tempfile.TemporaryDirectory(prefix="millrace-demo-"))
        for name, value in environment(minutes * 60).items():
            os.environ.setdefault(name, value)
        with progress() as say:
            playing = until_exit.enter_context(stage(settings(), speed, target, say))
        stopped = _play(playing, minutes * 60, target)
        click.echo("stopping", err=True)
    click.echo(f"plots: {target}")
    if stopped:
        sys.exit(130)


def _play(playing: Stage, seconds: float, folder: Path) -> bool:
    """Tell the story until it is over or a signal comes (True); draw what was seen."""
    from rich.console import Console
    from rich.text import Text

    from deploy.demo.story import Story

    console, story, stop = Console(highlight=False), Story(), stop_on_signals()
    samples: list[tuple[float, float]] = []
    marks: list[tuple[float, str]] = []
    _wait_ready(playing, stop)
    began = time.monotonic()
    while not stop.is_set():
        passed = time.monotonic() - began
        seen = playing.look(min(1.0, passed / seconds))
        if seen.click_through is not None:
            samples.append((passed / 60, seen.click_through))
        for line in story.lines(seen):
            console.print(Text.assemble((f"{_clock(passed)}  {_figure(seen)}  ", "dim"), line.text), soft_wrap=True)
            if line.mark:
                marks.append((passed / 60, line.mark))
            playing.do(line)
        if passed >= seconds:
            break
        stop.wait(max(0.0, LOOK_EVERY_S - (time.monotonic() - began - passed)))
    if samples:
        for text in story.ending(seen):
            console.print(Text(text, style="bold"), soft_wrap=True)
        _draw(samples, marks, folder)
    return stop.is_set()


def _wait_ready(playing: Stage, stop: Flag) -> None:
    give_up = time.monotonic() + READY_TIMEOUT_S
    while not playing.ready and not stop.is_set():
        playing.look(0.0)
        if time.monotonic() > give_up:
            raise MillraceError(f"the pipeline was not ready within {READY_TIMEOUT_S:g} s; `millrace doctor`")
        stop.wait(LOOK_EVERY_S)


def _draw(samples: list[tuple[float, float]], marks: list[tuple[float, str]], folder: Path) -> None:
    from deploy.demo import comparison, plots

    plots.draw_story(samples, marks, folder / plots.CLICK_THROUGH)
    month = comparison.read(folder / "month.json")
    if month is None:
        click.echo("the simulated month was not over: no plot of live against nightly", err=True)
    else:
        plots.draw_comparison(month, folder / plots.NIGHTLY)


def _clock(passed: float) -> str:
    return f"{int(passed // 60):02}:{int(passed % 60):02}"


def _figure(seen: Seen) -> str:
    return "   -  " if seen.click_through is None else f"{seen.click_through:6.1%}"
