"""``millrace dlq`` on a real broker, with real workers behind the dead letters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition

from millrace.errors import MillraceError
from millrace.inspection.letters import Choice, read_letters
from millrace.inspection.settling import Settler
from millrace.settings import KafkaSettings, StreamSettings
from millrace.stream.clients import producer_config
from millrace.stream.logs import kafka_logger
from millrace.stream.reader import TopicReader
from millrace.topics import INTERACTIONS, ITEMS
from millrace.v1.item_pb2 import Item
from tests.cli_support import Run, at, objects
from tests.conftest import Child, StartProcess
from tests.stream_support import Journal, headers_of, interaction, read_all, send


class Failing:
    """Two workers that read interactions; both cannot handle the same items, until they are mended."""

    def __init__(self, process: StartProcess, folder: Path, env: Mapping[str, str]) -> None:
        self.journals = {name: Journal(folder / name) for name in ("first", "second")}
        self.children: dict[str, Child] = {
            name: process(
                "tests.stream_worker",
                "--name",
                name,
                "--topic",
                "interactions",
                "--journal",
                str(journal.path),
                env=env,
            )
            for name, journal in self.journals.items()
        }

    def mend(self) -> None:
        for journal in self.journals.values():
            journal.path.with_name(journal.path.name + ".mended").touch()


def dead(kafka: KafkaSettings, worker: str) -> int:
    return sum(headers_of(one).get("dlq.worker") == worker.encode() for one in read_all(kafka, INTERACTIONS.dlq))


def test_dead_letters_are_listed_replayed_to_one_worker_once_and_dropped(
    run: Run, cli_env: Mapping[str, str], topics_applied: KafkaSettings, process: StartProcess, tmp_path: Path
) -> None:
    records = [interaction("dlq-1", "refuse"), interaction("dlq-2", "poison"), ("dlq-3", b"\xff", [("trace", b"t")])]
    places = send(topics_applied, INTERACTIONS, records)
    workers = Failing(process, tmp_path, cli_env)
    for name, child in workers.children.items():
        child.until(lambda worker=name: dead(topics_applied, worker) == 3, interval_s=0.3)  # type: ignore[misc]

    listed = objects(run("dlq", "ls", "interactions", "--worker", "first", "--json")[0])
    assert sorted((one["partition"], one["offset"]) for one in listed) == sorted(at(places))
    assert {one["field"] for one in listed} == {"item_id", None, "header schema"}
    refused = next(one for one in listed if one["key"] == "dlq-1")
    assert (refused["state"], refused["topic"], refused["attempts"]) == ("open", "interactions", 1)
    assert len(run("dlq", "ls", "interactions", "--where", "item_id == refuse")[0].splitlines()) == 3
    assert "with the topic named" in run("dlq", "ls", "--where", "item_id == refuse", status=1)[1]
    for filters in (("--key", "dlq-1"), ("--field", "item_id"), ("--reason", "refused by the test")):
        found = objects(run("dlq", "ls", *filters, "--worker", "first", "--since", "1h", "--json")[0])
        assert [one["letter"] for one in found] == [refused["letter"]]
    shown = json.loads(run("dlq", "show", str(refused["letter"]), "--json")[0])
    assert shown["message"]["item_id"] == "refuse"
    text = run("dlq", "show", str(refused["letter"]))[0]
    assert "item_id: refused by the test; allowed: anything else" in text
    undecodable = next(one for one in listed if one["key"] == "dlq-3")
    assert undecodable["headers"] == {"trace": "t"}
    assert "base64:/w==" in run("dlq", "show", str(undecodable["letter"]))[0]

    # Without a mend: the same again, as a new letter. The other worker never sees it.
    assert json.loads(run("dlq", "replay", str(refused["letter"]), "--dry-run", "--json")[0])["replayed"] == 1
    assert run("dlq", "replay", str(refused["letter"]))[0] == "interactions: replayed 1\n"
    # Three letters, the mark, and the new letter.
    workers.children["first"].until(lambda: dead(topics_applied, "first") == 5, interval_s=0.3)
    again = objects(run("dlq", "ls", "--worker", "first", "--key", "dlq-1", "--json")[0])
    assert [(one["replay_of"], one["state"]) for one in again] == [
        (f"interactions[{refused['partition']}]@{refused['offset']}", "open")
    ]

    workers.mend()
    assert run("dlq", "replay", "interactions", "--worker", "first", "--where", "user_id == dlq-1")[0] == (
        "interactions: replayed 1\n"
    )
    first = workers.journals["first"]
    workers.children["first"].until(lambda: user_was_taken(topics_applied, first, "dlq-1"), interval_s=0.3)

    # Both workers failed at dlq-2: the second's letter goes to the second.
    choice = Choice(worker="second", key="dlq-2")
    with ThreadPoolExecutor(3) as pool:
        assert sum(pool.map(lambda _: replayed_by_one_of_many(topics_applied, choice), range(3))) <= 1
    second = workers.journals["second"]
    workers.children["second"].until(lambda: user_was_taken(topics_applied, second, "dlq-2"), interval_s=0.3)
    replayed = [one for one in read_all(topics_applied, INTERACTIONS.name) if "replay.worker" in headers_of(one)]
    assert sorted((headers_of(one)["replay.worker"], one.key()) for one in replayed) == [
        (b"first", b"dlq-1"),
        (b"first", b"dlq-1"),
        (b"second", b"dlq-2"),
    ]
    by_offset = {(one.partition(), one.offset()): headers_of(one)["replay.worker"].decode() for one in replayed}
    last = send(topics_applied, INTERACTIONS, [interaction(user, "end") for user in ("dlq-1", "dlq-2", "dlq-3")])
    for name, journal in workers.journals.items():
        workers.children[name].until(lambda taken=journal: taken.has(last))  # type: ignore[misc]
        others = {place for place, worker in by_offset.items() if worker != name}
        assert not others & {(partition, offset) for _topic, partition, offset in journal.records()}
    sent_again = next(one for one in replayed if one.key() == b"dlq-2")
    assert sent_again.value() == records[1][1]
    original = headers_of(sent_again)
    assert original["schema"] == b"millrace.v1.Interaction"
    assert (original["replay.offset"], original["replay.partition"]) == (
        str(places[1][2]).encode(),
        str(places[1][1]).encode(),
    )

    # What was replayed stays replayed, also when it is named.
    assert "replayed 0, 1 settled before" in run("dlq", "replay", str(refused["letter"]))[0]
    assert str(again[0]["letter"]) not in run("dlq", "ls")[0]
    assert run("dlq", "drop", "interactions", "--key", "dlq-3")[0] == "interactions: dropped 2\n"
    assert "no dead letter fits" in run("dlq", "drop", "interactions", "--key", "dlq-3", status=1)[1]
    dropped = objects(run("dlq", "ls", "--state", "dropped", "--json")[0])
    assert {one["key"] for one in dropped} == {"dlq-3"}
    left = objects(run("dlq", "ls", "--state", "open", "--json")[0])
    assert {(one["worker"], one["key"]) for one in left} == {("second", "dlq-1"), ("first", "dlq-2")}
    assert "1 older ones are not shown" in run("dlq", "ls", "-n", "1")[1]
    with TopicReader(topics_applied, [INTERACTIONS], "beginning", StreamSettings()) as reader:
        mirrored = []
        while not reader.caught_up:
            mirrored += [(record.partition, record.offset) for record in reader.poll()]
    assert not by_offset.keys() & set(mirrored), "a mirror has met the original"


def replayed_by_one_of_many(kafka: KafkaSettings, choice: Choice) -> int:
    """How many letters this replay says that it has replayed; one that was replaced may have, and not know it."""
    try:
        with Settler(kafka) as settler:
            return settler.replay(letter for letter in read_letters(kafka, INTERACTIONS) if choice.takes(letter)).done
    except MillraceError as error:
        if "took over" not in str(error):
            raise
        return 0


def user_was_taken(kafka: KafkaSettings, journal: Journal, user: str) -> bool:
    """Whether the worker of the journal has taken a replay of this user's record."""
    taken = set(journal.records())
    return any(
        (INTERACTIONS.name, one.partition(), one.offset()) in taken
        for one in read_all(kafka, INTERACTIONS.name)
        if one.key() == user.encode() and "replay.worker" in headers_of(one)
    )


