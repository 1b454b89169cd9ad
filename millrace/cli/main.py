"""Entry point of ``millrace``: finds the command, imports only its module, turns errors into messages."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

import click
from click.shell_completion import CompletionItem

from millrace import __version__
from millrace.errors import MillraceError

# Command -> its help line; the module millrace.cli.<command> holds it as the object `command`. The help lines
# stand here, so that `millrace --help` imports none of the modules.
COMMANDS: Mapping[str, str] = {
    "run": "The whole pipeline with simulated shoppers, until Ctrl-C.",
    "demo": "Black Friday in ten minutes, told as it happens, on the whole pipeline.",
    "stack": "Kafka, Redis and MLflow on this machine: up, down, status.",
    "doctor": "Check everything that Millrace needs and say what to do.",
    "topics": "Make or list the topics.",
    "tail": "Show the records of a topic, and those that come.",
    "lag": "How far behind each worker is, partition by partition.",
    "dlq": "Dead letters: look at them, replay or drop them.",
    "produce": "Publish events given as JSON lines on standard input.",
    "simulate": "A made-up shop with people in it, on the real recommender.",
    "replay": "Publish a file or a known data set as events.",
    "evaluate": "How good recommendations are on recorded events.",
    "tune": "Search for better settings on the past of recorded events.",
    "recommend": "Ask what a user should see now.",
    "story": "Tell what became of one answer: clicks, outcomes, parameters.",
    "users": "Show a user's features, or forget the user.",
    "items": "Show an item's features.",
    "models": "List, show, compare, promote or roll back model versions.",
    "retrain": "Have a new version trained now, and see how that stands.",
    "drift": "Show whether what the champion meets is still what it was made for.",
    "experiments": "Compare arms on real traffic: create, evaluate, start, stop, show, audit, plan.",
    "config": "Show every setting, its value and where it came from.",
    "completion": "Print the script with which a shell completes commands.",
    "bench": "Measure this machine: freshness, workers, learning, experiments, rollbacks, recommend.",
}

STATUSES: Mapping[str, str] = {
    "0": "It was done; also when the reader of a pipe (head, less) went away.",
    "1": "It was not done, or what was asked for is not there; standard error says why.",
    "2": "The command line is wrong.",
    "130": "Ctrl-C ended it.",
}


class LazyGroup(click.Group):
    """A group that imports a command's module when that command is called (click's documented pattern)."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"millrace.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Exit status"):
            formatter.write_dl(list(STATUSES.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands from the table: click's own way would import all of them for their help lines."""
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return [CompletionItem(name, help=help) for name, help in COMMANDS.items() if name.startswith(incomplete)]

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(128 + signal.SIGINT)
        except BrokenPipeError:
            # The reader of a pipe (head, less) went away: not an error, and nothing may be written any more.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="millrace")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Real-time recommendations from a stream of clicks.

    Colours go to terminals only, and to none where NO_COLOR is set.
    """
    if os.environ.get("NO_COLOR"):
        ctx.color = False


def main() -> None:
    """Run the command line; exit status 1 with a message on any error that the user can act on."""
    try:
        cli(prog_name="millrace")
    except MillraceError as error:
        click.secho(f"error: {error}", fg="red", err=True)
        sys.exit(1)
