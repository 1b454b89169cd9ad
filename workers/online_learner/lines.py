"""Where a line of learning goes on, or begins."""

from __future__ import annotations

import time

from millrace.errors import InfrastructureError
from millrace.learning.state import LearnerState, fresh
from millrace.learning.updates import Lines
from millrace.ranking.model import RankingModel
from millrace.registry.cache import ModelCache, default_directory
from millrace.settings import KafkaSettings, Settings, StreamSettings
from millrace.stream.reader import TopicReader
from millrace.topics import MODEL_UPDATES
from millrace.v1.model_pb2 import ModelEvent, ModelUpdate

# Six hours of updates and snapshots are some 100 MB and read in seconds.
READ_TIMEOUT_S = 60.0


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


def first_state(settings: Settings, reign: ModelEvent) -> LearnerState:
    """The state that a reign begins with: the version as it was registered.

    Raises
    ------
    InfrastructureError
        The version is not on this machine, and the registry does not answer.
    """
    name, version = settings.learner.model_name, reign.model_version
    folder = ModelCache(default_directory(name), settings.mlflow).ensure(version)
    return fresh(RankingModel.load(folder), version, reign.event_id, epoch=0)
