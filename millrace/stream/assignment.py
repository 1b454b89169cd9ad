"""How a process comes to its partitions: as a member of a group, or as the elected leader of its worker.

Newly gained partitions are paused; the runtime seeks and resumes them when the worker is ready. All callbacks
come from inside :meth:`Membership.poll` and the consumer's own ``poll``, in the thread that calls these.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from millrace.errors import InfrastructureError, MillraceError
from millrace.settings import KafkaSettings, StreamSettings
from millrace.stream import logs
from millrace.stream.clients import Config, consumer_config, memory_bound
from millrace.stream.worker import Assignment, Partition
from millrace.topics import MODEL_EVENTS, Topic

log = structlog.stdlib.get_logger(__name__)

# The least that a broker allows by default: a dead member's partitions move after this long. librdkafka sends
# heartbeats from a thread of its own, so a busy worker does not miss them. (With KIP-848 the broker decides.)
_CLASSIC_SESSION_TIMEOUT_MS = 6_000
_CLASSIC_HEARTBEAT_MS = 2_000
# How long to wait for the broker to name a topic's partitions, and how soon to ask again.
_ASK_TIMEOUT_S = 2.0
_ASK_AGAIN_S = 0.5
# Where a partition stands until the runtime seeks, which is before it reads. Not a position that has to be looked up:
# librdkafka refuses to seek while it asks for the committed one, and goes back to the beginning after a seek when the
# answer about where that is comes late.
_NO_LOOKUP = 0


class Owner(Protocol):
    """Who is told about partitions."""

    def gained(self, partitions: Sequence[Partition]) -> None:
        """They belong to this process, paused."""

    def released(self, partitions: Sequence[Partition]) -> None:
        """They are about to be handed over: the last moment to commit."""

    def lost(self, partitions: Sequence[Partition]) -> None:
        """Somebody else may have them already: nothing may be committed."""


class Membership(Protocol):
    """This process among the processes of its worker."""

    @property
    def role(self) -> str:
        """For people: what this process is among the others."""

    @property
    def standing_by(self) -> bool:
        """Whether owning nothing is as it should be."""

    def start(self) -> None:
        """Join; partitions come later."""

    def poll(self) -> None:
        """Take what happened in the group."""

    def close(self) -> None:
        """Leave the group, which hands the partitions over at once."""


def group_protocol(kafka: KafkaSettings, assignment: Assignment) -> Config:
    """Settings of a consumer that joins a group. The reasons stand in docs/decisions/0004-group-protocol.md."""
    if kafka.group_protocol == "consumer":
        config: Config = {"group.protocol": "consumer"}
        if assignment is Assignment.CO_PARTITIONED:
            config["group.remote.assignor"] = "range"
        return config
    return {
        "group.protocol": "classic",
        # Range gives the same numbers of all topics to one member, and is eager: cooperative-sticky has open bugs
        # with commits by hand.
        "partition.assignment.strategy": "range",
        "session.timeout.ms": _CLASSIC_SESSION_TIMEOUT_MS,
        "heartbeat.interval.ms": _CLASSIC_HEARTBEAT_MS,
    }


def client_name(worker: str) -> Config:
    """The name under which the broker knows this process, so that `millrace lag` can say which one has a partition."""
    return {"client.id": f"{worker}@{socket.gethostname()}-{os.getpid()}"}


def make_consumer(
    kafka: KafkaSettings,
    stream: StreamSettings,
    worker: str,
    assignment: Assignment,
    on_commit: Callable[[KafkaError | None, list[TopicPartition]], None],
    on_stats: Callable[[str], None],
) -> Consumer:
    """The consumer that reads the worker's topics; its poll calls back about commits and, once a second, statistics."""
    # A leader assigns by hand and commits as nobody's member, which is a matter of the classic protocol.
    protocol: Config = {} if assignment is Assignment.SINGLE else group_protocol(kafka, assignment)
    config = {
        **consumer_config(kafka, worker),
        **client_name(worker),
        **protocol,
        **memory_bound(stream),
        "enable.partition.eof": True,
        "fetch.wait.max.ms": stream.fetch_wait_ms,
        "on_commit": on_commit,
        "statistics.interval.ms": 1_000,
        "stats_cb": on_stats,
    }
    return Consumer(config, logger=logs.kafka_logger())


