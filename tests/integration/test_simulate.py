"""The simulated shop and an asking replay against a real broker, Redis, feature updater and recommender."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
import pytest

from millrace.settings import KafkaSettings, StreamSettings
from millrace.stream.reader import TopicReader
from millrace.topics import IMPRESSIONS, INTERACTIONS, ITEMS
from millrace.v1.impression_pb2 import AnswerStatus, Impression
from millrace.v1.interaction_pb2 import Interaction, InteractionType
from millrace.v1.item_pb2 import Item
from tests.conftest import Child, StartProcess
from tests.processes import PATIENCE_S
from tests.recommending import Service, recommender, wait_for

SMALL = ("--shoppers", "300", "--items", "100")


@pytest.fixture(scope="module")
def shop(
    topics_applied: KafkaSettings,
    kafka_env: Mapping[str, str],
    redis_url: str,
    millrace_home: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Service]:
    """A recommender that is ready; without a registry it ranks by the candidates' own scores."""
    env = {**kafka_env, "REDIS_URL": redis_url, "MLFLOW_TRACKING_URI": "http://127.0.0.1:1"}
    with recommender(millrace_home, tmp_path_factory.mktemp("recommender") / "log", env) as service:
        wait_for(service.ready, "the recommender")
        yield service


@pytest.fixture
def env(shop: Service, kafka_env: Mapping[str, str], redis_url: str) -> Mapping[str, str]:
    return {
        **kafka_env,
        "REDIS_URL": redis_url,
        "MILLRACE_RECOMMENDER_TARGET": shop.target,
        "MILLRACE_RECOMMENDER_TIMEOUT_MS": "60000",
    }


