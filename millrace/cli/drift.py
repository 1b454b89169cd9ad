"""``millrace drift``: whether what the champion meets is still what it was made for."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import click

from millrace.errors import InfrastructureError
from millrace.settings import settings

if TYPE_CHECKING:
    from millrace.drift.status import DriftStatus

# As `millrace models list`; the changelog is larger.
READ_TIMEOUT_S = 10.0


@click.group()
def command() -> None:
    """Look at what the drift detector found."""
    from millrace.cli._output import quiet_logs

    quiet_logs()


@command.command()
@click.option("--model", help="Registered model [default: the one of the settings].")
@click.option("--all", "everything", is_flag=True, help="Every feature, and not only those that moved most.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(model: str | None, everything: bool, as_json: bool) -> None:
    """Features and scores against the champion's reference, labels since it serves, and signals, the newest first."""
    from millrace.cli import _drift_view

    found = _read(model or settings().drift.model_name).as_dict()
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        _drift_view.print_status(found, everything)


def _read(model_name: str) -> DriftStatus:
    """Raises InfrastructureError if the broker or a topic is not there, or does not deliver in time."""
    from millrace.drift.status import SIGNALS_READ, DriftStatus, model_of
    from millrace.stream.reader import Newest, TopicReader
    from millrace.topics import DRIFT_DETECTOR_CHANGELOG, DRIFT_SIGNALS
    from millrace.v1.detector_pb2 import DetectorState
    from millrace.v1.drift_pb2 import DriftSignal

    values = settings()
    found, give_up = DriftStatus(model_name), time.monotonic() + READ_TIMEOUT_S
    for reader in (
        TopicReader(values.kafka, [DRIFT_DETECTOR_CHANGELOG], "beginning", values.stream),
        TopicReader(values.kafka, [DRIFT_SIGNALS], Newest(SIGNALS_READ), values.stream),
    ):
        with reader:
            while not reader.caught_up:
                for record in reader.poll(timeout_s=0.1):
                    message = record.message
                    if isinstance(message, DetectorState | DriftSignal) and model_of(message, record.key) == model_name:
                        found.take(message)
                if time.monotonic() > give_up:
                    raise InfrastructureError(
                        "kafka",
                        f"the drift detector's topics could not be read within {READ_TIMEOUT_S:g} s; is Kafka up "
                        "(`millrace stack status`), and are the topics made (`millrace topics apply`)?",
                    )
    return found
