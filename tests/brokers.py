"""Where tests take their Kafka from: a broker that is named, a container, or the embedded stack.

The first that applies:

1. ``KAFKA_BOOTSTRAP_SERVERS``, for a team's own test broker. Millrace's topics must not exist there: tests make and
   delete them, and somebody's events are not ours to delete.
2. A container, where a Docker engine answers. There is none where we build: this path is the compose file's image
   and settings, but has not been run by us.
3. The embedded stack: no Docker, no Java. What CI runs.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from deploy.embedded.kafka import PROPERTIES, STORAGE, Kafka
from deploy.embedded.member import running
from deploy.embedded.ports import free_port
from millrace import topics

IMAGE = "apache/kafka:4.2.2"
OUR_TOPICS = frozenset(name for topic in topics.ALL for name in (topic.name, topic.dlq))


@cache
def docker_answers() -> bool:
    """Whether a Docker engine is there: one that DOCKER_HOST names, or one that listens on the usual socket."""
    if "DOCKER_HOST" in os.environ:
        return True
    with socket.socket(socket.AF_UNIX) as engine:
        return engine.connect_ex("/var/run/docker.sock") == 0


def formatted(folder: Path, jars: Sequence[Path]) -> Path:
    """Formatted storage of a broker that never ran."""
    port = free_port()
    Kafka(folder, port, free_port(taken=frozenset({port})), jars).prepare()
    return folder / STORAGE


@contextmanager
def broker(given: str, folder: Path, jars: Sequence[Path], storage: Path) -> Iterator[str]:
    """The address of a broker without any of our topics, for the length of a ``with`` block.

    ``storage``: what :func:`formatted` gave; it is copied.
    """
    if given:
        with _named(given):
            yield given
    elif docker_answers():
        with _container() as address:
            yield address
    else:
        port = free_port()
        member = Kafka(folder, port, controller_port=free_port(taken=frozenset({port})), jars=jars)
        shutil.copytree(storage, folder / STORAGE)
        with running(member):
            yield member.address


@contextmanager
def _named(address: str) -> Iterator[None]:
    admin = AdminClient({"bootstrap.servers": address})
    if found := _ours(admin):
        pytest.exit(f"KAFKA_BOOTSTRAP_SERVERS={address} holds {', '.join(found)}: name a broker for tests only", 2)
    yield
    for deleted in admin.delete_topics(_ours(admin)).values() if _ours(admin) else ():
        deleted.result(timeout=30)
    deadline = time.monotonic() + 30
    while left := _ours(admin):
        # Deletion is done by the controller after it was accepted; nothing announces its end.
        if time.monotonic() > deadline:
            pytest.exit(f"{address} did not delete {', '.join(left)}", 2)
        time.sleep(0.1)


def _ours(admin: AdminClient) -> list[str]:
    return sorted(OUR_TOPICS & admin.list_topics(timeout=10).topics.keys())


@contextmanager
def _container() -> Iterator[str]:
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import LogMessageWaitStrategy

    port = free_port()
    properties = PROPERTIES | {
        "controller.quorum.voters": "1@localhost:9093",
        "listeners": "PLAINTEXT://:9092,CONTROLLER://:9093",
        "advertised.listeners": f"PLAINTEXT://localhost:{port}",
    }
    container = DockerContainer(IMAGE).with_bind_ports(9092, port)
    for name, value in properties.items():
        container.with_env("KAFKA_" + name.upper().replace(".", "_"), value)
    with container.waiting_for(LogMessageWaitStrategy("Kafka Server started")):
        yield f"localhost:{port}"
