"""The runtime on a real broker: nothing is lost, nothing is committed early, bad records do not stop the stream."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # re-exported without saying so
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from millrace.settings import KafkaSettings
from millrace.stream import logs
from millrace.stream.clients import admin_config, producer_config
from millrace.topics import IMPRESSIONS, INTERACTIONS, ITEM_STATE, ITEMS
from tests.conftest import Child, StartProcess
from tests.processes import PATIENCE_S
from tests.stream_support import Journal, committed, get, headers_of, interaction, read_all, ready, send

# Longer than the runtime's commit interval (0.5 s) and the worker's journal need: what would be committed too
# early would be there by then.
COMMIT_WOULD_COME_S = 1.5
# A worker that takes so long to close is ended long before.
CLOSING_S = 60.0


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal")


@pytest.fixture
def away(journal: Journal) -> Path:
    """While this file is there, the worker's Redis is away."""
    return journal.path.with_name("journal.away")


@pytest.fixture
def small_item_state(topics_applied: KafkaSettings) -> Iterator[Callable[[], None]]:
    """The broker refuses every record for item-state, until this is called."""
    admin = AdminClient(admin_config(topics_applied))

    def change(what: AlterConfigOpType, size: str | None) -> None:
        entry = ConfigEntry("max.message.bytes", size, incremental_operation=what)
        resource = ConfigResource(ResourceType.TOPIC, ITEM_STATE.name, incremental_configs=[entry])
        for future in admin.incremental_alter_configs([resource]).values():
            future.result()

    def reset() -> None:
        change(AlterConfigOpType.DELETE, None)

    change(AlterConfigOpType.SET, "1")
    yield reset
    reset()


@pytest.fixture
def env(kafka_env: Mapping[str, str], topics_applied: KafkaSettings) -> dict[str, str]:
    return dict(kafka_env) | {"MILLRACE_STREAM_DURABILITY_MARGIN_MS": "0"}


def arguments(name: str, journal: Journal, *more: str, topic: str = "interactions") -> tuple[str, ...]:
    return "tests.stream_worker", "--name", name, "--topic", topic, "--journal", str(journal.path), *more


def has_committed(kafka: KafkaSettings, group: str, places: list[tuple[str, int, int]]) -> bool:
    """Whether the group's positions lie behind all of the records."""
    positions = committed(kafka, group, INTERACTIONS)
    return all(positions.get(partition, 0) > offset for _topic, partition, offset in places)


def test_bad_records_become_dead_letters_and_the_stream_goes_on(
    process: StartProcess, env: dict[str, str], topics_applied: KafkaSettings, journal: Journal
) -> None:
    _user, value, headers = interaction("u1")
    bad = {
        "empty": ("u1", b"", headers),
        "tombstone": ("u1", None, headers),
        "oversized": ("u1", b"x" * (256 * 1024 + 1), headers),
        "bytes": ("u1", b"\xff\xff\xff", headers),
        "no-schema": ("u1", value, [("trace", b"t")]),
        "other-schema": ("u1", value, [("schema", b"millrace.v1.Item")]),
        "refused": interaction("u1", "refuse"),
        "poisoned": interaction("u1", "poison"),
    }
    good = interaction("u1", "good")
    # One user: all of them stand in one partition, bad ones between good ones.
    places = send(topics_applied, INTERACTIONS, [good, *bad.values(), good])
    child = process(*arguments("bad-records", journal), env=env)
    child.until(lambda: has_committed(topics_applied, "bad-records", places))
    assert journal.has([places[0], places[-1]])

    letters = {}
    for message in read_all(topics_applied, INTERACTIONS.dlq):
        found = headers_of(message)
        letters[int(found["dlq.offset"])] = message.value(), message.key(), found
    assert len(letters) == len(bad)
    reasons = {
        "empty": (b"value: empty", b"value"),
        "tombstone": (b"value: empty", b"value"),
        "oversized": (b"262145 bytes; allowed: at most 262144 bytes", b"value"),
        "bytes": (b"not protobuf", b"value"),
        "no-schema": (b"missing", b"header schema"),
        "other-schema": (b"millrace.v1.Item", b"header schema"),
        "refused": (b"refused by the test", b"item_id"),
        "poisoned": (b"ValueError: poisoned by the test", None),
    }
    for (kind, original), (topic, partition, offset) in zip(bad.items(), places[1:-1], strict=True):
        letter_value, key, found = letters[offset]
        assert letter_value == original[1], kind
        assert key == b"u1"
        for name, content in original[2]:
            assert found[name] == content, kind
        reason, field = reasons[kind]
        assert reason in found["dlq.reason"], kind
        assert found.get("dlq.field") == field, kind
        assert (found["dlq.topic"], found["dlq.partition"]) == (topic.encode(), str(partition).encode())
        assert found["dlq.worker"] == b"bad-records"
        assert found["dlq.attempts"] == (b"2" if kind == "poisoned" else b"1")
        assert int(found["dlq.timestamp"]) > 0
    metrics = get(child, "bad-records", "/metrics")[1]
    assert f'millrace_stream_dead_letters_total{{topic="interactions",worker="bad-records"}} {len(bad)}.0' in metrics


