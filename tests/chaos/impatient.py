"""A broker that gives up on the dead soon: tests here kill many processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.embedded.kafka import Kafka
from deploy.embedded.member import running
from deploy.embedded.ports import free_port
from millrace.settings import KafkaSettings
from millrace.stream.admin import apply_topics


@dataclass(frozen=True, slots=True)
class ImpatientKafka(Kafka):
    """Partitions of a dead worker move after its session, its transaction ends as soon as its time is over."""

    session_ms: int = 1_000

    def properties(self) -> Mapping[str, str]:
        # Of the class by name: a dataclass with slots is another class than the one that super() alone would mean.
        return {
            **Kafka.properties(self),
            "group.consumer.session.timeout.ms": str(self.session_ms),
            "group.consumer.heartbeat.interval.ms": "200",
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": "100",
        }


@contextmanager
def impatient_kafka(
    folder: Path, jars: tuple[Path, ...], partitions: int = 3, session_ms: int = 1_000
) -> Iterator[KafkaSettings]:
    """Such a broker, with every topic made."""
    port = free_port()
    controller_port = free_port(taken=frozenset({port}))
    with running(ImpatientKafka(folder, port, controller_port, jars, session_ms=session_ms)):
        kafka = KafkaSettings(bootstrap_servers=f"127.0.0.1:{port}", partitions=partitions)
        apply_topics(kafka)
        yield kafka
