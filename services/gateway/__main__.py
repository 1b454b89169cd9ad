"""``python -m services.gateway``"""

from __future__ import annotations

import click

from millrace.errors import MillraceError
from millrace.settings import settings
from millrace.stream import logs


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Answer REST requests until SIGTERM. Settings: MILLRACE_GATEWAY_* (`millrace config`)."""
    logs.configure(settings().observability, "gateway")
    from services.gateway.server import serve

    try:
        serve(settings())
    except MillraceError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main(prog_name="python -m services.gateway")
