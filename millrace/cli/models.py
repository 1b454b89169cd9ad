"""``millrace models``: versions of the ranker, who serves, and how to change that."""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import click

from millrace.cli._models_show import compare, show
from millrace.errors import InfrastructureError
from millrace.settings import Settings, settings

if TYPE_CHECKING:
    from millrace.registry.ledger import Ledger
    from millrace.registry.view import RegistryView
    from millrace.v1.command_pb2 import Command
    from millrace.v1.model_pb2 import ModelEvent

# Reading the topic takes a few tenths of a second; longer means that the broker is away.
READ_TIMEOUT_S = 5.0

_CHECKPOINT_COLUMNS: tuple[tuple[str, Literal["left", "right"]], ...] = (
    ("checkpoint", "left"),
    ("version", "left"),
    ("taken", "left"),
    ("slots", "right"),
    ("log loss", "right"),
    ("", "left"),
)

_SECONDS = click.FloatRange(min=0.1)
_model = click.option("--model", help="Registered model [default: the one of the settings].")
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _asking(function: Callable[..., None]) -> Callable[..., None]:
    """Options of the commands that ask the orchestrator or the learner."""
    for option in (
        _model,
        click.option("--reason", default="", help="Why, for people and the audit."),
        click.option("--wait/--no-wait", default=True, help="Wait until it is done or refused [default: wait]."),
        click.option("--timeout", type=_SECONDS, default=30.0, show_default=True, help="Longest wait, seconds."),
        _json,
    ):
        function = option(function)
    return function


@click.group()
def command() -> None:
    """List, show, compare, promote or roll back model versions."""
    from millrace.stream import logs

    # What a person needs to know comes as the error of the command; the libraries' warnings would bury it.
    logs.configure(settings().observability.model_copy(update={"log_level": "CRITICAL"}), "millrace")


command.add_command(show)
command.add_command(compare)


@command.command("list")
@_model
@click.option("--registry", is_flag=True, help="Ask MLflow too, for aliases and tags (a few seconds).")
@_json
def list_versions(model: str | None, registry: bool, as_json: bool) -> None:
    """Show every version, which one is the champion, since when and why."""
    ledger = _ledger(model)
    view, problem = _registry_view(settings(), ledger.model_name) if registry else (None, None)
    if as_json:
        click.echo(json.dumps(_with_registry(ledger, view, problem), indent=2))
    else:
        _print_versions(ledger, view)
    if problem:
        click.echo(f"aliases and tags are missing: {problem}", err=True)


@command.command()
@click.argument("version")
@_asking
def promote(version: str, model: str | None, reason: str, wait: bool, timeout: float, as_json: bool) -> None:
    """Make VERSION the champion."""
    from millrace.registry import asking

    name = model or settings().orchestrator.model_name
    _ask(name, asking.promote(name, version, getpass.getuser(), reason), wait, timeout, as_json)


@command.command()
@click.argument("version", default="")
@click.option("--checkpoint", default="", metavar="ID", help="Go back to this checkpoint of the learner instead.")
@_asking
def rollback(
    version: str, checkpoint: str, model: str | None, reason: str, wait: bool, timeout: float, as_json: bool
) -> None:
    """Go back to the champion before the present one, or to VERSION if it was a champion, or to a checkpoint.

    Learning goes on from there, with what users do from now on.
    """
    from millrace.registry import asking

    name = model or settings().orchestrator.model_name
    request = asking.roll_back(name, version, getpass.getuser(), reason, checkpoint)
    _ask(name, request, wait, timeout, as_json)


@command.command()
@_model
@_json
def checkpoints(model: str | None, as_json: bool) -> None:
    """Show the learner's last checkpoints, which `rollback --checkpoint ID` can go back to; the newest first.

    Slots are those learned in the line up to there; log loss is the mean of those since the checkpoint before, each
    predicted before it was learned.
    """
    ledger = _ledger(model)
    newest_first = list(reversed(ledger.checkpoints.values()))
    if as_json:
        from millrace.registry.as_json import checkpoint_as_dict

        content = {
            "model": ledger.model_name,
            "went_back_to": (ledger.reign.checkpoint_id or None) if ledger.reign else None,
            "checkpoints": [checkpoint_as_dict(event) for event in newest_first],
        }
        click.echo(json.dumps(content, indent=2))
    else:
        _print_checkpoints(ledger, newest_first)


