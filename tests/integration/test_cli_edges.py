"""The commands at the edges, as a person runs them, against a real broker and Redis."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest

from deploy.embedded.member import clean_environment
from millrace.events.replay import SAVE_ROWS
from millrace.settings import FeatureSettings, KafkaSettings, StreamSettings
from millrace.stream.reader import TopicReader
from millrace.topics import INTERACTIONS, ITEMS, Topic
from millrace.v1.interaction_pb2 import Interaction, InteractionType
from millrace.v1.item_pb2 import Item
from tests.conftest import ROOT, StartProcess
from tests.feature_support import connected, load_item, load_user
from tests.processes import PATIENCE_S

FIRST_MS = 1_506_826_800_000
KILLS = 3


def run(*arguments: str, env: Mapping[str, str], given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "millrace", *arguments],
        cwd=ROOT,
        env=clean_environment() | dict(env),
        input=given,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.fixture
def env(topics_applied: KafkaSettings, kafka_env: Mapping[str, str], millrace_home: Path) -> Mapping[str, str]:
    return {**kafka_env, "MILLRACE_HOME": str(millrace_home)}


def events(kafka: KafkaSettings, prefix: str, topic: Topic = INTERACTIONS) -> list[Interaction]:
    found: list[Interaction] = []
    with TopicReader(kafka, [topic], "beginning", StreamSettings()) as reader:
        while not reader.caught_up:
            messages = [record.message for record in reader.poll()]
            found += [m for m in messages if isinstance(m, Interaction) and m.user_id.startswith(prefix)]
    return found


def write_clicks(path: Path, prefix: str, rows: int) -> None:
    lines = [f"{prefix}{n % 500},item-{n % 97},{FIRST_MS + n * 10}" for n in range(rows)]
    path.write_text("u,i,t\n" + "\n".join(lines) + "\n")


def test_topics_commands(env: Mapping[str, str]) -> None:
    applied = json.loads(run("topics", "apply", "--json", env=env).stdout)
    assert {topic["action"] for topic in applied} == {"unchanged"}
    listed = {topic["name"]: topic for topic in json.loads(run("topics", "list", "--json", env=env).stdout)}
    assert listed["interactions"]["partitions"] == 3
    refused = run("topics", "apply", env={**env, "KAFKA_PARTITIONS": "5"})
    assert refused.returncode == 1
    assert b"or migrate" in refused.stderr
    plain = run("topics", "list", env=env).stdout.decode().splitlines()
    assert plain[0].startswith("topic\tpartitions\t")
    assert len(plain) == len(listed) + 1


def test_produce_publishes_the_good_lines_and_names_the_bad(
    topics_applied: KafkaSettings, env: Mapping[str, str]
) -> None:
    given = b"\n".join(
        [
            b'{"user_id": "produce-1", "item_id": "shoe", "event_id": "a"}',
            b"",
            b'{"user_id": "produce-1"}',
            b"not json",
            b'{"userId": "produce-1", "itemId": "hat", "eventId": "b", "type": "INTERACTION_TYPE_LIKE"}',
        ]
    )
    outcome = run("produce", env=env, given=given)
    assert outcome.returncode == 1
    assert outcome.stdout == b"2 events acknowledged, 2 bad lines\n"
    assert b"line 3: item_id: missing" in outcome.stderr
    assert b"line 4: line: not JSON" in outcome.stderr
    as_json = run("produce", "--json", env=env, given=given)
    said = json.loads(as_json.stdout)
    assert (said["acknowledged"], said["bad"], as_json.returncode) == (2, 2, 1)
    assert [(problem["line"], problem["field"]) for problem in said["problems"]] == [(3, "item_id"), (4, "line")]
    assert Counter(event.event_id for event in events(topics_applied, "produce-1")) == {"a": 2, "b": 2}

    good = run("produce", "--items", env=env, given=b'{"item_id": "sock", "title": "Sock"}\n')
    assert (good.returncode, good.stdout) == (0, b"1 events acknowledged, 0 bad lines\n")
    with TopicReader(topics_applied, [ITEMS], "beginning", StreamSettings()) as reader:
        found = []
        while not reader.caught_up:
            found += [record.message for record in reader.poll()]
    assert Item(item_id="sock", title="Sock") in found


def test_forget_is_acknowledged(topics_applied: KafkaSettings, env: Mapping[str, str]) -> None:
    said = json.loads(run("users", "forget", "forget-1", "--json", env=env).stdout)
    (event,) = events(topics_applied, "forget-1")
    assert event.type == InteractionType.INTERACTION_TYPE_FORGET
    assert event.event_id == said["event_id"]


def test_replay_killed_with_minus_9_goes_on_and_misses_nothing(
    topics_applied: KafkaSettings, env: Mapping[str, str], millrace_home: Path, process: StartProcess, tmp_path: Path
) -> None:
    rows = 8 * SAVE_ROWS
    path = tmp_path / "kills.csv"
    write_clicks(path, "kill-", rows)
    arguments = ("replay", "--file", str(path), "--map", "user=u,item=i,time=t")

    def done() -> int:
        found = list((millrace_home / "replay").glob("kills.csv-*.json"))
        return json.loads(found[0].read_text())["rows"] if found else 0

    def further_than(rows: int) -> bool:
        return done() > rows

    for _ in range(KILLS):
        before = done()
        # At 2,000 rows a second all of them take 20 s: it is killed long before, also by a slow machine.
        child = process("millrace", *arguments, "--speed", "20x", env=env)
        child.until(partial(further_than, before), interval_s=0.005)
        child.kill()
    assert done() < rows
    last = run(*arguments, "--json", env=env)
    assert last.returncode == 0, last.stderr
    assert json.loads(last.stdout)["to_row"] == rows

    published = events(topics_applied, "kill-")
    counts = Counter(event.event_id for event in published)
    assert len(counts) == rows
    assert counts.total() - rows <= KILLS * SAVE_ROWS
    of_one = [event.occurred_at_ms for event in published if event.user_id == "kill-7"]
    assert list(dict.fromkeys(of_one)) == sorted(set(of_one))

    again = run(*arguments, env=env)
    assert b"nothing left" in again.stdout
    assert len(events(topics_applied, "kill-")) == len(published)


def test_replay_stops_at_ctrl_c_and_goes_on(
    topics_applied: KafkaSettings, env: Mapping[str, str], millrace_home: Path, process: StartProcess, tmp_path: Path
) -> None:
    """At a tenth of the recorded speed 300 rows take 30 s; after Ctrl-C the rest follows, each row once."""
    path = tmp_path / "stops.csv"
    write_clicks(path, "stop-", 300)
    arguments = ("replay", "--file", str(path), "--map", "user=u,item=i,time=t")
    child = process("millrace", *arguments, "--speed", "0.1x", env=env)
    child.until(lambda: list((millrace_home / "replay").glob("stops.csv-*.json")))
    child.popen.send_signal(signal.SIGINT)
    assert child.wait() == 128 + signal.SIGINT, child.output()
    assert "the same command goes on from here" in child.output()
    assert 0 < len(events(topics_applied, "stop-")) < 300
    assert run(*arguments, env=env).returncode == 0
    assert Counter(event.event_id for event in events(topics_applied, "stop-")).total() == 300


def test_replay_names_bad_lines(env: Mapping[str, str]) -> None:
    path = ROOT / "tests" / "data" / "malformed.csv"
    arguments = ("replay", "--file", str(path), "--map", "user=visitor,item=sku,time=when")
    outcome = run(*arguments, "--strict", env=env)
    assert outcome.returncode == 1
    assert b"stopped at line 3 (user_id: missing" in outcome.stderr
    outcome = run(*arguments, env=env)
    assert outcome.returncode == 0
    assert b"1 events published and acknowledged, 5 bad lines" in outcome.stdout
    assert [line.split(b":")[0] for line in outcome.stderr.splitlines() if line.startswith(b"line")] == [
        b"line 3",
        b"line 4",
        b"line 5",
        b"line 6",
        b"line 7",
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("replay",), "--dataset NAME, or --file FILE"),
        (
            ("replay", "--dataset", "netflix"),
            "known: globo, ml-100k, ml-latest-small, serenade-toy, yoochoose-sample, diginetica",
        ),
        (("replay", "--file", "/nowhere.csv"), "no file /nowhere.csv"),
        (("replay", "--dataset", "globo", "--speed", "warp"), "--speed warp"),
        (("recommend", "--user", "a", "--k", "0"), "k: 0"),
        (("recommend", "--user", "a", "--as-of", "soon"), "as_of_ms: 'soon'"),
        (("users", "show", ""), "user_id: missing"),
        (("story", ""), "request_id: missing"),
        (("story", "a", "--user", "\n"), "user_id: control character U+000A"),
    ],
)
def test_mistakes_are_messages(arguments: tuple[str, ...], says: str, env: Mapping[str, str]) -> None:
    outcome = run(*arguments, env=env)
    assert outcome.returncode == 1
    assert says in outcome.stderr.decode()
    assert b"Traceback" not in outcome.stderr


def test_a_missing_data_set_says_how_to_get_it(env: Mapping[str, str], tmp_path: Path) -> None:
    outcome = run("replay", "--dataset", "globo", env={**env, "MILLRACE_DATA": str(tmp_path)})
    assert outcome.returncode == 1
    assert b"MILLRACE_DATA" in outcome.stderr


def test_absent_servers_are_named(env: Mapping[str, str]) -> None:
    nowhere = {**env, "REDIS_URL": "redis://127.0.0.1:1/0", "MILLRACE_RECOMMENDER_TARGET": "127.0.0.1:1"}
    for arguments, says in (
        (("users", "show", "a"), "redis"),
        (("items", "show", "a"), "redis"),
        (("recommend", "--user", "a"), "recommender at 127.0.0.1:1"),
    ):
        outcome = run(*arguments, env=nowhere)
        assert outcome.returncode == 1
        assert says in outcome.stderr.decode()
        assert b"Traceback" not in outcome.stderr


def test_what_is_unknown_is_no_error_but_status_1(env: Mapping[str, str], redis_url: str) -> None:
    for arguments in (("users", "show", "nobody"), ("items", "show", "nothing")):
        outcome = run(*arguments, env={**env, "REDIS_URL": redis_url})
        assert (outcome.returncode, outcome.stdout) == (1, b"")
        assert b"nothing is known of" in outcome.stderr


def test_features_are_shown(env: Mapping[str, str], redis_url: str, process: StartProcess) -> None:
    """A feature updater takes what was produced; both commands show it, as text and as JSON."""
    env = {**env, "REDIS_URL": redis_url}
    lines = [
        {"user_id": "show-1", "item_id": item, "type": kind, "session_id": "s", **more}
        for item, kind, more in (
            ("shown-a", "click", {}),
            ("shown-b", "purchase", {"value": 9.5}),
            ("shown-c", "dislike", {}),
        )
    ]
    run("produce", env=env, given="\n".join(map(json.dumps, lines)).encode())
    run("produce", "--items", env=env, given=b'{"item_id": "shown-b", "title": "[b]", "price": 3}')
    worker = process("workers.feature_updater", env=env)
    store = connected(redis_url, empty=False)

    def taken() -> bool:
        """A batch may end between the user's events, items follow users, and the catalogue is another topic."""
        user, item = load_user(store, "show-1"), load_item(store, "shown-b", FeatureSettings())
        whole = user is not None and sum(user.counts.values()) == len(lines)
        return whole and item is not None and item.counts.purchases == 1 and item.HasField("catalogue")

    worker.until(taken)
    store.close()
    user = json.loads(run("users", "show", "show-1", "--json", env=env).stdout)
    assert user["counts"] == {"click": 1, "purchase": 1, "dislike": 1}
    assert [recent["item_id"] for recent in user["recent"]] == ["shown-b", "shown-a"]
    assert (user["purchase_value"], user["disliked"], user["segment"]) == (9.5, ["shown-c"], "new")
    assert user["known"]["topic"] == "interactions"
    item = json.loads(run("items", "show", "shown-b", "--json", env=env).stdout)
    assert (item["counts"], item["catalogue"]["title"]) == ({"purchases": "1"}, "[b]")
    assert b"shown-b" in run("users", "show", "show-1", env=env).stdout
    text = run("items", "show", "shown-b", env=env).stdout.decode()
    assert "[b]" in text
    assert "purchases 1" in text
    assert worker.terminate() == 0, worker.output()


def test_common_commands_import_nothing_heavy() -> None:
    """A command that a person types answers at once: what takes seconds to import must not be imported."""
    modules = [
        "topics",
        "tail",
        "lag",
        "dlq",
        "completion",
        "produce",
        "replay",
        "recommend",
        "story",
        "users",
        "items",
        "config",
    ]
    code = f"import sys, importlib\nfor m in {modules!r}: importlib.import_module('millrace.cli.' + m)\n"
    code += "import millrace.client, millrace.stream.admin, millrace.features.store, millrace.events.datasets\n"
    code += "import millrace.inspection.settling, millrace.inspection.lag, millrace.inspection.where\n"
    code += "print(*sorted({'numpy', 'pandas', 'mlflow', 'river', 'scipy', 'faust'} & set(sys.modules)))"
    outcome = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=PATIENCE_S, check=True, text=True
    )
    assert outcome.stdout.strip() == ""
