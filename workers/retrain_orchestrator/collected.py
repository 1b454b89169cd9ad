"""``python -m workers.retrain_orchestrator.collected``: whether enough has come since the world changed, as JSON.

A process of its own, for it reads hours of outcomes. What is counted is what the training job would count: its gate
``enough_data`` is asked. Only those who asked to be forgotten are counted here, and not learned there.
"""

from __future__ import annotations

import json
import sys

import click
import structlog

from millrace.errors import MillraceError
from millrace.ranking.features import FEATURE_NAMES
from millrace.registry.gates import Gate
from millrace.settings import Settings, home, settings
from millrace.stream import logs
from millrace.training import fit
from millrace.training.change import enough, place
from millrace.training.slots import SlotFile
from workers.retrain_orchestrator.jobs import END_WITH_STDIN, FAILURE, end_with_stdin
from workers.retrain_orchestrator.reading import newest_window, read
from workers.retrain_orchestrator.scratch import scratch

log = structlog.stdlib.get_logger(__name__)

NAME = "collected"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--since", type=click.IntRange(min=0), required=True, metavar="MS", help="Unix milliseconds.")
@click.option(END_WITH_STDIN, "with_stdin", is_flag=True, help="End when standard input ends.")
def main(since: int, with_stdin: bool) -> None:
    """Count what was served since a time, as a training job would."""
    if with_stdin:
        end_with_stdin()
    values = settings()
    logs.configure(values.observability, NAME)
    try:
        gate = collected(values, since)
    except (MillraceError, OSError) as error:
        log.error("not counted", problem=str(error))
        click.echo(json.dumps({"problem": str(error)}))
        sys.exit(FAILURE)
    click.echo(json.dumps({"enough": gate.passed, "reason": gate.reason, "figures": dict(gate.figures)}))


def collected(values: Settings, since_ms: int) -> Gate:
    """Gate ``enough_data`` of a version that was trained now for a world that changed then (Unix milliseconds).

    Raises
    ------
    UnusableData
        More came than the disk is to hold.
    InfrastructureError
        Kafka does not answer.
    OSError
        The disk does not take it.
    """
    window = newest_window(values, since_ms)
    with scratch(home()) as folder, SlotFile(folder / "slots", len(FEATURE_NAMES)) as slots:
        read(values, window, folder, slots)
        parts = fit.Parts.of(len(slots), values.training.newest_share, place(slots, since_ms))
        return enough(slots, parts, values.training)


if __name__ == "__main__":
    main(prog_name="python -m workers.retrain_orchestrator.collected")
