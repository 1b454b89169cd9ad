"""``millrace tail``, ``lag`` and ``dlq`` on a real broker, with real workers behind the dead letters."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import pytest
from confluent_kafka import KafkaError, Message, Producer, TopicPartition

from deploy.embedded.member import clean_environment
from millrace.cli.main import main
from millrace.errors import MillraceError
from millrace.inspection.letters import Choice, read_letters
from millrace.inspection.settling import Settler
from millrace.settings import KafkaSettings, StreamSettings, settings
from millrace.stream.clients import producer_config
from millrace.stream.logs import kafka_logger
from millrace.stream.reader import TopicReader
from millrace.topics import COMMANDS, IMPRESSIONS, INTERACTIONS, ITEMS, OUTCOMES
from millrace.v1.command_pb2 import Command
from millrace.v1.item_pb2 import Item
from millrace.v1.outcome_pb2 import Outcome
from tests.conftest import ROOT, Child, StartProcess
from tests.processes import PATIENCE_S
from tests.stream_support import Journal, Place, committed, headers_of, interaction, read_all, send

HEAVY = frozenset({"numpy", "pandas", "mlflow", "river", "scipy", "faust", "redis", "grpc", "numba"})
BROKER = frozenset({"confluent_kafka", "google.protobuf", "pydantic"})


@pytest.fixture
def env(topics_applied: KafkaSettings, kafka_env: Mapping[str, str], millrace_home: Path) -> Mapping[str, str]:
    return {**kafka_env, "MILLRACE_HOME": str(millrace_home), "MILLRACE_STREAM_DURABILITY_MARGIN_MS": "0"}


class Run(Protocol):
    def __call__(self, *arguments: str, status: int = 0) -> tuple[str, str]: ...


@pytest.fixture
def run(env: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs a command in this process, which saves a second each: what it prints, on both ways."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()

    def command(*arguments: str, status: int = 0) -> tuple[str, str]:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["millrace", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capfd.readouterr()
        assert (ended.value.code or 0) == status, (arguments, printed.err)
        return printed.out, printed.err

    yield command
    settings.cache_clear()


def objects(printed: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in printed.splitlines()]


def offsets(printed: str) -> list[tuple[object, object]]:
    return [(one["partition"], one["offset"]) for one in objects(printed)]


def at(places: Sequence[Place]) -> list[tuple[object, object]]:
    return [(partition, offset) for _topic, partition, offset in places]


def test_tail_shows_records_from_anywhere(run: Run, topics_applied: KafkaSettings) -> None:
    records = [interaction(f"tail-{number % 5}", f"item-{number}") for number in range(30)]
    # One after the other: their times are in the order in which they were sent.
    producer = Producer(producer_config(topics_applied), logger=kafka_logger())
    places: list[Place] = []

    def arrived(error: KafkaError | None, message: Message) -> None:
        assert error is None
        places.append((IMPRESSIONS.name, message.partition() or 0, message.offset() or 0))

    for key, value, _headers in records:
        producer.produce(IMPRESSIONS.name, value, key, on_delivery=arrived)
        assert producer.flush(20) == 0
    tail = ("tail", "impressions", "--exit", "-o", "json")
    assert sorted(offsets(run(*tail, "--from", "beginning")[0])) == sorted(at(places))
    assert offsets(run(*tail, "--from", "-4")[0]) == at(places[-4:])
    assert len(offsets(run(*tail)[0])) == 10
    assert offsets(run(*tail, "--from", "end")[0]) == []
    of_one = [place for place, record in zip(places, records, strict=True) if record[0] == "tail-3"]
    assert offsets(run(*tail, "--from", "0", "--key", "tail-3")[0]) == at(of_one)
    partition = of_one[0][1]
    in_one = [place for place in at(places) if place[0] == partition]
    assert offsets(run(*tail, "--from", "2", "-p", str(partition))[0]) == in_one[2:]
    assert offsets(run(*tail, "--from", "beginning", "-p", str(partition), "-n", "1")[0]) == in_one[:1]
    since = objects(run(*tail, "--from", "-4")[0])[0]["appended_at_ms"]
    assert set(at(places[-4:])) <= set(offsets(run(*tail, "--from", f"@{since}")[0]))
    assert offsets(run(*tail, "--from", "2100-01-01")[0]) == []
    # These are no impressions: what they are is said, and the value is there.
    first = objects(run(*tail, "--from", "-1")[0])[0]
    assert "header schema" in str(first["problem"])
    assert "item-29" in str(first["value"])


def test_tail_decodes_filters_and_prints(run: Run, topics_applied: KafkaSettings) -> None:
    records = [interaction("look-1", "boots"), interaction("look-1", "a b\x1b[31m"), interaction("look-2", "boots")]
    send(topics_applied, INTERACTIONS, records)
    send(topics_applied, ITEMS, [("gone", None, [])])
    tail = ("tail", "interactions", "--from", "beginning", "--exit")
    boots, err = run(*tail, "--where", "item_id==boots and user_id ~ look", "-o", "json")
    assert {(one["key"], one["schema"]) for one in objects(boots)} == {
        ("look-1", "millrace.v1.Interaction"),
        ("look-2", "millrace.v1.Interaction"),
    }
    assert objects(boots)[0]["message"] == {
        "event_id": f"{objects(boots)[0]['key']}boots",
        "user_id": objects(boots)[0]["key"],
        "item_id": "boots",
        "type": "click",
    }
    assert err == ""
    lines = run(*tail, "--key", "look-1")[0].splitlines()
    assert lines[0].split("\t") == ["appended", "partition", "offset", "key", "message"]
    assert lines[1].split("\t")[3:] == [
        "look-1",
        "Interaction event_id=look-1boots user_id=look-1 item_id=boots type=click",
    ]
    assert r'item_id="a b\u001b[31m"' in lines[2]
    assert "\x1b" not in "".join(lines)
    raw = run(*tail, "--key", "look-2", "-o", "raw")[0]
    assert raw == (records[2][1] or b"").decode() + "\n"
    assert run("tail", "items", "--exit")[0].splitlines()[-1].endswith("\tgone\t(no value)")

    for arguments, status, says in (
        (("--where", "itm==x"), 1, "itm: Interaction has no field itm; allowed: event_id, user_id, item_id"),
        (("--from", "soon"), 1, "from: 'soon'; allowed: beginning, end, -N"),
        (("-p", "9"), 1, "partition: 9 of interactions; allowed: 0 to 2"),
        (("-o", "xml"), 2, "'xml' is not one of"),
    ):
        assert says in run("tail", "interactions", *arguments, status=status)[1]
    assert "near: interactions" in run("tail", "interaction", status=1)[1]
    assert "of topic other are not known" in run("tail", "other", "--where", "a==b", status=1)[1]


def test_tail_goes_over_markers_of_transactions(run: Run, topics_applied: KafkaSettings) -> None:
    """As many offsets are markers as records: the two newest are found all the same, and an aborted one is not."""
    producer = Producer(producer_config(topics_applied) | {"transactional.id": "tests"}, logger=kafka_logger())
    producer.init_transactions(20)
    for number in range(6):
        producer.begin_transaction()
        producer.produce(OUTCOMES.name, Outcome(request_id=f"r-{number}").SerializeToString(), "u", 0)
        if number == 3:
            producer.flush(10)
            producer.abort_transaction(10)
        else:
            producer.commit_transaction(10)
    printed = run("tail", "outcomes", "--from", "-3", "--exit", "-o", "json")[0]
    assert ["r-2" in line or "r-4" in line or "r-5" in line for line in printed.splitlines()] == [True] * 3


def test_tail_follows_until_ctrl_c(
    env: Mapping[str, str], topics_applied: KafkaSettings, process: StartProcess
) -> None:
    child = process("millrace", "tail", "commands", "--from", "beginning", "-o", "json", env=env)
    for number in range(2):
        value = Command(command_id=f"follow-{number}").SerializeToString()
        send(topics_applied, COMMANDS, [("ranker", value, [("schema", b"millrace.v1.Command")])])
        child.until(lambda said=f"follow-{number}": said in child.output())  # type: ignore[misc]
    child.popen.send_signal(signal.SIGINT)
    assert child.wait() == 130
    assert "Traceback" not in child.output()


def test_a_reader_of_the_pipe_may_go_away(env: Mapping[str, str], topics_applied: KafkaSettings) -> None:
    send(topics_applied, ITEMS, [(f"pipe-{number}", None, []) for number in range(500)])
    tail = subprocess.Popen(
        [sys.executable, "-m", "millrace", "tail", "items", "--from", "beginning"],
        cwd=ROOT,
        env=clean_environment() | dict(env),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert tail.stdout is not None
    assert tail.stderr is not None
    tail.stdout.readline()
    tail.stdout.close()
    # It writes until it notices; a new record wakes one that had written everything.
    send(topics_applied, ITEMS, [("pipe-last", None, [])])
    assert (tail.wait(PATIENCE_S), tail.stderr.read()) == (0, b"")
    tail.stderr.close()


def test_lag_says_who_is_how_far(
    run: Run, env: Mapping[str, str], topics_applied: KafkaSettings, process: StartProcess, tmp_path: Path
) -> None:
    journal = Journal(tmp_path / "journal")
    places = send(topics_applied, ITEMS, [(f"lag-{number}", None, []) for number in range(40)])
    children = {}
    for name, assignment in (("lag-group", "shared"), ("lag-leader", "single")):
        arguments = ("--name", name, "--topic", "items", "--assignment", assignment, "--journal", str(journal.path))
        children[name] = process("tests.stream_worker", *arguments, env=env)
    for name, child in children.items():
        child.until(lambda group=name: all_committed(topics_applied, group, places))  # type: ignore[misc]
        rows = objects(run("lag", "--json", "--over", "0", "-g", name)[0])[0]["partitions"]
        assert isinstance(rows, list)
        assert [(one["topic"], one["partition"], one["lag"]) for one in rows] == [("items", n, 0) for n in range(3)]
        assert all(one["worker"].startswith(f"{name}@") and one["worker"].endswith(f"-{child.pid}") for one in rows)
        assert child.terminate() == 0

    send(topics_applied, ITEMS, [("lag-0", None, [])] * 7)
    printed, _ = run("lag", "--over", "0.1", "-g", "lag-group")
    header, *lines = [line.split("\t") for line in printed.splitlines()]
    assert header[-4:] == ["lag", "arriving/s", "handled/s", "caught up in"]
    assert sorted(line[6:] for line in lines) == [["0", "0.0", "0.0", "-"]] * 2 + [
        ["7", "0.0", "0.0", "not at this pace"]
    ]
    assert {line[1] for line in lines} == {"nobody"}
    assert "no group reads" in run("lag", "--over", "0", "-g", "nobody", status=1)[1]
    assert "--watch needs" in run("lag", "--watch", "--over", "0", status=2)[1]
    watching = process("millrace", "lag", "--watch", "--over", "0.1", "--json", env=env)
    watching.until(lambda: watching.output().count("lag-group") >= 6)
    watching.popen.send_signal(signal.SIGINT)
    assert watching.wait() == 130


def all_committed(kafka: KafkaSettings, group: str, places: Sequence[Place]) -> bool:
    positions = committed(kafka, group, ITEMS)
    return all(positions.get(partition, 0) > offset for _topic, partition, offset in places)


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
    run: Run, env: Mapping[str, str], topics_applied: KafkaSettings, process: StartProcess, tmp_path: Path
) -> None:
    records = [interaction("dlq-1", "refuse"), interaction("dlq-2", "poison"), ("dlq-3", b"\xff", [("trace", b"t")])]
    places = send(topics_applied, INTERACTIONS, records)
    workers = Failing(process, tmp_path, env)
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


def test_who_settles_later_replaces_who_settles_now(env: Mapping[str, str], topics_applied: KafkaSettings) -> None:
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


@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        (("--help",), HEAVY | BROKER),
        (("tail", "--help"), HEAVY | BROKER - {"pydantic"}),
        (("lag", "--over", "0", "-g", "lag-group"), HEAVY),
        (("dlq", "ls"), HEAVY),
        (("experiments", "list"), HEAVY - {"numpy"}),
        (("retrain", "status"), HEAVY - {"numpy"}),
    ],
)
def test_commands_answer_at_once_because_they_import_little(
    arguments: tuple[str, ...], absent: frozenset[str], env: Mapping[str, str]
) -> None:
    code = (
        "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); "
        f"sys.argv[1:] = {list(arguments)!r}; from millrace.cli.main import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=clean_environment() | dict(env) | {"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    assert not absent & set(done.stderr.split()), arguments
