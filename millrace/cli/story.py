"""``millrace story``: what became of one answer, from what was shown to the parameters that it moved."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator

import click

from millrace.cli._output import quiet_logs
from millrace.settings import settings


@click.command()
@click.argument("request_id")
@click.option("--user", help="Whose answer it is; finds an older one sooner.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(request_id: str, user: str | None, as_json: bool) -> None:
    """Tell the story of one answer: what was shown, what the user did, what came of it, what was learned.

    REQUEST_ID is what `millrace recommend` prints, and what interactions name.
    """
    from millrace.events.build import now_ms
    from millrace.events.rules import check_id

    check_id("request_id", request_id)
    if user is not None:
        check_id("user_id", user)
    quiet_logs()
    from millrace.cli._story_view import print_story
    from millrace.story.plain import as_plain
    from millrace.story.search import StorySearch

    values = settings()
    with _progress() as progress:
        story = StorySearch(values, progress).find(request_id, user, now_ms())
    plain = as_plain(story, values.joiner.attribution_window_ms, now_ms())
    if as_json:
        click.echo(json.dumps(plain))
    else:
        print_story(plain)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """How far the reading is, on a terminal; elsewhere nothing."""
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = TextColumn("reading {task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda topic, read, total: bar.update(task, description=topic, completed=read, total=total)
