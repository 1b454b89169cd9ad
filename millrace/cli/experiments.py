"""``millrace experiments``: compare arms on real traffic, and know what is known."""

from __future__ import annotations

import getpass
import importlib.util
import json
import sys
from typing import TYPE_CHECKING, Any

import click

from millrace.cli._experiment_definition import Wanted, definition_options
from millrace.cli._experiments_gate import hours_option, measured, print_gate, read_ledger_of
from millrace.errors import MillraceError
from millrace.settings import settings

if TYPE_CHECKING:
    from millrace.simulation.truth import Truth
    from millrace.v1.command_pb2 import Command
    from millrace.v1.experiment_pb2 import Experiment

# Reading the topic takes a few tenths of a second; longer means that the broker is away.
READ_TIMEOUT_S = 5.0
# Counting anew from the log does some 20,000 outcomes a second.
RECOUNT_TIMEOUT_S = 600.0

_name = click.argument("experiment")
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_reason = click.option("--reason", default="", help="Why, for people and the audit.")
_timeout = click.option(
    "--timeout", type=click.FloatRange(min=0.1), default=30.0, show_default=True, help="Longest wait, seconds."
)
_override = click.option(
    "--override",
    default="",
    metavar="REASON",
    help="Start it also if a version does not pass the gate; it is recorded.",
)


@click.group()
def command() -> None:
    """Compare arms on real traffic: create, evaluate, start, stop, list, show, audit, plan.

    One may look at any time, and stop when it says so: the error is controlled at all looks together.
    """
    from millrace.cli._output import quiet_logs

    for package in ("numpy", "scipy"):
        if importlib.util.find_spec(package) is None:
            raise MillraceError(f"experiments need {package}: pip install 'millrace[experiment-tracker]'")
    quiet_logs()


@command.command()
@_name
@definition_options
@click.option("--start", "at_once", is_flag=True, help="Start it at once.")
@hours_option
@_override
@_reason
@_timeout
@_json
def create(
    experiment: str,
    at_once: bool,
    hours: float,
    override: str,
    reason: str,
    timeout: float,
    as_json: bool,
    **wanted: Any,
) -> None:
    """Define EXPERIMENT, or change it as long as it has not started.

    millrace experiments create frozen --arm live=champion --arm frozen=checkpoint:latest --start

    millrace experiments create many --arm a=champion --arm b=version:2 --arm c=popular --thompson clicks --start
    """
    from millrace.experiments.definition import check_definition, completed
    from millrace.registry.asking import new_command

    definition = Wanted(**wanted).definition(experiment, settings().recommender.model_name)
    # The tracker checks it again, and whether versions exist and the layer has room.
    check_definition(completed(definition))
    request = new_command(getpass.getuser(), reason)
    request.define_experiment.definition.CopyFrom(definition)
    record = _ask(request, timeout)
    if at_once:
        record = _start(record, hours, override, reason, timeout)
    _say(record, "started" if at_once else "defined; `millrace experiments start` starts it", as_json)


@command.command()
@_name
@hours_option
@_override
@_reason
@_timeout
@_json
def start(experiment: str, hours: float, override: str, reason: str, timeout: float, as_json: bool) -> None:
    """Start EXPERIMENT: from then on its definition stands.

    A version that is not the champion has to pass the gate first, see `evaluate`. Other arms need none.
    """
    _say(_start(_one(experiment), hours, override, reason, timeout), "started", as_json)


@command.command()
@click.argument("version")
@click.option("--model", help="Registered model [default: the one of the settings].")
@hours_option
@_json
def evaluate(version: str, model: str | None, hours: float, as_json: bool) -> None:
    """Say what VERSION would have earned, without showing it to anybody, and whether that passes the gate.

    Measured on the champion's answers in random order (MILLRACE_RECOMMENDER_SHUFFLED_SHARE of all), of which the last
    400,000 slots are kept.
    """
    from google.protobuf.json_format import MessageToDict

    from millrace.experiments.gate import judge

    values = settings()
    name = model or values.recommender.model_name
    ledger = read_ledger_of(values, name)
    known = sorted({*ledger.versions, *ledger.former, ledger.champion} - {""}, key=int)
    if not ledger.champion or version not in known:
        there_are = ", ".join(known) or "none yet"
        raise click.ClickException(f"model {name!r} has no version {version!r}; there are: {there_are}")
    gate = judge(measured(values, name, ledger.champion, [version], hours)[0])
    if as_json:
        click.echo(json.dumps(MessageToDict(gate, preserving_proto_field_name=True), indent=2))
    else:
        print_gate(gate)


