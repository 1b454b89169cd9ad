"""The orchestrator's hold on topic ``model-events``: one writer at a time, who has read everything before."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

import structlog

from millrace.errors import InfrastructureError
from millrace.registry.ledger import Ledger
from millrace.settings import KafkaSettings, StreamSettings
from millrace.stream.fenced import TIMEOUT_S, FencedProducer
from millrace.stream.reader import TopicReader
from millrace.topics import MODEL_EVENTS
from millrace.v1.model_pb2 import ModelEvent

log = structlog.stdlib.get_logger(__name__)


class Journal:
    """Reads and writes the ledger of one model.

    Writing goes through a fenced producer; only when it is open the topic is read. So two orchestrators that both
    think that it is their turn (one was stopped and went on) can never both write, nor write from an old ledger.

    After any failure the journal is closed, and opens anew at the next use: what a broken connection left
    undecided is then read from the topic.
    """

    def __init__(self, kafka: KafkaSettings, stream: StreamSettings, model_name: str) -> None:
        self._kafka = kafka
        self._stream = stream
        self._model_name = model_name
        self._producer = FencedProducer(kafka, "retrain_orchestrator", model_name)
        self._reader: TopicReader | None = None
        self._ledger = Ledger(model_name)

    def ledger(self) -> Ledger:
        """The ledger with everything that stands in the topic.

        Raises
        ------
        InfrastructureError
            The broker does not answer.
        """
        if self._reader is None or not self._producer.is_open:
            self._open()
        else:
            read_into(self._ledger, self._reader)
        return self._ledger

    def append(self, event: ModelEvent) -> None:
        """Write an event; when this returns, all replicas have it and the ledger includes it.

        Raises
        ------
        InfrastructureError
            It may or may not stand in the topic: ``ledger()`` tells.
        """
        try:
            self._producer.write([(MODEL_EVENTS, event.model_name, event)])
        except InfrastructureError:
            self.close()
            raise
        self._ledger.apply(event)

    def close(self) -> None:
        """Let go; another process may write, and the next use reads the topic again."""
        if self._reader is not None:
            self._reader.close()
        self._reader = None
        self._producer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _open(self) -> None:
        self.close()
        self._producer.open()
        self._reader = TopicReader(self._kafka, [MODEL_EVENTS], "beginning", self._stream)
        try:
            self._ledger = read_ledger(self._model_name, self._reader, TIMEOUT_S)
        except InfrastructureError:
            self.close()
            raise
        log.info("ledger read", versions=len(self._ledger.versions), champion=self._ledger.champion or None)


def read_ledger(model_name: str, reader: TopicReader, timeout_s: float, into: Ledger | None = None) -> Ledger:
    """The ledger of everything that stood in ``model-events`` when the reader found the broker.

    ``into``: an empty one of this model to be filled; None: one is made.

    Raises
    ------
    InfrastructureError
        The broker or the topic is not there, or did not deliver in time.
    """
    ledger = Ledger(model_name) if into is None else into
    give_up = time.monotonic() + timeout_s
    while not reader.caught_up:
        read_into(ledger, reader, timeout_s=0.1)
        if time.monotonic() > give_up:
            raise InfrastructureError(
                "kafka",
                f"{MODEL_EVENTS.name} could not be read within {timeout_s:g} s; is Kafka up (`millrace stack status`), "
                "and are the topics made (`millrace topics apply`)?",
            )
    return ledger


def read_into(ledger: Ledger, reader: TopicReader, timeout_s: float = 0.0) -> None:
    """Take what the reader has got, waiting up to ``timeout_s`` seconds for a first record."""
    for record in reader.poll(timeout_s=timeout_s):
        if isinstance(record.message, ModelEvent):
            ledger.apply(record.message)
