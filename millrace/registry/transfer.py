"""Moves versions and checkpoints between MLflow and folders: run as a process of its own, see ``mlflow_process``.

``python -m millrace.registry.transfer fetch-version --model ranker --version 3 --into DIR``
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from millrace.errors import MillraceError
from millrace.ranking.model import RankingModel
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


if __name__ == "__main__":
    try:
        main()
    except MillraceError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
