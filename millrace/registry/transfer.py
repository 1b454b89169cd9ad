"""Moves versions and checkpoints between MLflow and folders: run as a process of its own, see ``mlflow_process``.

``python -m millrace.registry.transfer fetch-version --model ranker --version 3 --into DIR``
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import click

from millrace.errors import MillraceError
from millrace.ranking.model import RankingModel
from millrace.registry.checkpoint_runs import CheckpointRuns
from millrace.registry.registry import Registry
from millrace.settings import settings

_into = click.option(
    "--into", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to put its files into."
)
_model = click.option("--model", required=True, help="Name of the registered model.")


@click.group()
def main() -> None:
    """Move versions and checkpoints of a model between MLflow and folders."""


@main.command()
@_model
@click.option("--version", required=True, help="Version in the registry.")
@_into
def fetch_version(model: str, version: str, into: Path) -> None:
    """Copy the portable files of a model version from MLflow into a folder and check that they load."""
    into.mkdir(parents=True, exist_ok=True)
    Registry(settings().mlflow).download(model, version, into)
    RankingModel.load(into)


@main.command()
@_model
@click.option("--run", "run_id", required=True, help="Id of the checkpoint's run.")
@_into
def fetch_checkpoint(model: str, run_id: str, into: Path) -> None:
    """Copy the state of a checkpoint from MLflow into a folder."""
    into.mkdir(parents=True, exist_ok=True)
    CheckpointRuns(Registry(settings().mlflow), model).fetch(run_id, into)


@main.command()
@_model
@click.option("--file", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The learner's state.")
@click.option("--figure", "figures", type=(str, float), multiple=True, help="Name and value of a metric of its run.")
@click.option("--keep", multiple=True, help="Checkpoint to keep; earlier ones that are not named are deleted.")
def store_checkpoint(model: str, file: Path, figures: tuple[tuple[str, float], ...], keep: tuple[str, ...]) -> None:
    """Store a checkpoint in MLflow, and print where it is as JSON."""
    os.nice(10)  # nobody waits for it
    runs = CheckpointRuns(Registry(settings().mlflow), model)
    stored = runs.store(file, dict(figures))
    runs.prune(stored, keep)
    click.echo(json.dumps(asdict(stored)))


if __name__ == "__main__":
    try:
        main()
    except MillraceError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
