"""What the embedded stack writes for its servers, without starting any."""

from __future__ import annotations

import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from supervisor.options import ServerOptions

from deploy.embedded import redis
from deploy.embedded.kafka import Kafka
from deploy.embedded.member import clean_environment, log_tail
from deploy.embedded.ports import FREE_RANGE, free_port, is_free, preferred_or_free
from deploy.embedded.redis import Redis
from deploy.embedded.stack import Addresses
from deploy.embedded.supervision import Program, new_socket, render
from millrace.errors import MillraceError
from millrace.settings import KafkaSettings, MlflowSettings, RedisSettings
from millrace.topics import DLQ_MAX_BYTES
from tests.processes import PATIENCE_S

LINUX_FIRST_EPHEMERAL_PORT = 32_768


def test_a_free_port_is_free_and_out_of_the_way_of_outgoing_connections() -> None:
    port = free_port()
    assert is_free(port)
    assert FREE_RANGE.stop <= LINUX_FIRST_EPHEMERAL_PORT


def test_a_port_that_was_chosen_is_nobody_elses_before_a_server_listens_there() -> None:
    port = free_port()
    choose = f"from deploy.embedded import ports; ports.FREE_RANGE = range({port}, {port + 1}); ports.free_port()"
    other = subprocess.run(
        [sys.executable, "-c", choose], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert f"no free port on 127.0.0.1 in 200 tries between {port}" in other.stderr
    assert is_free(port)


def test_the_preferred_port_is_taken_only_while_it_is_free() -> None:
    wanted = free_port()
    assert preferred_or_free(wanted) == wanted
    assert preferred_or_free(wanted, taken=frozenset({wanted})) != wanted
    with socket.create_server(("127.0.0.1", wanted)):
        assert preferred_or_free(wanted) != wanted
    assert preferred_or_free(0) in FREE_RANGE


def test_kafka_is_its_own_controller_on_loopback_only(tmp_path: Path) -> None:
    properties = Kafka(tmp_path, port=21_000, controller_port=21_001, jars=()).properties()
    assert properties["listeners"] == "PLAINTEXT://127.0.0.1:21000,CONTROLLER://127.0.0.1:21001"
    assert properties["controller.quorum.voters"] == "1@127.0.0.1:21001"
    assert int(properties["message.max.bytes"]) > DLQ_MAX_BYTES


def test_what_three_brokers_acknowledge_is_on_two_of_them(tmp_path: Path) -> None:
    """Positions and transactions too: whoever coordinates them may die."""
    three = [Kafka(tmp_path, 21_000 + node, 0, (), node=node, quorum=(1, 2, 3)).properties() for node in (1, 2, 3)]
    assert [properties["node.id"] for properties in three] == ["1", "2", "3"]
    assert {properties["controller.quorum.voters"] for properties in three} == {
        "1@127.0.0.1:1,2@127.0.0.1:2,3@127.0.0.1:3"
    }
    for properties in three:
        assert properties["offsets.topic.replication.factor"] == "3"
        assert properties["transaction.state.log.replication.factor"] == "3"
        assert properties["transaction.state.log.min.isr"] == properties["min.insync.replicas"] == "2"


def test_a_dead_workers_partitions_move_within_fifteen_seconds(tmp_path: Path) -> None:
    properties = Kafka(tmp_path, port=21_000, controller_port=21_001, jars=()).properties()
    session_ms = int(properties["group.consumer.session.timeout.ms"])
    heartbeat_ms = int(properties["group.consumer.heartbeat.interval.ms"])
    # The survivor learns of its new partitions with its next heartbeat after the session of the dead one ended.
    assert session_ms + 2 * heartbeat_ms < 15_000
    assert int(properties["group.consumer.min.session.timeout.ms"]) <= session_ms
    assert int(properties["group.consumer.min.heartbeat.interval.ms"]) <= heartbeat_ms


def test_redis_from_the_package_is_taken_though_another_is_on_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "redis-server"
    installed.write_text("#!/bin/sh\n")
    installed.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert redis.executable("auto") == installed
    assert redis.executable("packaged") == redis.packaged_executable() != installed


def test_redis_loses_at_most_a_second_and_never_evicts(tmp_path: Path) -> None:
    configuration = Redis(tmp_path, 21_000).configuration()
    assert configuration["appendonly"] == "yes"
    assert configuration["appendfsync"] == "everysec"
    assert configuration["maxmemory-policy"] == "noeviction"


def test_an_older_redis_refuses_the_data_of_a_newer_one(tmp_path: Path) -> None:
    """It would start without them and say nothing."""
    (tmp_path / "appendonlydir").mkdir()
    assert redis.major_version(redis.executable("packaged")) < 7
    with pytest.raises(MillraceError, match="MILLRACE_STACK_REDIS"):
        Redis(tmp_path, 21_000, "packaged").prepare()


@pytest.mark.parametrize(("by", "refused"), [("4.4.0", True), ("", True), ("4.2.9", False), ("4.1.0", False)])
def test_an_older_kafka_refuses_the_data_of_a_newer_one(tmp_path: Path, by: str, refused: bool) -> None:
    """It would die of a stack trace. Storage that says nothing is from when 4.4.0 was the only one."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "meta.properties").touch()
    if by:
        (tmp_path / "data" / "formatted-by").write_text(by)
    kafka = Kafka(tmp_path, 21_000, 21_001, jars=(Path("kafka-clients-4.2.2.jar"), Path("kafka_2.13-4.2.2.jar")))
    if refused:
        with pytest.raises(MillraceError, match=r"MILLRACE_STACK_KAFKA_VERSION=4\.4\.0"):
            kafka.prepare()
    else:
        kafka.prepare()


def test_supervisord_reads_back_what_was_meant(tmp_path: Path) -> None:
    """Spaces, percent signs and quotes in paths and arguments arrive in the program as they were."""
    program = Program(
        "worker",
        ["python", "-c", "print('50 %')", str(tmp_path / "a b")],
        tmp_path,
        tmp_path / "100%.log",
        {"URL": "redis://h/0?x=%20", "HOME": str(tmp_path / "a b")},
    )
    configuration = tmp_path / "supervisord.conf"
    configuration.write_text(render([program], tmp_path, tmp_path / "s.sock"))

    options = ServerOptions()
    options.realize(["-c", str(configuration)])
    (group,) = options.process_group_configs
    (process,) = group.process_configs

    assert process.name == "worker"
    assert process.environment == program.environment
    assert process.stdout_logfile == str(program.log)
    assert process.directory == str(tmp_path)
    assert process.autorestart is not False
    assert shlex.split(process.command) == list(program.command)


def test_a_sockets_path_is_short_however_deep_the_folder_is(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    path = new_socket(deep)
    assert len(str(path)) <= 107 - 25, "supervisord binds a longer temporary name first"
    assert path == new_socket(deep)
    assert path != new_socket(tmp_path)
    assert path.parent.stat().st_mode & 0o077 == 0


def test_the_addresses_are_those_that_settings_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_HOME", str(tmp_path))
    addresses = Addresses("127.0.0.1:1", "redis://127.0.0.1:2/0", "http://127.0.0.1:3")
    lines = [f"{name}={value}\n" for name, value in addresses.environment().items()]
    (tmp_path / "stack.env").write_text("".join(lines))

    assert KafkaSettings().bootstrap_servers == addresses.kafka
    assert RedisSettings().url == addresses.redis
    assert MlflowSettings().tracking_uri == addresses.mlflow
    assert Addresses(redis="redis://x").environment() == {"REDIS_URL": "redis://x"}


def test_options_of_the_machines_java_do_not_reach_the_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Xmx1k")
    monkeypatch.setenv("KEPT", "yes")
    environment = clean_environment()
    assert "JAVA_TOOL_OPTIONS" not in environment
    assert environment["KEPT"] == "yes"


def test_the_end_of_a_log_is_its_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    assert log_tail(log) == "(no log)"
    log.write_text("".join(f"{number}\n" for number in range(100)))
    assert log_tail(log, lines=2) == "98\n99"
