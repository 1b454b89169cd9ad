"""``python -m services.recommender``"""

from __future__ import annotations

import sys

import click

from millrace.errors import MillraceError
from millrace.settings import settings
from millrace.stream import logs


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Answer gRPC requests for recommendations until SIGTERM. Settings: MILLRACE_RECOMMENDER_* (`millrace config`)."""
    logs.configure(settings().observability, "recommender")
    try:
        if settings().recommender.processes > 1:
            from services.recommender.group import serve_in_processes

            sys.exit(serve_in_processes(settings()))
        from services.recommender.server import serve

        serve(settings())
    except MillraceError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main(prog_name="python -m services.recommender")
