"""``millrace config``: every setting, its value and where that came from."""

from __future__ import annotations

import json

import click

from millrace.cli._output import print_table


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """Show every setting with its variable, its value and where that came from. Secrets are masked."""
    from dataclasses import asdict

    from millrace.cli._settings import knobs

    shown = knobs()
    if as_json:
        click.echo(json.dumps([asdict(knob) for knob in shown]))
    else:
        print_table(
            ("variable", "value", "from", "meaning"),
            [(knob.variable, knob.value, knob.source, knob.description) for knob in shown],
        )
