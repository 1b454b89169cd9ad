"""What the tracker must know of models: which versions and checkpoints an arm may name, and who is the champion."""

from __future__ import annotations

import time

from millrace.errors import InfrastructureError
from millrace.registry.ledger import Ledger
from millrace.settings import KafkaSettings, StreamSettings
from millrace.stream.fenced import TIMEOUT_S
from millrace.stream.reader import TopicReader
from millrace.topics import MODEL_EVENTS
from millrace.v1.model_pb2 import ModelEvent

_LOOK_S = 0.2


class Models:
    """Reads ``model-events`` of all models, from the tracker's own thread.

    Attributes
    ----------
    ledgers
        What has happened to each model, by name.
    """

    def __init__(self, kafka: KafkaSettings, stream: StreamSettings) -> None:
        self._kafka, self._stream = kafka, stream
        self._reader: TopicReader | None = None
        self._look_at = 0.0
        self.ledgers: dict[str, Ledger] = {}

    def open(self) -> None:
        """Read all events. Raises InfrastructureError."""
        self.close()
        self.ledgers = {}
        self._reader = reader = TopicReader(self._kafka, [MODEL_EVENTS], "beginning", self._stream)
        give_up = time.monotonic() + TIMEOUT_S
        while not reader.caught_up:
            if time.monotonic() > give_up:
                raise InfrastructureError("kafka", f"{MODEL_EVENTS.name} could not be read within {TIMEOUT_S:g} s")
            self._read(reader, timeout_s=0.1)

    def close(self) -> None:
        """Let go."""
        if self._reader is not None:
            self._reader.close()
        self._reader = None

    def poll(self, now: float | None) -> None:
        """Look for news, if it is time (monotonic seconds; None: now, for somebody asks)."""
        if self._reader is not None and (now is None or now >= self._look_at):
            self._look_at = (now or 0.0) + _LOOK_S
            self._read(self._reader, timeout_s=0.0)

    def _read(self, reader: TopicReader, timeout_s: float) -> None:
        for record in reader.poll(timeout_s=timeout_s):
            if isinstance(record.message, ModelEvent):
                name = record.message.model_name
                self.ledgers.setdefault(name, Ledger(name)).apply(record.message)
