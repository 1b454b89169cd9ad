"""Where a line of learning goes on, or begins."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import structlog

from millrace.errors import InfrastructureError
from millrace.learning.state import LearnerState
from millrace.learning.updates import Lines
from millrace.ranking.model import UnusableModel
from millrace.registry import versions
from millrace.registry.cache import ModelCache, default_directory
from millrace.registry.checkpoints import CheckpointCache
from millrace.registry.ledger import Ledger
from millrace.settings import KafkaSettings, Settings, StreamSettings
from millrace.stream.reader import TopicReader
from millrace.topics import MODEL_UPDATES
from millrace.v1.model_pb2 import ModelEvent, ModelUpdate

log = structlog.stdlib.get_logger(__name__)

# Six hours of updates and snapshots are some 100 MB and read in seconds.
READ_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Start:
    """Where a learner takes up its work.

    Attributes
    ----------
    state
        The parameters to go on from.
    learned
        Partition of ``outcomes`` -> the next offset to learn.
    topic_id
        The broker's id of the topic ``outcomes`` that these offsets are of; empty if nothing was learned yet.
    epoch
        The highest that was used.
    """

    state: LearnerState
    learned: Mapping[int, int]
    topic_id: str
    epoch: int


def find_start(settings: Settings, ledger: Ledger, reign: ModelEvent, checkpoints: CheckpointCache) -> Start:
    """The newest state of the present reign's line, else what the reign begins with.

    Snapshots on ``model-updates`` are never older than a checkpoint; they are gone when nobody has learned for longer
    than that topic keeps.

    Raises
    ------
    InfrastructureError
        Kafka does not answer; or what is needed is not on this machine, and the registry does not answer.
    """
    lines = read_lines(settings.kafka, settings.stream, settings.learner.model_name)
    epoch = max([lines.epoch, *(int(event.figures.get("epoch", 0)) for event in ledger.checkpoints.values())])
    state, learned, topic_id = lines.newest.get(reign.event_id), lines.learned, lines.topic_id
    if lines.last is None and (checkpoint := _newest_checkpoint(ledger, checkpoints)) is not None:
        learned, topic_id = dict(checkpoint.learned), checkpoint.topic_id
        state = checkpoint if checkpoint.reign_id == reign.event_id else None
    if state is not None:
        return Start(state, state.learned, state.topic_id, epoch)
    # What the line before has learned, to its last update, is nothing that this one has to learn.
    return Start(first_state(settings, reign, checkpoints), learned, topic_id, epoch)


def read_lines(kafka: KafkaSettings, stream: StreamSettings, model_name: str) -> Lines:
    """Everything that stands in ``model-updates``. Raises InfrastructureError."""
    lines = Lines(model_name)
    give_up = time.monotonic() + READ_TIMEOUT_S
    with TopicReader(kafka, [MODEL_UPDATES], "beginning", stream) as reader:
        while not reader.caught_up:
            if time.monotonic() > give_up:
                raise InfrastructureError("kafka", f"{MODEL_UPDATES.name} not read within {READ_TIMEOUT_S:g} s")
            for record in reader.poll():
                if isinstance(record.message, ModelUpdate):
                    lines.apply(record.message)
    return lines


def first_state(settings: Settings, reign: ModelEvent, checkpoints: CheckpointCache) -> LearnerState:
    """The state that a reign begins with: the checkpoint that was rolled back to, or the version as it was registered.

    A checkpoint that is damaged wherever it is cannot come back: then it is the version of which it was one.

    Raises
    ------
    InfrastructureError
        It is not on this machine, and the registry does not answer.
    """
    if reign.checkpoint_id:
        try:
            return replace(checkpoints.load(reign), reign_id=reign.event_id)
        except UnusableModel as error:
            log.error("learns from the version as it was registered", version=reign.model_version, problem=str(error))
    name, version = settings.learner.model_name, reign.model_version
    folder = ModelCache(default_directory(name), settings.mlflow).ensure(version)
    return versions.first_state(folder, version, reign.event_id)


def _newest_checkpoint(ledger: Ledger, checkpoints: CheckpointCache) -> LearnerState | None:
    """The newest checkpoint that is whole; None if there is none."""
    for event in reversed(ledger.checkpoints.values()):
        try:
            return checkpoints.load(event)
        except UnusableModel as error:
            log.error("passed over", problem=str(error))
    return None
