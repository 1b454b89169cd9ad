"""The records of experiments, as the orchestrator sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from millrace.settings import KafkaSettings, StreamSettings
from millrace.stream.reader import TopicReader
from millrace.topics import EXPERIMENTS
from millrace.v1.experiment_pb2 import Experiment


class Decisions:
    """Reads topic ``experiments`` for one model. Nothing is missed: a record is looked at until it is acted on.

    One thread waits for records; any other may ask what has come.
    """

    def __init__(self, kafka: KafkaSettings, stream: StreamSettings, model_name: str) -> None:
        self._kafka, self._stream, self._model_name = kafka, stream, model_name
        self._reader: TopicReader | None = None
        # Replaced as a whole: other threads look at it.
        self._records: Mapping[str, Experiment] = {}

    def wait(self, timeout_s: float) -> None:
        """Return when something has come, or after ``timeout_s`` seconds."""
        if self._reader is None:
            self._reader = TopicReader(self._kafka, [EXPERIMENTS], "beginning", self._stream)
        records = [record.message for record in self._reader.poll(timeout_s=timeout_s)]
        self._records = {
            **self._records,
            **{
                record.definition.experiment_id: record
                for record in records
                if isinstance(record, Experiment) and record.definition.model_name == self._model_name
            },
        }

    def __call__(self) -> Sequence[Experiment]:
        """What has come by now, in the order of the ends; does not wait."""
        return sorted(self._records.values(), key=lambda one: one.stopped_at_ms)
