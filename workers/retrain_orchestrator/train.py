"""``python -m workers.retrain_orchestrator.train``: trains a version, as a process of its own.

====== ======================================================================================
status meaning
====== ======================================================================================
0      the version is registered; its tags say whether it passed the gates
1      Kafka, MLflow or the disk failed, or something that only a person can mend
2      the command line is wrong
3      there is too little to learn from
4      what there is breaks rules, or has other features
5      it was told to end (SIGTERM, Ctrl-C); there is no version
====== ======================================================================================
"""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path
from typing import NoReturn

import click
import structlog

from millrace.errors import MillraceError
from millrace.registry.gates import FAILED, GATES_TAG, PASSED, figures
from millrace.registry.training_runs import Cancelled
from millrace.settings import settings
from millrace.stream import logs
from millrace.stream.window import Window
from millrace.training.intake import NotEnough, UnusableData
from workers.retrain_orchestrator.jobs import CANCELLED, END_WITH_STDIN, FAILURE, NOT_ENOUGH, UNUSABLE, end_with_stdin
from workers.retrain_orchestrator.signals import Cancellation
from workers.retrain_orchestrator.training import SINCE, Asked, train

log = structlog.stdlib.get_logger(__name__)

NAME = "training"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--model", help="Registered model [default: the one of the settings].")
@click.option(
    "--job", default="", metavar="ID", help="Names the job: it makes one version, however often it is started."
)
@click.option("--reason", default="asked for", show_default=True, help="Why, for people.")
@click.option(
    "--since",
    type=click.IntRange(min=0),
    metavar="MS",
    help="The world changed then (Unix milliseconds): learn and judge by what was served since.",
)
@click.option("--seed", default=0, show_default=True, help="Of the confidence bounds.")
@click.option(
    "--input",
    "input_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Learn exactly these offsets: the file input.json of an earlier run.",
)
@click.option(END_WITH_STDIN, "with_stdin", is_flag=True, help="Be cancelled when standard input ends.")
def main(
    model: str | None, job: str, reason: str, since: int | None, seed: int, input_file: Path | None, with_stdin: bool
) -> None:
    """Train a version from scratch on the outcomes of the window, and register it with the verdict of the gates.

    Prints what came of it as JSON: the version and its gates, or the problem.
    """
    values = settings()
    logs.configure(values.observability, NAME)
    try:
        with Cancellation() as cancellation:
            if with_stdin:
                end_with_stdin()
            window, changed_ms = _read_input(input_file) if input_file else (None, 0)
            asked = Asked(
                model_name=model or values.orchestrator.model_name,
                step_id=job or str(uuid.uuid4()),
                reason=reason,
                seed=seed,
                window=window,
                since_ms=changed_ms if since is None else since,
            )
            log.info("starts", model=asked.model_name, job=asked.step_id, reason=reason)
            made = train(values, asked, cancellation)
    except Cancelled:
        log.warning("cancelled: no version was made")
        sys.exit(CANCELLED)
    except MillraceError as error:
        _fail(
            NOT_ENOUGH if isinstance(error, NotEnough) else UNUSABLE if isinstance(error, UnusableData) else FAILURE,
            str(error),
        )
    except OSError as error:
        _fail(FAILURE, f"this machine's disk: {error}")
    passed = made.tags[GATES_TAG] == PASSED
    log.info("registered", model=asked.model_name, version=made.version, gates=PASSED if passed else FAILED)
    answer = {"version": made.version, "run_id": made.run_id, "job": asked.step_id, "gates": made.tags[GATES_TAG]}
    click.echo(json.dumps(answer | {"figures": figures(made.tags)}, indent=2))


def _fail(status: int, problem: str) -> NoReturn:
    log.error("no version was made", problem=problem)
    click.echo(json.dumps({"problem": problem}))
    sys.exit(status)


def _read_input(path: Path) -> tuple[Window, int]:
    """The window, and when the world changed in it."""
    try:
        words = json.loads(path.read_text(encoding="utf-8"))
        window = Window.from_words(words)
        return window, int(words.get(SINCE, 0))
    except ValueError as error:
        raise MillraceError(f"{path}: no JSON: {error}") from error


if __name__ == "__main__":
    main(prog_name="python -m workers.retrain_orchestrator.train")
