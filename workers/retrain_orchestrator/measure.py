"""``python -m workers.retrain_orchestrator.measure``: what is known of a version before anybody sees it, as JSON.

A process of its own, for it reads a day of outcomes. See ``millrace.experiments.gate`` for what follows from it.
"""

from __future__ import annotations

import sys

import click
import structlog
from google.protobuf.json_format import MessageToJson

from millrace.errors import InfrastructureError, MillraceError
from millrace.experiments.gate import REFUSED, judge
from millrace.experiments.measuring import measure_versions
from millrace.settings import DAY_MS, Settings, settings
from millrace.stream import logs
from millrace.v1.experiment_pb2 import GateEvidence
from workers.retrain_orchestrator.jobs import END_WITH_STDIN, end_with_stdin

log = structlog.stdlib.get_logger(__name__)

NAME = "measuring"
DAYS = (1, 7)
"""A shop with few answers has those of a week read: one that has many knows enough after a day."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--model", required=True, help="Registered model.")
@click.option("--version", required=True, help="The version.")
@click.option("--champion", required=True, help="The version that serves.")
@click.option(END_WITH_STDIN, "with_stdin", is_flag=True, help="End when standard input ends.")
def main(model: str, version: str, champion: str, with_stdin: bool) -> None:
    """Measure a version on the champion's answers in random order of the last day, or days if that says too little."""
    if with_stdin:
        end_with_stdin()
    values = settings()
    logs.configure(values.observability, NAME)
    try:
        found = measured(values, model, version, champion)
    except MillraceError as error:
        log.error("not measured", problem=str(error))
        sys.exit(1)
    click.echo(MessageToJson(found, preserving_proto_field_name=True))


def measured(values: Settings, model: str, version: str, champion: str) -> GateEvidence:
    """What is known; of more days where one says too little. Raises InfrastructureError."""
    found = GateEvidence()
    for days in DAYS:
        try:
            [found] = measure_versions(
                values.kafka, values.stream, values.mlflow, model, champion, [version], days * DAY_MS
            )
        except InfrastructureError as error:
            if not found.at_ms:
                raise
            log.warning("only the last day was read", problem=str(error))
            break
        if judge(found).verdict != REFUSED:
            break
    return found


if __name__ == "__main__":
    main(prog_name="python -m workers.retrain_orchestrator.measure")
