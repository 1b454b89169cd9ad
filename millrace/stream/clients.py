"""How every process talks to Kafka: configurations for confluent-kafka's clients.

Each function returns a fresh dict for ``confluent_kafka`` (librdkafka's property names); pass it with
``logger=logs.kafka_logger()`` so that librdkafka's own lines come through our log. Callers may add to it.
"""

from __future__ import annotations

from typing import Any

from millrace.settings import KafkaSettings, StreamSettings
from millrace.topics import DLQ_MAX_BYTES

Config = dict[str, Any]

# A record on the wire is its value, key, headers and some framing; 64 KiB covers the largest of these (ids are
# at most 256 bytes, a dead letter's reason at most a few KiB).
_FRAMING_BYTES = 64 * 1024


# librdkafka's default of fetch.max.bytes; larger ones need a larger receive.message.max.bytes too.
_FETCH_DEFAULT_BYTES = 52_428_800


def _common(kafka: KafkaSettings) -> Config:
    config: Config = {
        "bootstrap.servers": kafka.bootstrap_servers,
        "security.protocol": kafka.security_protocol,
        "socket.keepalive.enable": True,
        "socket.nagle.disable": True,
        # A broker that restarts is found again within a second, one that stays away is asked every five.
        "reconnect.backoff.ms": 100,
        "reconnect.backoff.max.ms": 5_000,
        # Brokers close idle connections as a matter of course; that is no news.
        "log.connection.close": False,
    }
    if kafka.sasl_mechanism:
        config["sasl.mechanism"] = kafka.sasl_mechanism
        config["sasl.username"] = kafka.sasl_username
        config["sasl.password"] = kafka.sasl_password.get_secret_value()
    if kafka.ssl_ca_location:
        config["ssl.ca.location"] = kafka.ssl_ca_location
    return config


def producer_config(kafka: KafkaSettings) -> Config:
    """An idempotent producer that waits for all replicas and partitions as Java clients do."""
    return _common(kafka) | {
        "acks": "all",
        "enable.idempotence": True,
        # librdkafka's own default differs from Java's; with one partitioner everywhere, a user's records meet
        # in one partition number of every topic that is keyed by user.
        "partitioner": "murmur2_random",
        "compression.type": "lz4",
        "linger.ms": 5,
        "message.max.bytes": DLQ_MAX_BYTES + _FRAMING_BYTES,
    }


def consumer_config(kafka: KafkaSettings, group: str) -> Config:
    """A consumer that never commits by itself and starts at the beginning where nothing is committed.

    Parameters
    ----------
    group
        Consumer group; also needed where partitions are assigned by hand (librdkafka insists on one).
    """
    return _common(kafka) | {
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
        "allow.auto.create.topics": False,
        # Topics that are made after the consumer was started are found within ten seconds (default: 5 min).
        "topic.metadata.refresh.interval.ms": 10_000,
        # After a full local queue, look again soon: the default of 1 s is a second without input.
        "fetch.queue.backoff.ms": 50,
        # Partitions of a broker that restarts are fetched again soon after it is back.
        "fetch.error.backoff.ms": 100,
    }


def memory_bound(stream: StreamSettings) -> Config:
    """What bounds the data that a consumer keeps ahead of its reader: the queue, and one answer on its way."""
    queued = stream.queued_max_kib * 1024
    return {
        "queued.max.messages.kbytes": stream.queued_max_kib,
        # The default, 50 MiB, may be more than the whole queue.
        "fetch.max.bytes": min(queued, _FETCH_DEFAULT_BYTES),
    }


def admin_config(kafka: KafkaSettings) -> Config:
    """A client for topics, groups and offsets."""
    return _common(kafka)