class GroupMembership:
    """Partitions are shared out by the broker (shared and co-partitioned workers)."""

    role = "member"
    standing_by = False

    def __init__(self, consumer: Consumer, kafka: KafkaSettings, topics: Sequence[Topic], owner: Owner) -> None:
        self._consumer = consumer
        self._kafka = kafka
        self._topics = [topic.name for topic in topics]
        self._owner = owner

    def start(self) -> None:
        """Join the group."""
        self._consumer.subscribe(
            self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def poll(self) -> None:
        """Nothing to do: the consumer's own poll calls back."""

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        assign_paused(consumer, self._kafka, partitions)
        self._owner.gained(_names(partitions))

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        del consumer
        self._owner.released(_names(partitions))

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        del consumer
        self._owner.lost(_names(partitions))


class LeaderMembership:
    """One process has all partitions, the others stand by (single workers).

    The leader is whoever the group ``<worker>.leader`` gives the one partition of ``model-events`` to; that
    topic is there in every installation, and its records are not read here.
    """

    def __init__(
        self, consumer: Consumer, kafka: KafkaSettings, worker: str, topics: Sequence[Topic], owner: Owner
    ) -> None:
        self._consumer = consumer
        self._kafka = kafka
        self._topics = [topic.name for topic in topics]
        self._owner = owner
        self._leads = False
        self._ask_at = 0.0
        self._owned: list[TopicPartition] = []
        self._election = Consumer(
            consumer_config(kafka, f"{worker}.leader") | client_name(worker) | group_protocol(kafka, Assignment.SINGLE),
            logger=logs.kafka_logger(),
        )

    @property
    def role(self) -> str:
        """Leader or stand-by."""
        return "leader" if self._leads else "stand-by"

    @property
    def standing_by(self) -> bool:
        """Whether somebody else leads."""
        return not self._leads

    def start(self) -> None:
        """Stand for election."""
        self._election.subscribe(
            [MODEL_EVENTS.name], on_assign=self._on_elected, on_revoke=self._on_released, on_lost=self._on_lost
        )

    def poll(self) -> None:
        """Take the result of elections; a new leader takes all partitions."""
        message = self._election.poll(0)
        if message is not None and (error := message.error()) is not None:
            raise_if_fatal(error)
            log.warning("kafka", group="leader", problem=error.str())
        if self._leads and not self._owned and time.monotonic() >= self._ask_at:
            self._ask_at = time.monotonic() + _ASK_AGAIN_S
            try:
                self._take_all()
            except (InfrastructureError, KafkaException) as error:
                log.warning("leader waits for its partitions", problem=str(error))

    def close(self) -> None:
        """Let the next one lead."""
        self._election.close()
        self._consumer.close()

    def _take_all(self) -> None:
        known = self._consumer.list_topics(timeout=_ASK_TIMEOUT_S).topics
        missing = [name for name in self._topics if name not in known or known[name].error]
        if missing:
            raise InfrastructureError("kafka", f"no {', '.join(missing)} yet; run millrace topics apply")
        self._owned = [
            TopicPartition(name, number, _NO_LOOKUP) for name in self._topics for number in known[name].partitions
        ]
        self._consumer.assign(self._owned)
        self._consumer.pause(self._owned)
        self._owner.gained(_names(self._owned))

    def _on_elected(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if partitions:
            assign_paused(consumer, self._kafka, partitions)
            self._leads = True
            log.info("leads")

    def _on_released(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        del consumer, partitions
        self._step_down(self._owner.released)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        del consumer, partitions
        self._step_down(self._owner.lost)

    def _step_down(self, tell: Callable[[Sequence[Partition]], None]) -> None:
        if self._leads:
            self._leads = False
            log.info("leads no more")
        if self._owned:
            tell(_names(self._owned))
            self._consumer.unassign()
            self._owned = []


def assign_paused(consumer: Consumer, kafka: KafkaSettings, partitions: Sequence[TopicPartition]) -> None:
    """Take partitions in a rebalance without reading: the runtime seeks and resumes them when the worker is ready."""
    assigned = [TopicPartition(at.topic, at.partition, _NO_LOOKUP) for at in partitions]
    if kafka.group_protocol == "consumer":
        consumer.incremental_assign(assigned)
    else:
        consumer.assign(assigned)
    consumer.pause(assigned)


def raise_if_fatal(error: KafkaError) -> None:
    """Stop the process at an error after which librdkafka's client does nothing any more."""
    if error.fatal() or error.code() == KafkaError._FATAL:
        raise MillraceError(f"kafka: {error.str()}; brokers older than Kafka 4.0 need KAFKA_GROUP_PROTOCOL=classic")


def _names(partitions: Sequence[TopicPartition]) -> list[Partition]:
    return [(at.topic, at.partition) for at in partitions]


def membership(
    consumer: Consumer,
    kafka: KafkaSettings,
    worker: str,
    topics: Sequence[Topic],
    assignment: Assignment,
    owner: Owner,
) -> Membership:
    """The kind of membership that the worker's assignment asks for."""
    if assignment is Assignment.SINGLE:
        return LeaderMembership(consumer, kafka, worker, topics, owner)
    return GroupMembership(consumer, kafka, topics, owner)
