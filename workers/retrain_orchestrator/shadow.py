"""``python -m workers.retrain_orchestrator.shadow``: a version beside the champion on live traffic, until one is sure.

A process of its own, for it reads all outcomes from where the comparison began. It ends when a verdict is there, and
prints it as JSON; begun again from the same place it says the same. See ``millrace.training.shadow``.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict

import click
import structlog

from millrace.errors import InfrastructureError, MillraceError
from millrace.learning.learner import OnlineRanker
from millrace.ranking.features import FEATURE_SCHEMA
from millrace.ranking.model import UnusableModel
from millrace.registry.cache import ModelCache, default_directory
from millrace.registry.versions import first_state
from millrace.settings import Settings, settings
from millrace.stream import logs
from millrace.stream.ordered import OrderedReader
from millrace.stream.window import check_starts
from millrace.topics import OUTCOMES
from millrace.training.measure import Line
from millrace.training.shadow import Shadow, Verdict
from millrace.v1.outcome_pb2 import Outcome
from workers.retrain_orchestrator.jobs import END_WITH_STDIN, FAILURE, UNUSABLE, end_with_stdin

log = structlog.stdlib.get_logger(__name__)

NAME = "shadow"
_POLL_S = 1.0
_SAY_EVERY_S = 60.0


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--model", required=True, help="Registered model.")
@click.option("--version", required=True, help="The version.")
@click.option("--champion", required=True, help="The version that serves.")
@click.option("--topic-id", required=True, help="The broker's id of topic outcomes.")
@click.option("--starts", required=True, help="JSON: partition -> the first offset that is compared.")
@click.option(END_WITH_STDIN, "with_stdin", is_flag=True, help="End when standard input ends.")
def main(model: str, version: str, champion: str, topic_id: str, starts: str, with_stdin: bool) -> None:
    """Compare what a version predicts with what the champion predicted, on outcomes as they come."""
    if with_stdin:
        end_with_stdin()
    values = settings()
    logs.configure(values.observability, NAME)
    try:
        offsets = {int(number): int(offset) for number, offset in json.loads(starts).items()}
        check_starts(values.kafka, OUTCOMES, topic_id, offsets)
        shadow = Shadow(model, champion, begun(values, model, version), values.training.gain_min)
        verdict = compare(values, shadow, offsets)
    except MillraceError as error:
        log.error("not compared", problem=str(error))
        click.echo(json.dumps({"problem": str(error)}))
        sys.exit(FAILURE if isinstance(error, InfrastructureError) else UNUSABLE)
    click.echo(json.dumps(asdict(verdict)))


def begun(values: Settings, model: str, version: str) -> Line:
    """The version as it would begin to serve.

    Raises
    ------
    InfrastructureError
        MLflow is away, and the version is not on this machine's disk.
    UnusableModel
        Its files are damaged, or it has other features than the log.
    """
    cache = ModelCache(default_directory(model), values.mlflow)
    state = first_state(cache.path(version) or cache.ensure(version), version, "")
    if state.model.feature_schema != FEATURE_SCHEMA:
        raise UnusableModel(f"it ranks by features {state.model.feature_schema}, and {FEATURE_SCHEMA} are logged")
    return Line(OnlineRanker(state))


def compare(values: Settings, shadow: Shadow, starts: dict[int, int]) -> Verdict:
    """Go on until there is a verdict. Raises InfrastructureError."""
    say_at = time.monotonic() + _SAY_EVERY_S
    with OrderedReader(values.kafka, OUTCOMES, starts, values.stream) as reader:
        while True:
            for record in reader.poll(_POLL_S):
                if isinstance(record.message, Outcome) and shadow.take(record.message):
                    verdict = shadow.verdict
                    if verdict.better is not None:
                        return verdict
            if time.monotonic() > say_at:
                say_at = time.monotonic() + _SAY_EVERY_S
                log.info("compared so far", found=shadow.verdict.reason, refused=shadow.refused)


if __name__ == "__main__":
    main(prog_name="python -m workers.retrain_orchestrator.shadow")
