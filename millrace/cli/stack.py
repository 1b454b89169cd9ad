"""``millrace stack``: Kafka, Redis and MLflow on this machine."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from millrace.cli._embedded import interrupt_on_sigterm, progress, require_embedded, stop_on_signals
from millrace.settings import settings

if TYPE_CHECKING:
    from deploy.embedded.stack import Addresses
    from deploy.embedded.status import MemberStatus

COLOURS = {"ready": "green", "starting": "yellow", "dead": "red"}

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def command() -> None:
    """Kafka, Redis and MLflow on this machine: real servers, without Docker and without an installed Java."""
    require_embedded()


@command.command()
@click.option("--ephemeral", is_flag=True, help="In a temporary folder on free ports, until Ctrl-C; leaves nothing.")
@_json
def up(ephemeral: bool, as_json: bool) -> None:
    """Start what does not run yet; returns when everything serves."""
    from deploy.embedded import stack

    if ephemeral:
        _up_until_interrupted(as_json)
    else:
        with progress() as say:
            addresses = stack.persistent(settings().stack).up(say)
        _print_addresses(addresses, as_json)


@command.command()
@_json
def down(as_json: bool) -> None:
    """Stop everything; the data stay."""
    from deploy.embedded import stack

    stopped = stack.persistent(settings().stack).down()
    if as_json:
        click.echo(json.dumps({"stopped": stopped}))
    else:
        click.echo("stopped" if stopped else "nothing was running")


@command.command()
@_json
def status(as_json: bool) -> None:
    """Show how each member does; exit status 1 unless all are ready."""
    from deploy.embedded import stack

    members = stack.persistent(settings().stack).status()
    healthy = bool(members) and all(member.state == "ready" for member in members)
    if as_json:
        click.echo(json.dumps({"ready": healthy, "members": [_as_json(member) for member in members]}, indent=2))
    elif members:
        for member in members:
            _print_member(member)
    else:
        click.echo("not running; start it with `millrace stack up`")
    sys.exit(0 if healthy else 1)


def _up_until_interrupted(as_json: bool) -> None:
    from deploy.embedded import stack

    interrupt_on_sigterm()
    with ExitStack() as until_exit:
        with progress() as say:
            addresses = until_exit.enter_context(stack.ephemeral(settings().stack, say=say))
        stop = stop_on_signals()
        _print_addresses(addresses, as_json)
        stop.wait()


def _print_addresses(addresses: Addresses, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(addresses.environment()))
    else:
        click.echo("ready")
        for name, value in addresses.environment().items():
            click.echo(f"{name}={value}")
    # Whoever started this with a pipe waits for these lines.
    sys.stdout.flush()


def _print_member(member: MemberStatus) -> None:
    state = click.style(f"{member.state:<8}", fg=COLOURS[member.state])
    pid = member.pid or "-"
    click.echo(f"{member.name:<7} {state} pid {pid:<8} port {member.port:<6} {member.address}")
    if member.problem:
        click.echo(f"  {member.problem}\n  the end of its log {member.log}:")
        click.echo("\n".join(f"    {line}" for line in member.log_end.splitlines()))


def _as_json(member: MemberStatus) -> dict[str, Any]:
    return asdict(member) | {"log": str(member.log)}
