"""A broker that gives up on the dead soon: tests here kill many processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from deploy.embedded.kafka import Kafka
from deploy.embedded.member import running
from deploy.embedded.ports import free_port
from millrace.settings import KafkaSettings
from millrace.stream.admin import apply_topics


class ImpatientKafka(Kafka):
    """Partitions of a dead worker move after a second, its transaction ends as soon as its time is over."""

    def properties(self) -> Mapping[str, str]:
        return {
            **super().properties(),
            "group.consumer.session.timeout.ms": "1000",
            "group.consumer.heartbeat.interval.ms": "200",
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": "100",
        }


@contextmanager
def impatient_kafka(folder: Path, jars: tuple[Path, ...], partitions: int = 3) -> Iterator[KafkaSettings]:
    """Such a broker, with every topic made."""
    port = free_port()
    with running(ImpatientKafka(folder, port, free_port(taken=frozenset({port})), jars)):
        kafka = KafkaSettings(bootstrap_servers=f"127.0.0.1:{port}", partitions=partitions)
        apply_topics(kafka)
        yield kafka
