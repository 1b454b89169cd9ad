"""Copies a version from MLflow into a folder: a process of its own, because ``import mlflow`` takes seconds.

``python -m millrace.registry.fetch --model ranker --version 3 --into DIR``
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from millrace.errors import MillraceError
from millrace.ranking.model import RankingModel
from millrace.registry.registry import Registry
from millrace.settings import settings


@click.command()
@click.option("--model", required=True, help="Name of the registered model.")
@click.option("--version", required=True, help="Version in the registry.")
@click.option(
    "--into", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to put its files into."
)
def main(model: str, version: str, into: Path) -> None:
    """Copy the portable files of a model version from MLflow into a folder and check that they load."""
    try:
        into.mkdir(parents=True, exist_ok=True)
        Registry(settings().mlflow).download(model, version, into)
        RankingModel.load(into)
    except MillraceError as error:
        click.echo(str(error), err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