class Logs:
    """What stands on the topics, and what came since."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._before = self._read()

    def _read(self) -> list[Any]:
        with TopicReader(self._kafka, [INTERACTIONS, IMPRESSIONS, ITEMS], "beginning", StreamSettings()) as reader:
            found: list[Any] = []
            while not reader.caught_up:
                found += [record.message for record in reader.poll()]
        return found

    def since(self, answers: int) -> tuple[list[Interaction], dict[str, Impression], list[Item]]:
        """What came, once as many answers are logged: the recommender logs them a moment after it gave them."""
        messages: list[Any] = []

        def whole() -> bool:
            messages[:] = self._read()
            for message in self._before:
                messages.remove(message)
            return sum(isinstance(message, Impression) for message in messages) >= answers

        wait_for(whole, "the impressions")
        return (
            [message for message in messages if isinstance(message, Interaction)],
            {message.request_id: message for message in messages if isinstance(message, Impression)},
            [message for message in messages if isinstance(message, Item)],
        )


def figures(child: Child) -> dict[str, Any]:
    """What it printed at the end."""
    found: dict[str, Any] = json.loads(child.output().splitlines()[-1])
    return found


def kinds(events: list[Interaction]) -> dict[str, int]:
    return dict(Counter(InteractionType.Name(event.type).removeprefix("INTERACTION_TYPE_").lower() for event in events))


def metrics_of(child: Child, home: Path) -> str:
    announced = json.loads((home / "run" / f"simulate-{child.pid}.json").read_text())
    with urlopen(f"http://{announced['metrics']}/metrics", timeout=PATIENCE_S) as answer:
        return str(answer.read().decode())


def test_what_it_counts_stands_on_the_topics(
    process: StartProcess, env: Mapping[str, str], topics_applied: KafkaSettings
) -> None:
    logs = Logs(topics_applied)
    updater = process("workers.feature_updater", env=env)
    arms = ("--arm", "recommended:0.6", "--arm", "popular:0.2", "--arm", "random:0.2")
    child = process(
        "millrace", "simulate", "--rate", "40", "--duration", "8", "--json", "-k", "7", *SMALL, *arms, env=env
    )
    assert child.wait() == 0, child.output()
    said = figures(child)
    recommended, popular, random = said["arms"]
    events, impressions, items = logs.since(recommended["requests"])

    assert kinds(events) == said["events"]
    assert said["events"]["click"] > 0
    assert (said["lost"], said["turned_away"]) == (0, 0)
    assert sum(not event.request_id for event in events) == said["organic"] > 0

    # Everything that names an answer did so rightly.
    named = [event for event in events if event.request_id]
    assert named
    for event in named:
        impression = impressions[event.request_id]
        assert impression.user_id == event.user_id
        assert impression.session_id == event.session_id
        assert event.item_id in [slot.item_id for slot in impression.slots]
        assert event.occurred_at_ms >= impression.served_at_ms

    assert recommended["requests"] == len(impressions)
    assert recommended["requests_failed"] == 0
    assert (popular["requests"], random["requests"]) == (0, 0)
    # While the recommender reads the catalogue, it shows what it has.
    assert max(len(impression.slots) for impression in impressions.values()) == 7
    clicks = [event for event in named if event.type == InteractionType.INTERACTION_TYPE_CLICK]
    assert recommended["clicks"] == len(clicks)
    assert recommended["examined"] == said["events"]["view"]
    pages = {event.request_id for event in named}
    assert recommended["pages"] == len(pages)
    assert recommended["slots"] == sum(len(impressions[page].slots) for page in pages)
    assert recommended["click_through"]["value"] == pytest.approx(len(clicks) / recommended["slots"], abs=1e-6)
    assert sum(arm["purchases"] for arm in said["arms"]) == said["events"].get("purchase", 0)
    assert [one["arm"] for one in said["differences"]] == ["popular", "random"]
    assert len({item.item_id for item in items}) >= 100
    assert updater.terminate() == 0


def test_it_runs_until_ctrl_c_and_tastes_shift_on_command(
    process: StartProcess, env: Mapping[str, str], millrace_home: Path
) -> None:
    child = process("millrace", "simulate", "--rate", "20", "--shift-at", "0.2", *SMALL, env=env)
    child.until(lambda: (millrace_home / "run" / f"simulate-{child.pid}.json").exists())
    child.until(lambda: "millrace_simulation_shifts_total 1.0" in metrics_of(child, millrace_home))
    psutil.Process(child.pid).send_signal(signal.SIGUSR1)
    child.until(lambda: "millrace_simulation_shifts_total 2.0" in metrics_of(child, millrace_home))
    child.until(
        lambda: 'millrace_simulation_pages_total{arm="recommended"} 0.0' not in metrics_of(child, millrace_home)
    )
    child.until(lambda: " pages/s" in child.output())
    child.popen.send_signal(signal.SIGINT)
    assert child.wait() == 0, child.output()
    assert "2 shifts of taste" in child.output().splitlines()[-1]
    assert "\nrecommended\t" in child.output()
    assert not (millrace_home / "run" / f"simulate-{child.pid}.json").exists()


def test_without_a_recommender_people_search(
    process: StartProcess, env: Mapping[str, str], topics_applied: KafkaSettings
) -> None:
    logs = Logs(topics_applied)
    arm = "away=recommended@127.0.0.1:1"
    child = process("millrace", "simulate", "--rate", "20", "--duration", "5", "--json", "--arm", arm, *SMALL, env=env)
    assert child.wait() == 0, child.output()
    said = figures(child)
    (away,) = said["arms"]
    assert 0 < away["requests"] == away["requests_failed"]
    assert (away["slots"], away["click_through"]["value"]) == (0, None)
    events, impressions, _ = logs.since(0)
    assert not impressions
    assert kinds(events) == said["events"]
    assert len(events) == said["organic"] > 0


def test_a_fast_world_lies_in_the_past(
    process: StartProcess, env: Mapping[str, str], topics_applied: KafkaSettings
) -> None:
    """Sixty times as fast for 5 s: five minutes that end now."""
    logs = Logs(topics_applied)
    child = process(
        *("millrace", "simulate", "--rate", "20", "--duration", "5", "--speed", "60", "--json", *SMALL), env=env
    )
    assert child.wait() == 0, child.output()
    now_ms = time.time() * 1000
    events, impressions, _ = logs.since(figures(child)["arms"][0]["requests"])
    times = [event.occurred_at_ms for event in events]
    assert max(times) <= now_ms
    assert max(times) - min(times) > 100_000
    assert all(impression.as_of_given for impression in impressions.values())
    for event in events:
        if event.request_id:
            assert 0 <= event.occurred_at_ms - impressions[event.request_id].served_at_ms < 300_000


def test_a_fast_world_needs_an_end(process: StartProcess, env: Mapping[str, str]) -> None:
    child = process("millrace", "simulate", "--speed", "2", env=env)
    assert child.wait() == 1
    assert "--speed 2 needs --duration" in child.output()


def test_a_replay_that_asks(
    process: StartProcess, env: Mapping[str, str], topics_applied: KafkaSettings, tmp_path: Path
) -> None:
    """Everyone clicks one item again and again: it is in every answer once the first clicks are known."""
    logs = Logs(topics_applied)
    updater = process("workers.feature_updater", env=env)
    now_ms = round(time.time() * 1000)
    path = tmp_path / "asked.csv"
    rows = [
        f"asker-{number % 9},{'liked' if number % 2 else 'other'},{now_ms - 60_000 + number * 100},s"
        for number in range(60)
    ]
    path.write_text("\n".join(("u,i,t,s", *rows)) + "\n")
    child = process(
        *("millrace", "replay", "--file", str(path), "--map", "user=u,item=i,time=t,session=s"),
        *("--ask", "-k", "5", "--speed", "2x", "--json"),
        env=env,
    )
    assert child.wait() == 0, child.output()
    asked = figures(child)["asked"]
    events, impressions, _ = logs.since(asked["answered"])

    assert len(events) == 60
    assert (asked["k"], asked["answered"], asked["failed"]) == (5, 60, 0)
    assert len(impressions) == 60
    assert all(impression.as_of_given for impression in impressions.values())
    hits = [event for event in events if event.request_id]
    assert asked["hits"] == len(hits) > 0
    assert asked["hit_rate"] == pytest.approx(len(hits) / 60)
    places = []
    for event in hits:
        impression = impressions[event.request_id]
        assert (impression.user_id, impression.session_id) == (event.user_id, "s")
        assert impression.served_at_ms == event.occurred_at_ms
        assert impression.status != AnswerStatus.ANSWER_STATUS_FAILED
        places.append(1 + [slot.item_id for slot in impression.slots].index(event.item_id))
    assert asked["mrr"] == pytest.approx(sum(1 / place for place in places) / 60)
    of_one = [event.occurred_at_ms for event in events if event.user_id == "asker-3"]
    assert of_one == sorted(of_one)
    assert updater.terminate() == 0


def test_a_replay_goes_on_without_answers(
    process: StartProcess, env: Mapping[str, str], topics_applied: KafkaSettings, tmp_path: Path
) -> None:
    logs = Logs(topics_applied)
    path = tmp_path / "unanswered.csv"
    path.write_text("u,i,t\n" + "".join(f"alone-{number},i,{1_506_826_800_000 + number}\n" for number in range(20)))
    child = process(
        *("millrace", "replay", "--file", str(path), "--map", "user=u,item=i,time=t", "--ask"),
        env={**env, "MILLRACE_RECOMMENDER_TARGET": "127.0.0.1:1"},
    )
    assert child.wait() == 0, child.output()
    assert "20 events published and acknowledged" in child.output()
    assert "no answers, 20 requests failed" in child.output()
    events, _, _ = logs.since(0)
    assert len(events) == 20
    assert not any(event.request_id for event in events)
