"""Who reads what: shared, co-partitioned and single workers, with both group protocols, through kill -9."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from deploy.embedded.jars import classpath
from deploy.embedded.kafka import Kafka
from deploy.embedded.member import running
from deploy.embedded.ports import free_port
from millrace.settings import KafkaSettings, StackSettings
from millrace.stream.admin import apply_topics
from millrace.topics import INTERACTIONS
from tests.conftest import Child, StartProcess
from tests.stream_support import Journal, committed, get, interaction, ready, send, settled_members

NUMBERS = {0, 1, 2}
# As long as the session of a member that sleeps, for which the test waits anyway.
MARGIN_MS = 6_000


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal")


@pytest.fixture(params=["consumer", "classic"])
def env(request: pytest.FixtureRequest, kafka_env: Mapping[str, str], topics_applied: KafkaSettings) -> dict[str, str]:
    return dict(kafka_env) | {"KAFKA_GROUP_PROTOCOL": request.param}


@pytest.fixture
def name(env: Mapping[str, str], request: pytest.FixtureRequest) -> str:
    """A group of its own for each test."""
    return f"{request.node.originalname[5:30].replace('_', '-')}-{env['KAFKA_GROUP_PROTOCOL']}"


def both_own(journal: Journal, members: list[Child], partitions: set[tuple[str, int]]) -> bool:
    """Whether each partition has one owner, and each member owns some."""
    owned = [journal.partitions(member.pid) for member in members]
    return all(owned) and set.union(*owned) == partitions and sum(map(len, owned)) == len(partitions)


def one_in_each(kafka: KafkaSettings) -> list[tuple[str, int, int]]:
    """A record in each partition of interactions."""
    places = []
    for number in NUMBERS:
        places += send(kafka, INTERACTIONS, [interaction("u")], partition=number)
    return places


def test_shared_partitions_are_split_and_move_when_a_member_is_killed(
    process: StartProcess, env: dict[str, str], name: str, topics_applied: KafkaSettings, journal: Journal
) -> None:
    options = ("--name", name, "--topic", "interactions", "--journal", str(journal.path))
    members = [process("tests.stream_worker", *options, env=env) for _ in range(2)]
    partitions = {("interactions", number) for number in NUMBERS}
    members[0].until(lambda: both_own(journal, members, partitions))
    members[0].until(lambda: all(ready(member, name) for member in members))

    places = one_in_each(topics_applied)
    members[0].until(lambda: journal.has(places))
    for member in members:
        for topic, number, offset in places:
            mine = (topic, number) in journal.partitions(member.pid)
            assert ((topic, number, offset) in journal.records(member.pid)) == mine

    members[0].kill()
    members[1].until(lambda: journal.partitions(members[1].pid) == partitions)
    later = one_in_each(topics_applied)
    members[1].until(lambda: journal.has(later, members[1].pid))


def test_a_member_that_slept_through_its_session_commits_nothing_of_what_it_lost(
    process: StartProcess, env: dict[str, str], name: str, topics_applied: KafkaSettings, journal: Journal
) -> None:
    options = ("--name", name, "--topic", "interactions", "--journal", str(journal.path))
    # What a member handles before it sleeps is not committable before, and is after it: sleep ends no sooner than the
    # session. Who takes over commits nothing.
    margin = "MILLRACE_STREAM_DURABILITY_MARGIN_MS"
    partitions = {("interactions", number) for number in NUMBERS}
    sleeper = process("tests.stream_worker", *options, env=env | {margin: str(MARGIN_MS)})
    sleeper.until(lambda: journal.partitions(sleeper.pid) == partitions)
    places = one_in_each(topics_applied)
    sleeper.until(lambda: journal.has(places, sleeper.pid))
    handled_at = time.monotonic()
    sleeper.popen.send_signal(signal.SIGSTOP)
    other = process("tests.stream_worker", *options, env=env | {margin: "3600000"})
    other.until(lambda: journal.partitions(other.pid) == partitions)
    other.until(lambda: journal.has(places, other.pid))
    other.until(lambda: time.monotonic() > handled_at + MARGIN_MS / 1_000)
    sleeper.popen.send_signal(signal.SIGCONT)
    sleeper.until(lambda: journal.entries("revoke", sleeper.pid))
    assert committed(topics_applied, name, INTERACTIONS) == {}
    sleeper.until(lambda: both_own(journal, [sleeper, other], partitions))


def test_co_partitioned_topics_meet_in_one_member(
    process: StartProcess, env: dict[str, str], name: str, journal: Journal
) -> None:
    topics = ("interactions", "impressions")
    options = ("--name", name, "--topic", topics[0], "--topic", topics[1], "--journal", str(journal.path))
    members = [process("tests.stream_worker", *options, "--assignment", "co-partitioned", env=env) for _ in range(2)]
    partitions = {(topic, number) for topic in topics for number in NUMBERS}
    members[0].until(lambda: both_own(journal, members, partitions))
    for member in members:
        numbers = [{at for topic, at in journal.partitions(member.pid) if topic == one} for one in topics]
        assert numbers[0] == numbers[1]


def test_a_single_worker_has_one_leader_and_a_stand_by_that_takes_over(
    process: StartProcess, env: dict[str, str], name: str, topics_applied: KafkaSettings, journal: Journal
) -> None:
    options = ("--name", name, "--topic", "interactions", "--journal", str(journal.path), "--assignment", "single")
    members = [process("tests.stream_worker", *options, env=env) for _ in range(2)]
    partitions = {("interactions", number) for number in NUMBERS}

    def leaders() -> list[Child]:
        return [member for member in members if json.loads(get(member, name, "/readyz")[1])["role"] == "leader"]

    led_by: list[Child] = []

    def settled() -> bool:
        # Who joins last may become the leader of a classic group.
        if not leaders() or settled_members(topics_applied, f"{name}.leader") < len(members):
            return False
        found = leaders()
        led_by[:] = found
        return len(found) == 1 and journal.partitions(found[0].pid) == partitions

    members[0].until(settled)
    leader = led_by[-1]
    stand_by = next(member for member in members if member is not leader)
    stand_by.until(lambda: all(ready(member, name) for member in members))
    first = one_in_each(topics_applied)
    leader.until(lambda: journal.has(first, leader.pid))
    # Before both had joined it may have led, and taken what lay there: of the new ones it takes none.
    assert not set(first) & set(journal.records(stand_by.pid))

    leader.kill()
    members.remove(leader)
    stand_by.until(lambda: journal.partitions(stand_by.pid) == partitions)
    second = one_in_each(topics_applied)
    stand_by.until(lambda: journal.has(second, stand_by.pid))

    successor = process("tests.stream_worker", *options, env=env)
    successor.until(lambda: ready(successor, name))
    assert stand_by.terminate() == 0
    successor.until(lambda: journal.partitions(successor.pid) == partitions)


@pytest.fixture
def broker(tmp_path: Path) -> Kafka:
    """A broker that the test starts and stops by itself."""
    port = free_port()
    jars = classpath(StackSettings().kafka_version)
    return Kafka(tmp_path / "kafka", port, free_port(taken=frozenset({port})), jars)


def test_a_worker_waits_for_its_broker_and_lives_through_its_restart(
    process: StartProcess, broker: Kafka, journal: Journal
) -> None:
    name = "restart"
    kafka = KafkaSettings(bootstrap_servers=broker.address, partitions=3)
    env = {
        "KAFKA_BOOTSTRAP_SERVERS": broker.address,
        "KAFKA_PARTITIONS": "3",
        "MILLRACE_STREAM_DURABILITY_MARGIN_MS": "0",
    }
    options = ("--name", name, "--topic", "interactions", "--journal", str(journal.path), "--echo")
    child = process("tests.stream_worker", *options, env=env)
    child.until(lambda: "no broker" in get(child, name, "/readyz")[1])
    # librdkafka alone would write some 20 lines a second.
    began = time.monotonic()
    lines = len(child.output().splitlines())
    child.until(lambda: time.monotonic() > began + 5)
    assert len(child.output().splitlines()) - lines < 5

    with running(broker):
        # Topics may come after the worker, too.
        child.until(lambda: "no broker" not in get(child, name, "/readyz")[1])
        assert not ready(child, name)
        apply_topics(kafka)
        child.until(lambda: ready(child, name))
        first = one_in_each(kafka)
        child.until(lambda: journal.has(first))
    child.until(lambda: "no broker" in get(child, name, "/readyz")[1])
    assert get(child, name, "/healthz")[0] == 200
    with running(broker):
        second = one_in_each(kafka)
        child.until(lambda: journal.has(second) and ready(child, name))
        assert child.terminate() == 0
    records = journal.records()
    assert all(records.count(place) == 1 for place in second)


class BrokerWithoutKip848(Kafka):
    """A broker that knows the classic protocol only, as brokers before Kafka 4.0 do."""

    def properties(self) -> Mapping[str, str]:
        return {**super().properties(), "group.coordinator.rebalance.protocols": "classic"}


def test_a_broker_that_is_too_old_for_the_protocol_is_named_with_the_setting_to_change(
    process: StartProcess, broker: Kafka, journal: Journal
) -> None:
    old = BrokerWithoutKip848(broker.folder, broker.port, broker.controller_port, broker.jars)
    with running(old):
        apply_topics(KafkaSettings(bootstrap_servers=old.address, partitions=3))
        options = ("--name", "old", "--topic", "interactions", "--journal", str(journal.path))
        child = process("tests.stream_worker", *options, env={"KAFKA_BOOTSTRAP_SERVERS": old.address})
        assert child.wait() == 1
    assert "KAFKA_GROUP_PROTOCOL=classic" in child.output()


def test_settings_that_librdkafka_refuses_are_named(process: StartProcess, journal: Journal) -> None:
    env = {"KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", "KAFKA_SASL_MECHANISM": "NONE-SUCH"}
    child = process("tests.stream_worker", "--name", "x", "--topic", "items", "--journal", str(journal.path), env=env)
    assert child.wait() == 1
    assert "Unsupported SASL mechanism: NONE-SUCH" in child.output()
    assert "Traceback" not in child.output()


def test_sigterm_without_a_broker_ends_in_time(process: StartProcess, journal: Journal) -> None:
    name = "no-broker"
    env = {"KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}"}
    options = ("--name", name, "--topic", "interactions", "--journal", str(journal.path))
    child = process("tests.stream_worker", *options, env=env)
    child.until(lambda: "no broker" in get(child, name, "/readyz")[1])
    assert child.terminate(timeout_s=5) == 0
