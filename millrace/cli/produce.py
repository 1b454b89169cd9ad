"""``millrace produce``: publish events given as JSON lines."""

from __future__ import annotations

import json
import sys

import click

from millrace.cli._output import quiet_logs
from millrace.errors import InvalidField
from millrace.settings import settings

PROBLEMS_LISTED = 1_000
"""In the JSON outcome; further bad lines are reported on standard error and counted."""


@click.command()
@click.option("--items", is_flag=True, help="The lines are catalogue entries, not interactions.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def command(items: bool, as_json: bool) -> None:
    """Publish events given as JSON lines on standard input; exit status 1 if any line is bad.

    A line needs user_id and item_id; type (default: click), occurred_at (seconds, milliseconds or ISO 8601;
    default: now), event_id (default: a new one), value, session_id, request_id, custom_type and context are
    optional. Protobuf's JSON form is understood too. Good lines are published whatever the others hold.

    \b
    Example: echo '{"user_id": "ann", "item_id": "shoe-7"}' | millrace produce
    """
    from millrace.client import EventProducer
    from millrace.events.jsonl import parse_interaction, parse_item

    quiet_logs()
    sent = bad = 0
    problems = []
    with EventProducer(settings().kafka) as events:
        for number, line in enumerate(sys.stdin.buffer, start=1):
            if not line.strip():
                continue
            try:
                events.send(parse_item(line) if items else parse_interaction(line))
                sent += 1
            except InvalidField as error:
                bad += 1
                click.echo(f"line {number}: {error}", err=True)
                if bad <= PROBLEMS_LISTED:
                    problems.append(
                        {"line": number, "field": error.field, "problem": error.problem, "allowed": error.allowed}
                    )
    if as_json:
        click.echo(json.dumps({"acknowledged": sent, "bad": bad, "problems": problems}))
    else:
        click.echo(f"{sent} events acknowledged, {bad} bad lines")
    if bad:
        sys.exit(1)
