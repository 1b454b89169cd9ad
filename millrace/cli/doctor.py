"""``millrace doctor``: check everything that Millrace needs and say what to do."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from millrace.settings import home, settings

if TYPE_CHECKING:
    from millrace.cli._checks import Check

COLOURS = {"ok": "green", "note": "yellow", "broken": "red"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """Check this machine, the servers that Millrace is pointed at, and its processes here.

    Exit status 1 if something needed is broken.
    """
    from millrace.cli._checks import machine
    from millrace.cli._output import quiet_logs
    from millrace.cli._server_checks import processes, servers

    quiet_logs()
    checks = []
    for part in (machine(settings().stack), servers(settings()), processes(home() / "run")):
        for check in part:
            checks.append(check)
            if not as_json:
                _print(check)
    broken = any(check.state == "broken" for check in checks)
    if as_json:
        click.echo(json.dumps({"ok": not broken, "checks": [asdict(check) for check in checks]}, indent=2))
    sys.exit(1 if broken else 0)


def _print(check: Check) -> None:
    """At once: a server that does not answer takes seconds."""
    state = click.style(f"{check.state:<6}", fg=COLOURS[check.state])
    click.echo(f"{state}  {check.name}: {check.finding}")
    if check.remedy:
        click.echo(f"        → {check.remedy}")