def test_who_settles_later_replaces_who_settles_now(cli_env: Mapping[str, str], topics_applied: KafkaSettings) -> None:
    facts = {"worker": "w", "topic": "items", "partition": "0", "offset": "0", "timestamp": "1", "reason": "r"}
    value = Item(item_id="settled").SerializeToString()
    headers = [("schema", b"millrace.v1.Item"), *((f"dlq.{name}", text.encode()) for name, text in facts.items())]
    producer = Producer(producer_config(topics_applied), logger=kafka_logger())
    for _ in range(2):  # as a worker that died before its commit would leave it
        producer.produce(ITEMS.dlq, value, "settled", headers=headers)  # type: ignore[arg-type]
    producer.produce(ITEMS.dlq, b"somebody else's", "other")
    assert producer.flush(20) == 0

    before = TopicPartition(ITEMS.name, 0)
    with Settler(topics_applied) as earlier:
        letters = list(read_letters(topics_applied, ITEMS))
        assert [letter.name for letter in letters] == ["items@0"]
        with Settler(topics_applied) as later:
            assert later.replay(read_letters(topics_applied, ITEMS)).done == 1
            with pytest.raises(MillraceError, match="took over"):
                earlier.replay(letters)
    replays = [one for one in read_all(topics_applied, ITEMS.name) if "replay.worker" in headers_of(one)]
    assert [(one.partition(), one.value()) for one in replays] == [(before.partition, value)]
    with Settler(topics_applied) as settler:
        settled = settler.drop(read_letters(topics_applied, ITEMS))
    assert (settled.done, settled.before) == (0, 1)
