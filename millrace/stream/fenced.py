"""A producer of which only the newest may write: opening it makes the broker refuse every earlier one."""

from __future__ import annotations

from collections.abc import Iterable

from confluent_kafka import KafkaError, KafkaException, Producer
from google.protobuf.message import Message

from millrace.errors import InfrastructureError
from millrace.settings import KafkaSettings
from millrace.stream import logs
from millrace.stream.clients import producer_config
from millrace.stream.codec import encode
from millrace.stream.tracing import TRACES
from millrace.stream.worker import Headers
from millrace.topics import Topic

TIMEOUT_S = 10.0
"""A transaction takes some 10 ms; the rest is for a broker under load."""

_FENCED = (KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH)


class FencedProducer:
    """Writes in transactions under one name.

    Two processes that both think that it is their turn (one was stopped and went on) can never both write. After a
    failure the producer is closed: what a broken connection left undecided has to be read from the topic.

    Parameters
    ----------
    worker, model_name
        Who writes: the worker's name, and the model that it writes about. Together they are the ``transactional.id``.
    """

    def __init__(self, kafka: KafkaSettings, worker: str, model_name: str) -> None:
        self._kafka = kafka
        self._name = f"millrace.{worker}.{model_name}"
        self._who = f"{worker} of model {model_name!r}"
        self._producer: Producer | None = None

    @property
    def is_open(self) -> bool:
        """Whether it may be the newest, as far as is known."""
        return self._producer is not None

    def open(self) -> None:
        """Become the newest. Raises InfrastructureError."""
        self.close()
        config = producer_config(self._kafka) | {
            "transactional.id": self._name,
            "transaction.timeout.ms": round(TIMEOUT_S * 1_000),
        }
        producer = Producer(config, logger=logs.kafka_logger())
        try:
            producer.init_transactions(TIMEOUT_S)
        except KafkaException as error:
            raise self._failed(error) from error
        self._producer = producer

    def write(self, records: Iterable[tuple[Topic, str, Message | None]]) -> None:
        """Write records (topic, key, value; None: a tombstone) all at once; when this returns, all replicas have them.

        Raises
        ------
        InfrastructureError
            They may or may not stand in the topics; the producer is closed.
        """
        if self._producer is None:
            raise InfrastructureError("kafka", f"the producer of {self._who} is closed")
        try:
            self._producer.begin_transaction()
            for topic, key, message in records:
                value, headers = (None, []) if message is None else encode(message)
                if message is not None:
                    headers += TRACES.made(topic.name, message)
                self._produce(self._producer, topic, key, value, headers)
            self._producer.commit_transaction(TIMEOUT_S)
        except KafkaException as error:
            self.close()
            raise self._failed(error) from error

    @staticmethod
    def _produce(producer: Producer, topic: Topic, key: str, value: bytes | None, headers: Headers) -> None:
        while True:
            try:
                producer.produce(topic.name, value, key.encode(), headers=[*headers])
                return
            except BufferError:
                # More records than the queue holds: the first ones are on their way.
                producer.poll(0.1)

    def close(self) -> None:
        """Let go; another one may write."""
        self._producer = None

    def _failed(self, error: KafkaException) -> InfrastructureError:
        reason: KafkaError = error.args[0]
        if reason.code() in _FENCED:
            return InfrastructureError("kafka", f"another {self._who} has taken over")
        return InfrastructureError(
            "kafka", f"{self._who} could not write to {self._kafka.bootstrap_servers} ({reason.str()})"
        )
