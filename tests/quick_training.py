"""A training job that learns nothing, and an orchestrator that starts it (``python -m tests.quick_training``)."""

from __future__ import annotations

import os
import signal
import sys

import click

from millrace.ranking.first import first_ranker
from millrace.registry.gates import GATES_TAG, PASSED
from millrace.registry.registry import ARTIFACT_PATH, SHA256_TAG, SINCE_TAG, Registry
from millrace.registry.training_runs import TrainingRun
from millrace.settings import home, settings
from workers.retrain_orchestrator.jobs import END_WITH_STDIN, NOT_ENOUGH, end_with_stdin

WAITS, TOO_EARLY = "waits to be ended", "too early"
HAS_TO_BE_KILLED = "QUICK_TRAINING_HAS_TO_BE_KILLED"


@click.command()
@click.option("--model", required=True)
@click.option("--job", required=True)
@click.option("--reason", required=True)
@click.option("--since", default="")
@click.option(END_WITH_STDIN, "with_stdin", is_flag=True)
def main(model: str, job: str, reason: str, since: str, with_stdin: bool) -> None:
    """Makes a version, as if it passed; where ``HAS_TO_BE_KILLED`` is set, only when it is started a second time."""
    assert with_stdin
    end_with_stdin()
    if TOO_EARLY in reason:
        click.echo('{"problem": "there is nothing yet"}')
        sys.exit(NOT_ENOUGH)
    before = home() / f"{job}.began"
    if HAS_TO_BE_KILLED in os.environ and not before.exists():
        before.touch()
        click.echo(WAITS, err=True)
        signal.pause()
    with TrainingRun(Registry(settings().mlflow), model, job, reason, {}) as run:
        folder = home() / job / ARTIFACT_PATH
        digest = first_ranker().save(folder)
        run.files(folder.parent)
        made = run.register({SHA256_TAG: digest, GATES_TAG: PASSED, SINCE_TAG: since})
    click.echo(f'{{"version": "{made.version}"}}')


def orchestrate() -> int:
    """The orchestrator, with this job."""
    from workers.retrain_orchestrator.__main__ import serve

    return serve(settings(), ("-m", "tests.quick_training"))


if __name__ == "__main__":
    main() if len(sys.argv) > 1 else sys.exit(orchestrate())
