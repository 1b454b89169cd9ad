"""The gate for people: measured before an experiment starts, and shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from millrace.cli._experiment_definition import within
from millrace.cli._output import print_table, when
from millrace.settings import HOUR_MS, Settings

if TYPE_CHECKING:
    from millrace.registry.ledger import Ledger
    from millrace.v1.experiment_pb2 import Gate, GateEvidence

LEDGER_TIMEOUT_S = 5.0
OUTCOMES_HOURS = 28 * 24.0
"""So long are outcomes kept."""

hours_option = click.option(
    "--hours",
    default=24.0,
    show_default=True,
    callback=within(OUTCOMES_HOURS),
    help="How far back answers in random order are looked for, up to four weeks.",
)


def read_ledger_of(values: Settings, model_name: str) -> Ledger:
    """What has happened to a model. Raises InfrastructureError."""
    from millrace.registry.journal import read_ledger
    from millrace.stream.reader import TopicReader
    from millrace.topics import MODEL_EVENTS

    with TopicReader(values.kafka, [MODEL_EVENTS], "beginning", values.stream) as reader:
        return read_ledger(model_name, reader, LEDGER_TIMEOUT_S)


def measured(
    values: Settings, model_name: str, champion: str, versions: Sequence[str], hours: float
) -> list[GateEvidence]:
    """What is known of some versions. Raises InfrastructureError."""
    from millrace.experiments.measuring import measure_versions

    last_ms = round(hours * HOUR_MS)
    return measure_versions(values.kafka, values.stream, values.mlflow, model_name, champion, versions, last_ms)


def print_gate(gate: Gate, started: bool = False) -> None:
    """The verdict, and the figures behind it; of an experiment that was ``started``, also why it could be."""
    from millrace.experiments.gate import FAILED, PASSED, REFUSED, UNKNOWN_SHARE

    evidence = gate.evidence
    said = {PASSED: "passes the gate", FAILED: "fails at the gate", REFUSED: "is refused at the gate"}[gate.verdict]
    click.echo(f"version {evidence.model_version} {said}: {gate.reason}")
    if gate.override_reason:
        click.echo(f"started all the same by {gate.overridden_by}: {gate.override_reason}")
    elif started and gate.verdict == REFUSED:
        click.echo(f"shown to at most {UNKNOWN_SHARE:.0%} of all users, as a version may of which too little is known")
    if not evidence.version:
        return
    click.echo(
        f"on {evidence.answers:,} answers of version {evidence.champion_version} in random order to {evidence.users:,} "
        f"users since {when(evidence.from_ms)}, {evidence.clicks:,} of {evidence.slots:,} slots clicked; worth "
        f"{evidence.effective:,.0f} slots"
    )
    rows = [
        (ours.estimator, *(f"{one.value:.2%} ({one.low:.2%} to {one.high:.2%})" for one in (ours, theirs)))
        for ours, theirs in zip(evidence.version, evidence.champion, strict=True)
    ]
    columns = "clicks of a slot", f"version {evidence.model_version}", f"champion {evidence.champion_version}"
    print_table(columns, rows)
