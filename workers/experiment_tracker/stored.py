"""Reads back what the tracker wrote: the records of all experiments, and its changelog."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from millrace.errors import InfrastructureError
from millrace.settings import KafkaSettings, StreamSettings
from millrace.stream.reader import TopicReader
from millrace.topics import EXPERIMENT_TRACKER_CHANGELOG, EXPERIMENTS
from millrace.v1.experiment_pb2 import Experiment
from millrace.v1.tracker_pb2 import TrackerState

# Half a million users (the most by default) are read in some 20 s; who takes longer is asked again from the start.
READ_TIMEOUT_S = 60.0


@dataclass(slots=True)
class Stored:
    """The newest of each key."""

    experiments: dict[str, Experiment] = field(default_factory=dict)
    parts: dict[str, TrackerState] = field(default_factory=dict)


def read_stored(kafka: KafkaSettings, stream: StreamSettings) -> Stored:
    """Everything that was written. Call it when no former tracker can write any more.

    Raises
    ------
    InfrastructureError
        The broker did not deliver in time.
    """
    stored = Stored()
    give_up = time.monotonic() + READ_TIMEOUT_S
    with TopicReader(kafka, [EXPERIMENTS, EXPERIMENT_TRACKER_CHANGELOG], "beginning", stream) as reader:
        while not reader.caught_up:
            if time.monotonic() > give_up:
                raise InfrastructureError(
                    "kafka", f"{EXPERIMENT_TRACKER_CHANGELOG.name} could not be read within {READ_TIMEOUT_S:g} s"
                )
            for record in reader.poll(5_000):
                key = (record.key or b"").decode("utf-8", "replace")
                if isinstance(record.message, Experiment):
                    stored.experiments[key] = record.message
                elif isinstance(record.message, TrackerState):
                    stored.parts[key] = record.message
                else:
                    stored.parts.pop(key, None)
    return stored