@command.command()
@_asking
def learn(model: str | None, reason: str, wait: bool, timeout: float, as_json: bool) -> None:
    """Have the learner learn what is in its buffer now."""
    from millrace.learning.asking import ask_update
    from millrace.registry import asking

    values = settings()
    name = model or values.learner.model_name
    request = asking.trigger_update(name, getpass.getuser(), reason)
    answer: dict[str, object] = {"command_id": request.command_id, "settled": wait}
    if wait:
        update = ask_update(values.kafka, values.stream, name, request, timeout)
        answer |= {
            "version": update.model_version,
            "epoch": update.epoch,
            "sequence": update.sequence,
            "examples": update.examples,
            "at_ms": update.created_at_ms,
        }
        said = f"model {name!r} has learned what was in its buffer (epoch {update.epoch}, update {update.sequence})"
    else:
        asking.send(values.kafka, name, request, timeout)
        said = f"sent as {request.command_id}"
    click.echo(json.dumps(answer, indent=2) if as_json else said)


def _ask(name: str, request: Command, wait: bool, timeout_s: float, as_json: bool) -> None:
    from millrace.registry import asking
    from millrace.registry.as_json import event_as_dict

    values = settings()
    if not wait:
        asking.send(values.kafka, name, request, timeout_s)
        answer: Mapping[str, object] = {"command_id": request.command_id, "settled": False}
        said = f"sent as {request.command_id}; `millrace models list` shows what came of it"
    else:
        event = asking.ask(values.kafka, values.stream, name, request, timeout_s)
        answer = {"command_id": request.command_id, "settled": True, **event_as_dict(event)}
        before = f" (before: version {event.previous_version})" if event.previous_version else ""
        at = f", as of checkpoint {event.checkpoint_id}," if event.checkpoint_id else ""
        said = f"version {event.model_version} of model {name!r}{at} is the champion{before}"
    click.echo(json.dumps(answer, indent=2) if as_json else said)


def _ledger(model: str | None) -> Ledger:
    from millrace.registry.journal import read_ledger
    from millrace.stream.reader import TopicReader
    from millrace.topics import MODEL_EVENTS

    values = settings()
    with TopicReader(values.kafka, [MODEL_EVENTS], "beginning", values.stream) as reader:
        return read_ledger(model or values.orchestrator.model_name, reader, READ_TIMEOUT_S)


def _registry_view(values: Settings, name: str) -> tuple[RegistryView | None, str | None]:
    from millrace.registry.registry import Registry

    try:
        return Registry(values.mlflow).view(name), None
    except InfrastructureError as error:
        return None, str(error)


def _with_registry(ledger: Ledger, view: RegistryView | None, problem: str | None) -> dict[str, object]:
    from millrace.registry.as_json import ledger_as_dict

    content = ledger_as_dict(ledger)
    if view is not None:
        tags: dict[str, Any] = {version.version: dict(version.tags) for version in view.versions}
        content["registry"] = {"aliases": dict(view.aliases), "tags": tags}
    elif problem:
        content["registry"] = {"problem": problem}
    return content


def _print_versions(ledger: Ledger, view: RegistryView | None) -> None:
    from rich.console import Console
    from rich.table import Table

    if not ledger.versions:
        click.echo(f"model {ledger.model_name!r} has no version yet; the retrain orchestrator registers the first")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("version", "registered", "", "reason", *(("aliases",) if view else ())):
        table.add_column(heading)
    known = ledger.versions | ledger.refused
    for version, event in sorted(known.items(), key=lambda one: int(one[0])):
        state = "champion" if version == ledger.champion else "failed a gate" if version in ledger.refused else ""
        cells = [version, _time(event.at_ms), state, event.reason]
        if view is not None:
            cells.append(", ".join(alias for alias, target in view.aliases.items() if target == version))
        table.add_row(*cells)
    Console(highlight=False).print(table)
    if ledger.reign:
        why = f": {ledger.reign.reason}" if ledger.reign.reason else ""
        click.echo(f"version {ledger.champion} is the champion since {_time(ledger.reign.at_ms)}{why}")


def _print_checkpoints(ledger: Ledger, newest_first: Sequence[ModelEvent]) -> None:
    from rich.console import Console
    from rich.table import Table

    if not newest_first:
        click.echo(
            f"model {ledger.model_name!r} has no checkpoint yet; the online learner takes one every "
            f"{settings().learner.checkpoint_interval_ms / 1_000:g} s (ONLINE_LEARNING_CHECKPOINT_INTERVAL_MS) "
            "while it learns, and MLflow keeps it"
        )
        return
    reign = ledger.reign
    table = Table(box=None, pad_edge=False)
    for heading, justify in _CHECKPOINT_COLUMNS:
        table.add_column(heading, justify=justify)
    for event in newest_first:
        now = reign is not None and event.reign_id == reign.event_id
        went_back = reign is not None and event.checkpoint_id == reign.checkpoint_id
        table.add_row(
            event.checkpoint_id,
            event.model_version,
            _time(event.at_ms),
            f"{int(event.figures['examples']):,}",
            f"{event.figures['log_loss']:.4f}",
            "went back to it" if went_back else "present line" if now else "",
        )
    Console(highlight=False).print(table)


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1_000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
