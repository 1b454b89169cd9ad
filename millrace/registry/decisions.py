"""The records of experiments, as the orchestrator sees them."""

from __future__ import annotations

from collections.abc import Sequence

from millrace.settings import KafkaSettings, StreamSettings
from millrace.stream.reader import TopicReader
from millrace.topics import EXPERIMENTS
from millrace.v1.experiment_pb2 import Experiment


class Decisions:
    """Reads topic ``experiments`` for one model. Nothing is missed: a record is looked at until it is acted on."""

    def __init__(self, kafka: KafkaSettings, stream: StreamSettings, model_name: str) -> None:
        self._kafka, self._stream, self._model_name = kafka, stream, model_name
        self._reader: TopicReader | None = None
        self._records: dict[str, Experiment] = {}

    def __call__(self) -> Sequence[Experiment]:
        """What has been read by now, in the order of the ends; does not wait."""
        if self._reader is None:
            self._reader = TopicReader(self._kafka, [EXPERIMENTS], "beginning", self._stream)
        for record in self._reader.poll(timeout_s=0.0):
            message = record.message
            if isinstance(message, Experiment) and message.definition.model_name == self._model_name:
                self._records[message.definition.experiment_id] = message
        return sorted(self._records.values(), key=lambda one: one.stopped_at_ms)
