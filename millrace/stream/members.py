"""Who works: the members of a group, as the broker knows them."""

from __future__ import annotations

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from millrace.errors import InfrastructureError
from millrace.settings import KafkaSettings
from millrace.stream.admin import TIMEOUT_S
from millrace.stream.clients import admin_config
from millrace.stream.logs import kafka_logger


def is_led(kafka: KafkaSettings, worker: str) -> bool:
    """Whether a process of a worker that one leads is there; a dead one counts until its session ends.

    Raises
    ------
    InfrastructureError
        The broker does not answer.
    """
    group = f"{worker}.leader"
    admin = AdminClient(admin_config(kafka), logger=kafka_logger())
    try:
        described = admin.describe_consumer_groups([group], request_timeout=TIMEOUT_S)
        return bool(described[group].result().members)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
            return False
        raise InfrastructureError("kafka", f"{kafka.bootstrap_servers}: {error.args[0].str()}") from error
