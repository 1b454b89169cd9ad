"""Makes the broker's topics what ``millrace.topics`` says, and tells what they are.

Partition counts are fixed when a topic is made: with another count a user's records would come to another
partition, past the positions that guard their features. Everything else is corrected where it drifted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # re-exported without saying so
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from millrace.errors import InfrastructureError, MillraceError
from millrace.settings import KafkaSettings
from millrace.stream.clients import admin_config
from millrace.stream.logs import kafka_logger
from millrace.stream.wanted import WantedTopic, wanted_topics

TIMEOUT_S = 6.0
"""Longest wait for one answer of the broker: an answer takes milliseconds, the election of a controller seconds."""
SETTLING_PAUSE_S = 0.02
"""A new topic is known everywhere some tens of milliseconds after it was made."""
_SETTLING = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        # The metadata told of a leader that has not heard of it itself.
        KafkaError.UNKNOWN_LEADER_EPOCH,
    }
)
"""What brokers answer for a topic that was just made, or whose leader just changed."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AppliedTopic:
    """What ``apply_topics`` did with a topic; ``changes`` are the settings that had drifted, ``name=value``."""

    name: str
    action: Literal["made", "changed", "unchanged"]
    changes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A declared topic as it stands on the broker.

    Attributes
    ----------
    partitions
        How many there are; 0 if the topic is not made yet.
    records
        Offsets between the beginning and the end: an upper bound, because compaction and transactions leave gaps.
    """

    name: str
    topic_id: str
    partitions: int
    cleanup: str
    retention_ms: int
    records: int
    key: str


def apply_topics(kafka: KafkaSettings) -> list[AppliedTopic]:
    """Make the topics that are missing and correct the settings of the others; harmless when repeated.

    Returns when every partition has a leader.

    Raises
    ------
    MillraceError
        A topic has another number of partitions than the settings say; nothing was changed then.
    InfrastructureError
        The broker does not answer.
    """
    wanted = wanted_topics(kafka)
    admin = _admin(kafka)
    standing = _partitions(admin, kafka)
    _refuse_other_counts(wanted, standing, kafka)
    missing = [topic for topic in wanted if topic.name not in standing]
    drifted = _correct(admin, kafka, [topic for topic in wanted if topic.name in standing])
    _make(admin, kafka, missing)
    made = {topic.name for topic in missing}
    return [
        AppliedTopic(topic.name, "made")
        if topic.name in made
        else AppliedTopic(topic.name, "changed" if drifted[topic.name] else "unchanged", drifted[topic.name])
        for topic in wanted
    ]


def describe_topics(kafka: KafkaSettings) -> list[TopicInfo]:
    """Every declared topic with its dead-letter topic, in the order of their declaration."""
    wanted = wanted_topics(kafka)
    admin = _admin(kafka)
    standing = _partitions(admin, kafka)
    names = [topic.name for topic in wanted if topic.name in standing]
    ids = _ids(admin, kafka, names)
    configs = _configs(admin, kafka, names)
    records = _records(admin, kafka, {name: standing[name] for name in names})
    return [
        TopicInfo(
            topic.name,
            ids.get(topic.name, ""),
            standing.get(topic.name, 0),
            configs.get(topic.name, topic.config)["cleanup.policy"],
            int(configs.get(topic.name, topic.config)["retention.ms"]),
            records.get(topic.name, 0),
            topic.key,
        )
        for topic in wanted
    ]


def topic_ids(kafka: KafkaSettings, names: Iterable[str]) -> dict[str, str]:
    """The broker's id (base64 UUID) of each topic.

    Raises
    ------
    InfrastructureError
        The broker does not answer, or a topic is not made yet.
    """
    return _ids(_admin(kafka), kafka, list(names))


def partition_counts(kafka: KafkaSettings, names: Sequence[str]) -> dict[str, int]:
    """Number of partitions of each topic.

    Raises
    ------
    InfrastructureError
        The broker does not answer, or a topic is not made yet.
    """
    standing = _partitions(_admin(kafka), kafka)
    for name in names:
        if name not in standing:
            raise _unknown(kafka, name)
    return {name: standing[name] for name in names}


def _refuse_other_counts(wanted: Sequence[WantedTopic], standing: Mapping[str, int], kafka: KafkaSettings) -> None:
    other = [topic for topic in wanted if standing.get(topic.name, topic.partitions) != topic.partitions]
    if not other:
        return
    found = ", ".join(f"{topic.name} has {standing[topic.name]} and should have {topic.partitions}" for topic in other)
    spread = next((standing[topic.name] for topic in other if topic.partitions == kafka.partitions), None)
    keep = f"Keep the topics with KAFKA_PARTITIONS={spread}, or migrate" if spread else "Migrate"
    raise MillraceError(
        f"partitions cannot be changed, because records of a key would then stand in two of them: {found}. "
        f"{keep}: stop the producers, wait until the workers have no lag, stop the workers, delete these topics, "
        "run `millrace topics apply`, start the workers, which say how to accept the new topics, and publish the "
        "catalogue again."
    )


def _make(admin: AdminClient, kafka: KafkaSettings, topics: Sequence[WantedTopic]) -> None:
    if not topics:
        return
    made = _asked(
        kafka,
        lambda: admin.create_topics(
            [
                NewTopic(
                    topic.name,
                    num_partitions=topic.partitions,
                    replication_factor=kafka.replication_factor,
                    config=dict(topic.config),
                )
                for topic in topics
            ],
            request_timeout=TIMEOUT_S,
        ),
    )
    for name, future in made.items():
        try:
            future.result()
        except KafkaException as error:
            # Two processes may apply at the same time; the other one made the same.
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise InfrastructureError(
                    "kafka", f"topic {name} could not be made on {kafka.bootstrap_servers}: {error.args[0].str()}"
                ) from error
    # The controller has the topics now, brokers learn of them a moment later, and there is no event to wait for.
    give_up = time.monotonic() + TIMEOUT_S
    missing = {topic.name for topic in topics}
    while missing := {name for name in missing if name not in _partitions(admin, kafka)}:
        if time.monotonic() > give_up:
            raise InfrastructureError("kafka", f"no leader yet for {', '.join(sorted(missing))}")
        time.sleep(SETTLING_PAUSE_S)


def _correct(admin: AdminClient, kafka: KafkaSettings, topics: Sequence[WantedTopic]) -> dict[str, tuple[str, ...]]:
    """Set what drifted, and only that. Returns the changes of each topic."""
    actual = _configs(admin, kafka, [topic.name for topic in topics])
    drifted = {
        topic.name: {name: value for name, value in topic.config.items() if actual[topic.name].get(name) != value}
        for topic in topics
    }
    changes = [
        ConfigResource(
            ResourceType.TOPIC,
            topic,
            incremental_configs=[
                ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in config.items()
            ],
        )
        for topic, config in drifted.items()
        if config
    ]
    if changes:
        _results(kafka, lambda: admin.incremental_alter_configs(changes, request_timeout=TIMEOUT_S))
    return {topic: tuple(f"{name}={value}" for name, value in config.items()) for topic, config in drifted.items()}


def _partitions(admin: AdminClient, kafka: KafkaSettings) -> dict[str, int]:
    """Number of partitions of each topic whose partitions all have a leader."""
    metadata = _asked(kafka, lambda: admin.list_topics(timeout=TIMEOUT_S))
    return {
        name: len(topic.partitions)
        for name, topic in metadata.topics.items()
        if topic.partitions and all(partition.leader >= 0 for partition in topic.partitions.values())
    }


def _ids(admin: AdminClient, kafka: KafkaSettings, names: Sequence[str]) -> dict[str, str]:
    if not names:
        return {}
    described = _asked(kafka, lambda: admin.describe_topics(TopicCollection(list(names)), request_timeout=TIMEOUT_S))
    ids = {}
    for name, future in described.items():
        try:
            ids[name] = str(future.result().topic_id)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise _unknown(kafka, name) from error
            raise _absent(kafka, error) from error
    return ids


def _configs(admin: AdminClient, kafka: KafkaSettings, names: Sequence[str]) -> dict[str, dict[str, str]]:
    if not names:
        return {}
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    described = _results(kafka, lambda: admin.describe_configs(resources, request_timeout=TIMEOUT_S))
    return {
        resource.name: {name: entry.value for name, entry in entries.items()} for resource, entries in described.items()
    }


def _records(admin: AdminClient, kafka: KafkaSettings, partitions: Mapping[str, int]) -> dict[str, int]:
    places = [TopicPartition(name, number) for name, count in partitions.items() for number in range(count)]
    if not places:
        return {}

    def offsets(spec: OffsetSpec) -> dict[TopicPartition, Any]:
        return _results(kafka, lambda: admin.list_offsets(dict.fromkeys(places, spec), request_timeout=TIMEOUT_S))

    first, end = offsets(OffsetSpec.earliest()), offsets(OffsetSpec.latest())  # type: ignore[no-untyped-call]
    records = dict.fromkeys(partitions, 0)
    for place in places:
        records[place.topic] += end[place].offset - first[place].offset
    return records


def _admin(kafka: KafkaSettings) -> AdminClient:
    return AdminClient(admin_config(kafka), logger=kafka_logger())


def _results(kafka: KafkaSettings, ask: Callable[[], Mapping[Any, Future[Any]]]) -> dict[Any, Any]:
    """The answers of a request about topics that stand; asked again while the broker does not know its part yet."""
    give_up = time.monotonic() + TIMEOUT_S
    while True:
        try:
            return {key: future.result() for key, future in ask().items()}
        except KafkaException as error:
            if error.args[0].code() not in _SETTLING or time.monotonic() > give_up:
                raise _absent(kafka, error) from error
            time.sleep(SETTLING_PAUSE_S)


def _asked(kafka: KafkaSettings, ask: Callable[[], T]) -> T:
    try:
        return ask()
    except KafkaException as error:
        raise _absent(kafka, error) from error


def _unknown(kafka: KafkaSettings, name: str) -> InfrastructureError:
    return InfrastructureError(
        "kafka", f"no topic {name} on {kafka.bootstrap_servers}: `millrace topics apply` makes it"
    )


def _absent(kafka: KafkaSettings, error: KafkaException) -> InfrastructureError:
    reason = error.args[0].str()
    return InfrastructureError(
        "kafka",
        f"no answer from {kafka.bootstrap_servers} ({reason}); is it running? `millrace stack up` starts one here",
    )
