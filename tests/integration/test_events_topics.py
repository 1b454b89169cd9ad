"""Topics on a real broker: made once, corrected where they drifted, never repartitioned."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # re-exported without saying so
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from millrace.errors import InfrastructureError, MillraceError
from millrace.settings import KafkaSettings
from millrace.stream import admin
from millrace.stream.admin import apply_topics, describe_topics, topic_ids
from millrace.stream.clients import admin_config
from millrace.topics import ALL, DLQ_MAX_BYTES, INTERACTIONS, ITEM_STATE
from tests.processes import in_time


def test_topics_are_made_corrected_and_left_alone(kafka_settings: KafkaSettings) -> None:
    with pytest.raises(InfrastructureError, match="millrace topics apply"):
        topic_ids(kafka_settings, [INTERACTIONS.name])
    assert {info.partitions for info in describe_topics(kafka_settings)} == {0}

    names = [name for topic in ALL for name in ((topic.name, topic.dlq) if topic.dead_letters else (topic.name,))]
    with ThreadPoolExecutor(2) as pool:  # two processes that apply at the same time get in nobody's way
        both = list(pool.map(lambda _: apply_topics(kafka_settings), range(2)))
    assert [[topic.name for topic in applied] for applied in both] == [names, names]

    infos = {info.name: info for info in describe_topics(kafka_settings)}
    for topic in ALL:
        info = infos[topic.name]
        assert info.partitions == topic.partitions(kafka_settings)
        assert (info.cleanup, info.retention_ms, info.records) == (topic.cleanup, topic.retention_ms, 0)
        assert len(info.topic_id) == 22
    assert infos[INTERACTIONS.dlq].partitions == 1

    client = AdminClient(admin_config(kafka_settings))
    resource = ConfigResource(ResourceType.TOPIC, INTERACTIONS.dlq)
    (config,) = client.describe_configs([resource]).values()
    entries = config.result()
    assert entries["max.message.bytes"].value == str(DLQ_MAX_BYTES)
    assert entries["message.timestamp.type"].value == "LogAppendTime"

    drift = ConfigResource(
        ResourceType.TOPIC,
        INTERACTIONS.name,
        incremental_configs=[ConfigEntry("retention.ms", "1000", incremental_operation=AlterConfigOpType.SET)],
    )
    for future in client.incremental_alter_configs([drift]).values():
        future.result()

    def retention() -> str | None:
        """As the broker tells it, which hears of a change a moment after the controller has answered."""
        resource = ConfigResource(ResourceType.TOPIC, INTERACTIONS.name)
        (config,) = client.describe_configs([resource]).values()
        told: str | None = config.result()["retention.ms"].value
        return told

    in_time(lambda: retention() == "1000")
    applied = {topic.name: topic for topic in apply_topics(kafka_settings)}
    assert applied[INTERACTIONS.name].changes == (f"retention.ms={INTERACTIONS.retention_ms}",)
    assert applied[INTERACTIONS.name].action == "changed"
    assert {topic.action for name, topic in applied.items() if name != INTERACTIONS.name} == {"unchanged"}

    in_time(lambda: retention() == str(INTERACTIONS.retention_ms))
    before = topic_ids(kafka_settings, names)
    assert {topic.action for topic in apply_topics(kafka_settings)} == {"unchanged"}
    assert topic_ids(kafka_settings, names) == before == {name: infos[name].topic_id for name in names}


def test_another_number_of_partitions_is_refused_whole(topics_applied: KafkaSettings) -> None:
    other = topics_applied.model_copy(update={"partitions": 4})
    with pytest.raises(MillraceError, match=r"interactions has 3 and should have 4.*KAFKA_PARTITIONS=3, or migrate"):
        apply_topics(other)
    assert {topic.action for topic in apply_topics(topics_applied)} == {"unchanged"}
    assert {i.partitions for i in describe_topics(topics_applied) if i.name == ITEM_STATE.name} == {3}


def test_an_absent_broker_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "TIMEOUT_S", 0.5)
    with pytest.raises(InfrastructureError, match=r"kafka: no answer from 127\.0\.0\.1:1 .*millrace stack up"):
        apply_topics(KafkaSettings(bootstrap_servers="127.0.0.1:1"))
