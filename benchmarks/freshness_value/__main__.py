"""``python -m benchmarks.freshness_value``: the document anew, from what was measured."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks.freshness_value import document, results
from benchmarks.freshness_value.clock import clock, globo
from millrace.settings import Settings

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.option("--globo", "with_globo", is_flag=True, help="Look at the clicks of Globo.com first (MILLRACE_DATA).")
@click.option("--results", "file", type=FILE, default=results.RESULTS, help="The results.")
@click.option("--document", "page", type=FILE, default=document.DOCUMENT, help="The document.")
def main(with_globo: bool, file: Path, page: Path) -> None:
    """Write docs/freshness-in-simulation.md from the results of `millrace bench freshness-value`."""
    found = results.read(file)
    if with_globo:
        clicks = list(globo(Settings().client.data))
        found.globo = clock(clicks, min(at_s for *_, at_s in clicks))
        results.write(found, file)
    document.write(found, page)


if __name__ == "__main__":
    main()