@command.command()
@_name
@_reason
@_timeout
@_json
def stop(experiment: str, reason: str, timeout: float, as_json: bool) -> None:
    """Stop EXPERIMENT for good; its figures stay, and everyone gets the champion."""
    from millrace.registry.asking import new_command

    request = new_command(getpass.getuser(), reason)
    request.stop_experiment.experiment_id = experiment
    _say(_ask(request, timeout), "stopped", as_json)


@command.command("list")
@_json
def list_experiments(as_json: bool) -> None:
    """Show every experiment, the newest first."""
    from millrace.cli import _experiments_view as view

    found = sorted(_read().values(), key=lambda one: -one.started_at_ms)
    if as_json:
        click.echo(json.dumps({"experiments": [view.as_dict(one, _truths(one)) for one in found]}, indent=2))
    elif found:
        view.print_list(found)
    else:
        click.echo("no experiment yet; `millrace experiments create --help` shows how")


@command.command()
@_name
@_json
def show(experiment: str, as_json: bool) -> None:
    """Show what is known of EXPERIMENT, and what it means; beside the truth, if its users are simulated shoppers."""
    from millrace.cli import _experiments_view as view

    record = _one(experiment)
    if as_json:
        click.echo(json.dumps(view.as_dict(record, _truths(record)), indent=2))
    else:
        view.print_one(record, _truths(record))


@command.command()
@_name
@click.option("--log", "from_log", is_flag=True, help="Count anew from topic outcomes, too.")
@_json
def audit(experiment: str, from_log: bool, as_json: bool) -> None:
    """Recompute the decision of EXPERIMENT, shares of Thompson sampling and gates from its record; that from the log.

    Exit status 1 if a digit differs.
    """
    from millrace.experiments.asking import recount
    from millrace.experiments.gate import gate_differences
    from millrace.experiments.periods import period_differences
    from millrace.experiments.record import differences, verdict

    record = _one(experiment)
    if not record.started_at_ms:
        raise click.ClickException(f"{experiment} has not started: there is nothing to recompute")
    found = differences(record.decision, verdict(record, record.decision.at_ms)) + period_differences(record)
    found += gate_differences(record.gates)
    if from_log:
        values = settings()
        counted = recount(values.kafka, values.stream, record, RECOUNT_TIMEOUT_S)
        for stands, anew in zip(record.figures, counted.figures, strict=True):
            found += _different(stands.name, _flat(stands), _flat(anew))
        for number, (period, counted_period) in enumerate(zip(record.periods, counted.periods, strict=True)):
            found += _different(f"period {number}", _flat(period), _flat(counted_period))
    sources = f"its figures{' and topic outcomes' if from_log else ''}"
    if as_json:
        answer = {"experiment": experiment, "same": not found, "sources": sources, "differences": found}
        click.echo(json.dumps(answer | {"code_version": record.decision.code_version}, indent=2))
    else:
        for line in found:
            click.echo(line)
        click.echo(
            f"{experiment}: {'differs from' if found else 'the same to the digit as'} what follows from {sources} "
            f"({record.decision.reason})"
        )
    if found:
        sys.exit(1)


