"""``millrace tail`` and ``lag`` on a real broker, and how little a command imports."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, Message, Producer

from deploy.embedded.member import clean_environment
from millrace.settings import KafkaSettings
from millrace.stream.clients import producer_config
from millrace.stream.logs import kafka_logger
from millrace.topics import COMMANDS, IMPRESSIONS, INTERACTIONS, ITEMS, OUTCOMES
from millrace.v1.command_pb2 import Command
from millrace.v1.outcome_pb2 import Outcome
from tests.cli_support import Run, at, objects, offsets
from tests.conftest import ROOT, StartProcess
from tests.processes import PATIENCE_S
from tests.stream_support import Journal, Place, committed, interaction, send

HEAVY = frozenset({"numpy", "pandas", "mlflow", "river", "scipy", "faust", "redis", "grpc", "numba"})
BROKER = frozenset({"confluent_kafka", "google.protobuf", "pydantic"})


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
    cli_env: Mapping[str, str], topics_applied: KafkaSettings, process: StartProcess
) -> None:
    child = process("millrace", "tail", "commands", "--from", "beginning", "-o", "json", env=cli_env)
    for number in range(2):
        value = Command(command_id=f"follow-{number}").SerializeToString()
        send(topics_applied, COMMANDS, [("ranker", value, [("schema", b"millrace.v1.Command")])])
        child.until(lambda said=f"follow-{number}": said in child.output())  # type: ignore[misc]
    child.popen.send_signal(signal.SIGINT)
    assert child.wait() == 130
    assert "Traceback" not in child.output()


def test_a_reader_of_the_pipe_may_go_away(cli_env: Mapping[str, str], topics_applied: KafkaSettings) -> None:
    send(topics_applied, ITEMS, [(f"pipe-{number}", None, []) for number in range(500)])
    tail = subprocess.Popen(
        [sys.executable, "-m", "millrace", "tail", "items", "--from", "beginning"],
        cwd=ROOT,
        env=clean_environment() | dict(cli_env),
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
    run: Run, cli_env: Mapping[str, str], topics_applied: KafkaSettings, process: StartProcess, tmp_path: Path
) -> None:
    journal = Journal(tmp_path / "journal")
    places = send(topics_applied, ITEMS, [(f"lag-{number}", None, []) for number in range(40)])
    children = {}
    for name, assignment in (("lag-group", "shared"), ("lag-leader", "single")):
        arguments = ("--name", name, "--topic", "items", "--assignment", assignment, "--journal", str(journal.path))
        children[name] = process("tests.stream_worker", *arguments, env=cli_env)
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
    watching = process("millrace", "lag", "--watch", "--over", "0.1", "--json", env=cli_env)
    watching.until(lambda: watching.output().count("lag-group") >= 6)
    watching.popen.send_signal(signal.SIGINT)
    assert watching.wait() == 130


def all_committed(kafka: KafkaSettings, group: str, places: Sequence[Place]) -> bool:
    positions = committed(kafka, group, ITEMS)
    return all(positions.get(partition, 0) > offset for _topic, partition, offset in places)


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
    arguments: tuple[str, ...], absent: frozenset[str], cli_env: Mapping[str, str]
) -> None:
    code = (
        "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); "
        f"sys.argv[1:] = {list(arguments)!r}; from millrace.cli.main import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=clean_environment() | dict(cli_env) | {"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    assert not absent & set(done.stderr.split()), arguments