def test_a_tombstone_of_a_compacted_topic_comes_to_the_worker(
    process: StartProcess, env: dict[str, str], topics_applied: KafkaSettings, journal: Journal
) -> None:
    places = send(topics_applied, ITEMS, [("item-1", None, [])])
    child = process(*arguments("tombstones", journal, topic="items"), env=env)
    child.until(lambda: journal.has(places))
    assert read_all(topics_applied, ITEMS.dlq) == []


def test_without_a_dead_letter_topic_a_bad_record_is_counted_and_passed(
    process: StartProcess, env: dict[str, str], topics_applied: KafkaSettings, journal: Journal
) -> None:
    send(topics_applied, ITEM_STATE, [("item-1", b"\xff\xff", [])])
    child = process(*arguments("no-dead-letters", journal, topic="item-state"), env=env)
    child.until(lambda: ready(child, "no-dead-letters"))
    counted = 'millrace_stream_dead_letters_total{topic="item-state",worker="no-dead-letters"} 1.0'
    child.until(lambda: counted in get(child, "no-dead-letters", "/metrics")[1])


def test_no_position_is_committed_before_its_effects_are_out(
    process: StartProcess, env: dict[str, str], topics_applied: KafkaSettings, journal: Journal
) -> None:
    places = send(topics_applied, INTERACTIONS, [interaction(f"held-{number}") for number in range(20)])
    holding = process(*arguments("effects-first", journal, "--echo", "--hold", "60"), env=env)
    holding.until(lambda: journal.has(places))
    time.sleep(COMMIT_WOULD_COME_S)
    assert committed(topics_applied, "effects-first", INTERACTIONS) == {}
    holding.kill()

    sending = process(*arguments("effects-first", journal, "--echo"), env=env)
    sending.until(lambda: has_committed(topics_applied, "effects-first", places))
    assert journal.has(places, sending.pid), "what was not committed comes again"
    sent = {message.key() for message in read_all(topics_applied, ITEM_STATE.name)}
    assert {f"held-{number}".encode() for number in range(20)} <= sent


def test_the_durability_margin_holds_commits_back(
    process: StartProcess, env: dict[str, str], topics_applied: KafkaSettings, journal: Journal
) -> None:
    places = send(topics_applied, INTERACTIONS, [interaction("margin")])
    child = process(*arguments("margin", journal), env=env | {"MILLRACE_STREAM_DURABILITY_MARGIN_MS": "4000"})
    child.until(lambda: journal.has(places))
    handled_at = journal.entries("batch")[-1]["at"]
    child.until(lambda: has_committed(topics_applied, "margin", places))
    assert time.time() - handled_at >= 4.0


