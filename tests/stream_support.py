"""What tests of the runtime share: records in, the journal of the test worker, positions, health."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from confluent_kafka import Consumer, ConsumerGroupState, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka import Message as KafkaMessage
from confluent_kafka.admin import AdminClient

from millrace.settings import KafkaSettings, home
from millrace.stream import logs
from millrace.stream.clients import admin_config, consumer_config, producer_config
from millrace.stream.codec import encode
from millrace.topics import Topic
from millrace.v1.interaction_pb2 import Interaction, InteractionType
from tests.conftest import Child
from tests.processes import PATIENCE_S

COORDINATOR_STARTS = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
)

Place = tuple[str, int, int]
"""Topic, partition and offset."""
Raw = tuple[str, bytes | None, list[tuple[str, bytes]]]
"""Key, value and headers."""


def interaction(user: str, item: str = "item") -> Raw:
    value, headers = encode(
        Interaction(event_id=user + item, user_id=user, item_id=item, type=InteractionType.INTERACTION_TYPE_CLICK)
    )
    return user, value, headers


def headers_of(message: KafkaMessage) -> dict[str, bytes]:
    """A message's headers, whose values are bytes everywhere here."""
    return cast("dict[str, bytes]", dict(message.headers() or []))


def send(kafka: KafkaSettings, topic: Topic, records: Iterable[Raw], partition: int = -1) -> list[Place]:
    """Send records and answer where they stand, in the order in which they were sent."""
    producer = Producer(producer_config(kafka), logger=logs.kafka_logger())
    places: dict[int, Place] = {}

    def arrived(number: int, error: KafkaError | None, message: KafkaMessage) -> None:
        assert error is None, error
        offset, at = message.offset(), message.partition()
        assert offset is not None
        assert at is not None
        places[number] = topic.name, at, offset

    for number, (key, value, headers) in enumerate(records):
        producer.produce(
            topic.name,
            value,
            key,
            partition,
            headers=headers,  # type: ignore[arg-type]  # a list is invariant
            on_delivery=partial(arrived, number),
        )
    assert producer.flush(PATIENCE_S) == 0
    return [places[number] for number in sorted(places)]


def read_all(kafka: KafkaSettings, topic: str) -> list[KafkaMessage]:
    """Every message on a topic."""
    consumer = Consumer(consumer_config(kafka, "tests") | {"enable.partition.eof": True}, logger=logs.kafka_logger())
    try:
        numbers = consumer.list_topics(topic, timeout=PATIENCE_S).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, 0) for number in numbers])
        messages, ended = [], 0
        while ended < len(numbers):
            message = consumer.poll(PATIENCE_S)
            assert message is not None, "the broker is silent"
            if (error := message.error()) is None:
                messages.append(message)
            else:
                assert error.code() == KafkaError._PARTITION_EOF, error
                ended += 1
        return messages
    finally:
        consumer.close()


def committed(kafka: KafkaSettings, group: str, topic: Topic) -> dict[int, int]:
    """Committed positions of a group, of the partitions that have one."""
    consumer = Consumer(consumer_config(kafka, group), logger=logs.kafka_logger())
    try:
        asked = [TopicPartition(topic.name, number) for number in range(topic.partitions(kafka))]
        give_up = time.monotonic() + PATIENCE_S
        while True:
            try:
                return {
                    at.partition: at.offset for at in consumer.committed(asked, timeout=PATIENCE_S) if at.offset >= 0
                }
            except KafkaException as error:
                # A broker just started makes the topic of the group positions at the first question.
                if error.args[0].code() not in COORDINATOR_STARTS or time.monotonic() > give_up:
                    raise
                time.sleep(0.1)
    finally:
        consumer.close()


def settled_members(kafka: KafkaSettings, group: str) -> int:
    """How many members a group has; 0 while it shares its partitions out."""
    admin = AdminClient(admin_config(kafka), logger=logs.kafka_logger())
    (described,) = admin.describe_consumer_groups([group], request_timeout=PATIENCE_S).values()
    found = described.result()
    return len(found.members) if found.state is ConsumerGroupState.STABLE else 0


class Journal:
    """What test workers wrote."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self, what: str, pid: int | None = None) -> list[Mapping[str, Any]]:
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        entries = [json.loads(line) for line in lines]
        return [entry for entry in entries if entry["what"] == what and pid in (None, entry["pid"])]

    def records(self, pid: int | None = None) -> list[Place]:
        """Every record that a worker took, as often as it did."""
        return [(*record,) for entry in self.entries("batch", pid) for record in entry["records"]]

    def has(self, places: Sequence[Place], pid: int | None = None) -> bool:
        return set(places) <= set(self.records(pid))

    def partitions(self, pid: int) -> set[tuple[str, int]]:
        """What the process has now."""
        owned: set[tuple[str, int]] = set()
        for line in self.path.read_text().splitlines() if self.path.exists() else []:
            entry = json.loads(line)
            if entry["pid"] == pid and entry["what"] in ("restore", "revoke"):
                named = {(topic, number) for topic, number in entry["partitions"]}
                owned = owned | named if entry["what"] == "restore" else owned - named
        return owned


def get(child: Child, name: str, path: str) -> tuple[int, str]:
    """Status and body of a path of the process's health server."""
    file = home() / "run" / f"{name}-{child.pid}.json"
    child.until(file.exists)
    address = json.loads(file.read_text())["metrics"]
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=PATIENCE_S) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def ready(child: Child, name: str) -> bool:
    return get(child, name, "/readyz")[0] == 200
