"""``make evaluate``: measure the rows that are not measured by this code yet, and write the document."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks.quality import document, results
from benchmarks.quality.measuring import measure, moved
from benchmarks.quality.runs import all_runs, chosen
from millrace.errors import MillraceError
from millrace.evaluation.checkpoint import code_digest
from millrace.settings import Settings

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.option(
    "--only", multiple=True, help="Only rows whose name begins so or matches (globo, *.tuned); again for more."
)
@click.option("--again", is_flag=True, help="Also rows that this code has measured already.")
@click.option("--list", "listed", is_flag=True, help="Say which rows there are and whether they are measured.")
@click.option("--document-only", is_flag=True, help="Measure nothing; write the document from the results.")
@click.option("--results", "file", type=FILE, default=results.QUALITY, help="The results, kept after each row.")
@click.option("--document", "page", type=FILE, default=document.DOCUMENT, help="The document.")
def main(only: tuple[str, ...], again: bool, listed: bool, document_only: bool, file: Path, page: Path) -> None:
    """Measure how good recommendations are on the known data sets, and write docs/quality.md.

    A row that is measured replaces the one of its name; others stay. Interrupted, it goes on where it was.
    """
    settings, found, code = Settings(), results.read(file), code_digest()
    runs = chosen(all_runs(), only)
    if not runs:
        raise click.UsageError(f"--only {' '.join(only)}: no such row; --list says which there are")
    done = {run.name for run in runs if found.measured(run, code, moved(settings))}
    if listed:
        for run in runs:
            click.echo(f"{run.name}\t{'measured' if run.name in done else ''}\t{run.command}")
        return
    failed = []
    for run in () if document_only else runs:
        if run.name in done and not again:
            click.echo(f"{run.name}: measured by this code already (--again measures it anew)", err=True)
            continue
        try:
            measured = measure(run, settings, lambda text: click.echo(text, err=True))
        except MillraceError as error:
            click.secho(f"{run.name}: {error}", fg="red", err=True)
            failed.append(run.name)
            continue
        results.add(measured, file)
    document.write(results.read(file), page)
    if failed:
        raise SystemExit(f"not measured: {', '.join(failed)}")


if __name__ == "__main__":
    main()