def test_while_a_system_is_away_nothing_is_committed_and_then_all_of_it_comes_again(
    process: StartProcess, env: dict[str, str], topics_applied: KafkaSettings, journal: Journal, away: Path
) -> None:
    name = "away"
    before = send(topics_applied, INTERACTIONS, [interaction(f"before-{number}") for number in range(10)])
    # A margin that nothing reaches: the rewind has to go back to the start.
    child = process(*arguments(name, journal), env=env | {"MILLRACE_STREAM_DURABILITY_MARGIN_MS": "3600000"})
    child.until(lambda: journal.has(before) and ready(child, name))
    away.touch()
    during = send(topics_applied, INTERACTIONS, [interaction(f"during-{number}") for number in range(10)])
    child.until(lambda: not ready(child, name))
    status, body = get(child, name, "/readyz")
    assert status == 503
    assert json.loads(body)["missing"] == ["redis: away by the test"]
    assert get(child, name, "/healthz")[0] == 200
    metrics = get(child, name, "/metrics")[1]
    assert f'millrace_stream_paused{{worker="{name}"}} 1.0' in metrics
    assert f'millrace_stream_infrastructure_failures_total{{system="redis",worker="{name}"}}' in metrics
    assert not journal.has(during)
    assert committed(topics_applied, name, INTERACTIONS) == {}

    restores = len(journal.entries("restore"))
    away.unlink()
    child.until(lambda: journal.has(during) and ready(child, name))
    assert len(journal.entries("restore")) == restores + 1
    taken = journal.records()
    assert all(taken.count(place) == 2 for place in before), "what was not safe came again"
    assert all(taken.count(place) == 1 for place in during)
    for partition in range(3):
        again = [offset for _topic, at, offset in taken if at == partition]
        half = len(again) - len(set(again))
        assert again[half:] == sorted(set(again)), "in order after the rewind"


def test_sigterm_sends_what_is_pending_commits_it_and_exits_with_0(
    process: StartProcess, env: dict[str, str], topics_applied: KafkaSettings, journal: Journal
) -> None:
    places = send(topics_applied, INTERACTIONS, [interaction("drained")])
    child = process(*arguments("drain", journal, "--echo", "--hold", "60"), env=env)
    child.until(lambda: journal.has(places))
    assert child.terminate() == 0
    assert [entry["what"] for entry in journal.entries("close")] == ["close"]
    assert b"drained" in {message.key() for message in read_all(topics_applied, ITEM_STATE.name)}
    assert has_committed(topics_applied, "drain", places)


def test_sigterm_while_a_system_is_away_ends_within_the_drain_timeout(
    process: StartProcess, env: dict[str, str], topics_applied: KafkaSettings, journal: Journal, away: Path
) -> None:
    away.touch()
    child = process(*arguments("away-drain", journal), env=env)
    child.until(lambda: "away by the test" in get(child, "away-drain", "/readyz")[1])
    assert child.terminate() == 0
    assert committed(topics_applied, "away-drain", INTERACTIONS) == {}


def test_readyz_shows_the_progress_of_each_partition(
    process: StartProcess, env: dict[str, str], topics_applied: KafkaSettings, journal: Journal
) -> None:
    name = "progress"
    places = send(topics_applied, IMPRESSIONS, [("u", b"\xff", [])] * 3)
    child: Child = process(*arguments(name, journal, topic="impressions"), env=env)
    _topic, partition, offset = places[-1]

    def progress() -> Mapping[str, object]:
        found: Mapping[str, object] = json.loads(get(child, name, "/readyz")[1])["partitions"].get(
            f"impressions/{partition}", {}
        )
        return found

    child.until(lambda: progress() == {"position": offset + 1, "committed": offset + 1, "lag": 0, "unmoved_s": 0.0})
    child.until(lambda: ready(child, name))
    body = json.loads(get(child, name, "/readyz")[1])
    assert (body["process"], body["ready"], body["missing"], body["role"]) == (name, True, [], "member")
    assert get(child, name, "/nothing")[0] == 404


