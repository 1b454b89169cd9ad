"""``millrace retrain``: have a version trained, and see how that stands."""

from __future__ import annotations

import getpass
import json
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from millrace.cli._output import quiet_logs, when
from millrace.errors import MillraceError
from millrace.settings import settings

if TYPE_CHECKING:
    from millrace.registry.ledger import Ledger
    from millrace.registry.retraining import Retraining

# Reading a topic takes a few tenths of a second; longer means that the broker is away.
READ_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 30.0

_model = click.option("--model", help="Registered model [default: the one of the settings].")
_reason = click.option("--reason", default="", help="Why, for people and the audit.")
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_timeout = click.option("--timeout", type=click.FloatRange(min=0.1), help="Longest wait, seconds [default: 30].")


@click.group(invoke_without_command=True)
@_model
@_reason
@click.option("--wait", is_flag=True, help="Until it is known whether the version gets traffic; six hours by default.")
@_timeout
@_json
@click.pass_context
def command(
    context: click.Context, model: str | None, reason: str, wait: bool, timeout: float | None, as_json: bool
) -> None:
    """Have a new version trained now; `status` says how that stands, `cancel` ends it.

    It is trained by the orchestrator's machine, has to pass the gates, and gets an experiment by itself.
    """
    quiet_logs()
    if context.invoked_subcommand is not None:
        return
    from millrace.registry import asking
    from millrace.registry.retraining_as_json import started_as_dict

    values = settings()
    name = model or values.orchestrator.model_name
    request = asking.retrain(name, getpass.getuser(), reason)
    event = asking.ask(values.kafka, values.stream, name, request, timeout or ANSWER_TIMEOUT_S)
    if not wait:
        answer: Mapping[str, object] = {"command_id": request.command_id, **started_as_dict(event)}
        said = f"a version of model {name!r} is trained; `millrace retrain status` says how that stands"
        click.echo(json.dumps(answer, indent=2) if as_json else said)
        return
    seconds = timeout or values.retrain.training_max_ms / 1_000
    found = _verdict(name, event.retraining_id, seconds, _quiet if as_json else click.echo)
    _show_one(found, as_json)
    if not found.is_open and found.state != "promoted":
        context.exit(1)


@command.command()
@_model
@_json
def status(model: str | None, as_json: bool) -> None:
    """Say how retraining stands, what started it or keeps it from starting, and which drift holds."""
    from millrace.experiments.asking import read_experiments
    from millrace.registry.drift_signals import read_signals
    from millrace.registry.retraining_as_json import status_as_dict

    values = settings()
    name = model or values.orchestrator.model_name
    signals = read_signals(values.kafka, values.stream, name, READ_TIMEOUT_S)
    experiments = read_experiments(values.kafka, values.stream, READ_TIMEOUT_S).values()
    now_ms = time.time_ns() // 1_000_000
    content = status_as_dict(_ledger(name), signals, experiments, values.retrain, now_ms)
    if as_json:
        click.echo(json.dumps(content, indent=2))
    else:
        _show_status(content)


@command.command()
@_model
@_reason
@_timeout
@_json
def cancel(model: str | None, reason: str, timeout: float | None, as_json: bool) -> None:
    """End the retraining that is under way: its job, or its experiment."""
    from millrace.registry import asking
    from millrace.registry.retraining_as_json import started_as_dict

    values = settings()
    name = model or values.orchestrator.model_name
    request = asking.cancel_retrain(name, getpass.getuser(), reason)
    event = asking.ask(values.kafka, values.stream, name, request, timeout or ANSWER_TIMEOUT_S)
    answer = {"command_id": request.command_id, **started_as_dict(event)}
    click.echo(json.dumps(answer, indent=2) if as_json else f"the retraining of model {name!r} is {event.reason}")


def _verdict(name: str, retraining_id: str, timeout_s: float, say: Callable[[str], object]) -> Retraining:
    """The retraining once its version gets traffic or never will; each state on the way is said."""
    from millrace.registry.journal import read_into, read_ledger
    from millrace.registry.retraining import State
    from millrace.registry.triggers import phrase
    from millrace.stream.reader import TopicReader
    from millrace.topics import MODEL_EVENTS

    values, give_up, said = settings(), time.monotonic() + timeout_s, ""
    with TopicReader(values.kafka, [MODEL_EVENTS], "beginning", values.stream) as reader:
        ledger = read_ledger(name, reader, READ_TIMEOUT_S)
        while (found := ledger.retrainings.newest) is not None and found.retraining_id == retraining_id:
            if found.state == State.CHALLENGER or not found.is_open:
                return found
            if found.state != said:
                said = found.state
                say(phrase(found))
            if time.monotonic() > give_up:
                raise MillraceError(f"no verdict within {timeout_s:g} s; it goes on: `millrace retrain status`")
            read_into(ledger, reader, timeout_s=0.5)
    raise MillraceError(f"another retraining of model {name!r} has begun meanwhile; `millrace retrain status`")


def _ledger(name: str) -> Ledger:
    from millrace.registry.journal import read_ledger
    from millrace.stream.reader import TopicReader
    from millrace.topics import MODEL_EVENTS

    values = settings()
    with TopicReader(values.kafka, [MODEL_EVENTS], "beginning", values.stream) as reader:
        return read_ledger(name, reader, READ_TIMEOUT_S)


def _show_one(found: Retraining, as_json: bool) -> None:
    from millrace.registry.retraining_as_json import retraining_as_dict

    if as_json:
        click.echo(json.dumps(retraining_as_dict(found), indent=2))
    else:
        version = f"version {found.version} is " if found.version else ""
        click.echo(f"{version}{found.state}: {found.note}")


def _show_status(content: Mapping[str, Any]) -> None:
    click.echo(f"model {content['model']!r}: {content['state']}, version {content['champion'] or 'none'} serves")
    newest = content["newest"]
    if newest is None:
        click.echo("no version was trained by the orchestrator yet")
    else:
        version = f", version {newest['version']}" if newest["version"] else ""
        click.echo(f"newest retraining, since {when(newest['started_at_ms'])}: {newest['reason'] or 'no reason given'}")
        if newest["since_ms"]:
            click.echo(
                f"  for a world that changed at {when(newest['since_ms'])}: learns and is judged by what came since"
            )
        click.echo(f"  {newest['state']}{version} since {when(newest['changed_at_ms'])}: {newest['note'] or '-'}")
    for wait in content["waits"]:
        click.echo(f"waits: {wait}")
    for signal in content["holding"]:
        click.echo(f"drift holds since {when(signal['first_at_ms'])}: {signal['about']}")
    for event in content["declined"]:
        click.echo(f"started nothing, {when(event['at_ms'])}: {event['reason']}")


def _quiet(_said: str) -> None:
    """With --json there is one answer."""
