"""A progress bar over events on a terminal; elsewhere a line from time to time. Both on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

LINE_S = 10.0
"""Where no terminal shows the bar, a line comes so often."""
_STEPS = 256
"""Events between two looks at the clock: one takes a tenth of a millisecond and more."""


@contextmanager
def events_bar(name: str, total: int | None) -> Iterator[Callable[[], None]]:
    """A function to be called after each of ``total`` events (None: nobody knows how many)."""
    if not sys.stderr.isatty():
        yield _lines(name, total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=total)
        done = 0

        def step() -> None:
            nonlocal done
            done += 1
            if done % _STEPS == 0:
                bar.update(task, completed=done)

        yield step
        bar.update(task, completed=done)


def _lines(name: str, total: int | None) -> Callable[[], None]:
    done, said_at = 0, time.monotonic()
    of = f" of {total:,}" if total else ""

    def step() -> None:
        nonlocal done, said_at
        done += 1
        if done % _STEPS == 0 and time.monotonic() - said_at >= LINE_S:
            said_at = time.monotonic()
            click.echo(f"{name}: {done:,}{of} events", err=True)

    return step