def test_a_partition_that_stands_still_is_named_though_the_process_lives(
    process: StartProcess, env: dict[str, str], topics_applied: KafkaSettings, journal: Journal
) -> None:
    """Two real causes: a transaction that somebody left open, behind which readers of the committed wait; and a
    handler that does not come back.
    """
    name, stuck = "stalled", 1
    child = process(*arguments(name, journal), env=env | {"MILLRACE_STREAM_STALLED_AFTER_MS": "1000"})
    child.until(lambda: ready(child, name))

    def missing() -> list[str]:
        status, body = get(child, name, "/readyz")
        assert get(child, name, "/healthz")[0] == 200
        found: list[str] = json.loads(body)["missing"]
        assert (status == 200) == (not found)
        return found

    user, value, headers = interaction("left open")
    writer = Producer(producer_config(topics_applied) | {"transactional.id": "left open"}, logger=logs.kafka_logger())
    writer.init_transactions()
    writer.begin_transaction()
    writer.produce(INTERACTIONS.name, value, user, stuck, headers=dict(headers))
    assert writer.flush(PATIENCE_S) == 0
    places = send(topics_applied, INTERACTIONS, [interaction("behind it")], partition=stuck)
    elsewhere = send(topics_applied, INTERACTIONS, [interaction("elsewhere")], partition=stuck + 1)
    child.until(
        lambda: missing() and missing()[0].startswith(f"no progress for more than 1 s in interactions/{stuck} (")
    )
    child.until(lambda: journal.has(elsewhere))
    assert not journal.has(places)
    writer.commit_transaction()
    child.until(lambda: journal.has(places) and not missing())

    blocked = journal.path.with_name("journal.blocked")
    blocked.touch()
    places = send(topics_applied, INTERACTIONS, [interaction("blocks")], partition=stuck)
    child.until(
        lambda: missing() and missing()[0].startswith(f"one batch of interactions/{stuck} takes longer than 1 s")
    )
    blocked.unlink()
    child.until(lambda: journal.has(places) and not missing())


def test_output_that_does_not_arrive_is_sent_again_before_anything_is_committed(
    process: StartProcess,
    env: dict[str, str],
    topics_applied: KafkaSettings,
    journal: Journal,
    small_item_state: Callable[[], None],
) -> None:
    name = "refused-output"
    places = send(topics_applied, INTERACTIONS, [interaction(f"sent-{number}") for number in range(5)])
    child = process(*arguments(name, journal, "--echo"), env=env)
    child.until(lambda: "a record for item-state did not arrive" in get(child, name, "/readyz")[1])
    # Not once: each try ends the same way.
    child.until(lambda: journal.records().count(places[0]) > 1)
    assert committed(topics_applied, name, INTERACTIONS) == {}

    small_item_state()
    child.until(lambda: has_committed(topics_applied, name, places))
    sent = {message.key() for message in read_all(topics_applied, ITEM_STATE.name)}
    assert {f"sent-{number}".encode() for number in range(5)} <= sent
    child.until(lambda: ready(child, name))


def test_a_bug_outside_of_any_record_ends_the_process_without_a_commit(
    process: StartProcess, env: dict[str, str], topics_applied: KafkaSettings, journal: Journal
) -> None:
    places = send(topics_applied, INTERACTIONS, [interaction("broken")])
    journal.path.with_name("journal.broken").touch()
    child = process(*arguments("broken", journal), env=env)
    assert child.wait() == 1
    assert "broken by the test" in child.output()
    assert committed(topics_applied, "broken", INTERACTIONS) == {}
    assert places


def test_a_worker_that_cannot_go_on_says_why_and_exits_with_1(
    process: StartProcess, env: dict[str, str], journal: Journal
) -> None:
    journal.path.with_name("journal.refuse").touch()
    child = process(*arguments("refuse", journal), env=env)
    assert child.wait() == 1
    assert "refused by the test" in child.output()
    assert "Traceback" not in child.output()


def test_a_second_signal_ends_the_process_at_once(
    process: StartProcess, env: dict[str, str], topics_applied: KafkaSettings, journal: Journal
) -> None:
    patient = {"MILLRACE_STREAM_DRAIN_TIMEOUT_MS": "600000"}
    child = process(*arguments("impatient", journal, "--slow-close", str(CLOSING_S)), env=env | patient)
    child.until(lambda: ready(child, "impatient"))
    child.popen.terminate()
    child.until(lambda: "draining" in child.output())
    assert child.terminate(CLOSING_S / 2) == 128 + signal.SIGTERM


def test_a_drain_that_takes_too_long_is_ended(
    process: StartProcess, env: dict[str, str], topics_applied: KafkaSettings, journal: Journal
) -> None:
    bound = {"MILLRACE_STREAM_DRAIN_TIMEOUT_MS": "1000"}
    child = process(*arguments("slow", journal, "--slow-close", str(CLOSING_S)), env=env | bound)
    child.until(lambda: ready(child, "slow"))
    assert child.terminate(CLOSING_S / 2) == 1
    assert "drain took too long" in child.output()