@command.command()
@click.option("--rate", type=float, required=True, help="Clicks of a slot that are expected of the control.")
@click.option("--lift", type=float, required=True, help="The relative difference that should be found.")
@click.option("--share", default=0.5, show_default=True, help="Of the arm, among the slots of the two.")
@click.option("--alpha", default=0.05, show_default=True, help="Probability of a false promotion.")
@click.option("--power", default=0.9, show_default=True, help="How sure one wants to be to find it.")
@click.option("--inflation", type=float, help="Variance by user over that of independent slots [default: 1].")
@click.option(
    "--like",
    metavar="EXPERIMENT",
    help="Take the inflation from an earlier one: its users, moving shares (--thompson) and --earlier-activity.",
)
@click.option("--slots-a-day", type=float, help="Of all traffic: how many days it takes.")
@click.option("--traffic", default=0.2, show_default=True, help="Share of all users that takes part.")
@_json
def plan(
    rate: float,
    lift: float,
    share: float,
    alpha: float,
    power: float,
    inflation: float | None,
    like: str | None,
    slots_a_day: float | None,
    traffic: float,
    as_json: bool,
) -> None:
    """Say how much traffic an experiment needs, before it starts."""
    from millrace.experiments.outlook import inflation_of
    from millrace.experiments.plan import Plan

    if like is not None:
        if inflation is not None:
            raise click.BadParameter("beside --inflation: one of the two", param_hint="--like")
        inflation = inflation_of(_one(like))
        if inflation is None:
            raise click.ClickException(f"nobody has clicked in {like} yet: it has no inflation to go by")
    inflation = 1.0 if inflation is None else inflation
    made = Plan(rate, lift, share, alpha, inflation)
    slots = made.slots_needed(power)
    days = None if slots_a_day is None else made.days_needed(slots_a_day, traffic, power)
    if as_json:
        click.echo(
            json.dumps({"slots": slots, "days": days, "variance": made.variance, "inflation": inflation}, indent=2)
        )
        return
    takes = (
        f", {days:.1f} days at {slots_a_day:,.0f} slots a day of which {traffic:.0%} take part"
        if days is not None
        else ""
    )
    click.echo(f"{slots:,} slots of both arms find {lift:+.0%} on {rate:.1%} with {power:.0%} power{takes}")
    if like is not None:
        click.echo(f"as in {like}, where the variance was {inflation:.2f} times that of independent slots")


def _start(record: Experiment, hours: float, override: str, reason: str, timeout_s: float) -> Experiment:
    from millrace.experiments.gate import gated
    from millrace.registry.asking import new_command

    definition = record.definition
    request = new_command(getpass.getuser(), reason)
    request.start_experiment.experiment_id = definition.experiment_id
    request.start_experiment.override_reason = override
    if gated(definition, champion=""):
        values = settings()
        champion = read_ledger_of(values, definition.model_name).champion
        versions = gated(definition, champion)
        if versions:
            known = measured(values, definition.model_name, champion, versions, hours)
            request.start_experiment.evidence.extend(known)
    return _ask(request, timeout_s)


def _ask(request: Command, timeout_s: float) -> Experiment:
    from millrace.experiments.asking import ask_tracker

    values = settings()
    return ask_tracker(values.kafka, values.stream, request, timeout_s)


def _say(record: Experiment, done: str, as_json: bool) -> None:
    from millrace.cli import _experiments_view as view

    if as_json:
        click.echo(json.dumps(view.as_dict(record, _truths(record)), indent=2))
    else:
        click.echo(f"{record.definition.experiment_id} is {done}")
        for gate in record.gates:
            print_gate(gate, started=True)


def _read() -> dict[str, Experiment]:
    from millrace.experiments.asking import read_experiments

    values = settings()
    return read_experiments(values.kafka, values.stream, READ_TIMEOUT_S)


def _one(name: str) -> Experiment:
    found = _read()
    if name not in found:
        raise click.ClickException(f"no experiment {name!r}; there are: {', '.join(found) or 'none yet'}")
    return found[name]


def _truths(record: Experiment) -> dict[str, Truth]:
    """What simulated shoppers of this machine know of the arms; nothing where there are none."""
    from millrace.simulation.truth import read_truths

    return read_truths(record.definition.experiment_id, record.started_at_ms)


def _flat(figures: object) -> dict[str, object]:
    from google.protobuf.json_format import MessageToDict

    content = MessageToDict(figures, preserving_proto_field_name=True)  # type: ignore[arg-type]
    # A sum of 0 is as good as none: so it is before anything came.
    return {name: value for name, value in content.pop("statistics", {}).items() if value} | content


def _different(of: str, stands: dict[str, object], anew: dict[str, object]) -> list[str]:
    names = sorted(stands.keys() | anew.keys())
    return [
        f"{of}.{name}: {stands.get(name)} stands, {anew.get(name)} is in the log"
        for name in names
        if stands.get(name) != anew.get(name)
    ]
