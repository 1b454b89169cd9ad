"""``millrace story`` on a real broker, after the true joiner and the true learner did their parts."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from benchmarks.seed import promote_first_ranker
from millrace.settings import MINUTE_MS, KafkaSettings, Settings
from millrace.story import search
from millrace.story.lessons import Learned
from millrace.stream.admin import topic_ids
from millrace.stream.codec import encode
from millrace.stream.partitioner import partition_of
from millrace.topics import IMPRESSIONS, INTERACTIONS, MODEL_UPDATES, OUTCOMES, Topic
from millrace.v1.impression_pb2 import Impression
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.model_pb2 import ModelUpdate
from millrace.v1.outcome_pb2 import Outcome
from tests.conftest import StartProcess
from tests.integration.test_cli_edges import run
from tests.learning_support import PublishedLine
from tests.learning_support import outcomes as outcomes_of_a_world
from tests.outcome_support import act, impression
from tests.stream_support import Place, interaction, read_all, send

WINDOW_MS = 1_000


@pytest.fixture
def env(topics_applied: KafkaSettings, kafka_env: Mapping[str, str], millrace_home: Path) -> Mapping[str, str]:
    """Without organic examples the joiner needs no Redis."""
    promote_first_ranker(topics_applied, "ranker")
    return {
        **kafka_env,
        "MILLRACE_HOME": str(millrace_home),
        "MILLRACE_JOINER_ATTRIBUTION_WINDOW_MS": str(WINDOW_MS),
        "MILLRACE_JOINER_ORGANIC_RATE": "0",
    }


def put(kafka: KafkaSettings, topic: Topic, messages: Iterable[Impression | Interaction | Outcome]) -> list[Place]:
    return send(kafka, topic, [(message.user_id, *encode(message)) for message in messages])


def test_an_answer_from_the_click_to_the_parameters(
    topics_applied: KafkaSettings, env: Mapping[str, str], process: StartProcess
) -> None:
    kafka, at_ms = topics_applied, time.time_ns() // 1_000_000
    shown = impression("the answer", "anna", ["a", "b", "c", "d"], at_ms, viewport=2)
    put(kafka, IMPRESSIONS, [impression(f"other {n}", f"user {n}", ["a"], at_ms) for n in range(5)])
    [(_, partition, offset)] = put(kafka, IMPRESSIONS, [shown])
    clicks = [act("anna", "b", at_ms=at_ms + 300, request_id="the answer"), act("anna", "a", at_ms=at_ms + 400)]
    [(_, _, first), (_, _, second)] = put(kafka, INTERACTIONS, clicks)

    # Served ahead of the broker's clock, by less than is refused: its window is open for some minutes.
    put(kafka, IMPRESSIONS, [impression("an open one", "otto", ["a", "b"], at_ms + 4 * MINUTE_MS)])

    joiner, learner = (process(f"workers.{name}", env=env) for name in ("outcome_joiner", "online_learner"))
    joiner.until(lambda: len(outcomes(kafka, "the answer")) == 3, interval_s=0.2)
    learner.until(lambda: examples(kafka) == 7, interval_s=0.2)

    story = json.loads(told(run("story", "the answer", "--user", "anna", "--json", env=env)))
    assert story["answer"]["position"] == {"topic": "impressions", "partition": partition, "offset": offset}
    assert [(one["item_id"], one["label"], one["by"], one["after_s"]) for one in story["slots"]] == [
        ("a", "positive", "click", 0.4),
        ("b", "positive", "click", 0.3),
        ("c", "unseen", None, None),
        ("d", "unseen", None, None),
    ]
    assert [(one["position"]["offset"], one["names_answer"]) for one in story["interactions"]] == [
        (first, True),
        (second, False),
    ]
    assert story["standing"] == "decided"
    assert [(one["first"], one["final"], one["ranks"]) for one in story["outcomes"]] == [
        (True, False, [1]),
        (False, False, [0]),
        (False, True, [2, 3]),
    ]
    for lesson in story["learning"][:2]:
        assert lesson["learned"] == "learned"
        assert lesson["update"]["epoch"] == 1
        assert lesson["delay_ms"] >= 0
        assert lesson["moves"]
        for move in lesson["moves"]:
            assert move["before"] != move["after"]
    text = told(run("story", "the answer", env=env))
    assert "a\t0.1000\t\tpositive: click after 0.4 s" in text
    assert "c\t0.1000\t\tunseen" in text
    assert "by update 1." in text
    assert " in all" in text
    assert "weight of\tbefore\tafter\tchange" in text
    undecided = told(run("story", "an open one", "--user", "otto", env=env))
    assert (
        "no outcome yet: the window of 1 s (MILLRACE_JOINER_ATTRIBUTION_WINDOW_MS as set here) is open until"
        in undecided
    )
    assert "nothing that names this answer" in undecided
    assert "Parameters" not in undecided
    for child in (joiner, learner):
        assert child.terminate() == 0, child.output()


def test_what_is_not_there_says_what_was_searched(env: Mapping[str, str]) -> None:
    everywhere = run("story", "nowhere", env=env)
    assert (everywhere.returncode, everywhere.stdout) == (1, b"")
    said = everywhere.stderr.decode()
    assert "no answer 'nowhere': " in said
    assert "answers in all partitions of topic impressions" in said
    assert "(the topic keeps 7 days)" in said
    assert "Traceback" not in said
    one = run("story", "nowhere", "--user", "anna", env=env).stderr.decode()
    assert f"in partition {partition_of('anna', 3)}, that of user 'anna'" in one


def test_what_is_not_in_the_newest_records_is_found_further_back(
    topics_applied: KafkaSettings, env: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer older than the first look, and an outcome whose update comes long after the last snapshot."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(search, "LOOKS_BACK_MS", (0, None))
    monkeypatch.setattr(search, "LESSON_LEAD_MS", 0)
    kafka, at_ms = topics_applied, time.time_ns() // 1_000_000
    put(kafka, IMPRESSIONS, [impression("an old one", "olga", ["a"], at_ms)])
    before, ours = outcomes_of_a_world(2)
    before.user_id = ours.user_id = "olga"
    ours.request_id = "an old one"
    [(_, partition, offset)] = put(kafka, OUTCOMES, [before])
    topic_id = topic_ids(kafka, [OUTCOMES.name])[OUTCOMES.name]
    line = PublishedLine([*[before] * (offset + 1), ours], topic_id, at_ms, partition=partition)
    send(kafka, MODEL_UPDATES, [("ranker", *encode(record)) for record in (line.learn(offset + 1), line.snapshot())])
    [(_, _, ours_at)] = put(kafka, OUTCOMES, [ours])
    assert ours_at == offset + 1
    weights = line.vector
    send(kafka, MODEL_UPDATES, [("ranker", *encode(line.learn(1)))])

    topics_read: list[str] = []
    found = search.StorySearch(Settings(), lambda topic, *_: topics_read.append(topic)).find(
        "an old one", None, time.time_ns() // 1_000_000 + 1
    )
    assert found.answer.message.user_id == "olga"
    [lesson] = found.lessons
    assert (lesson.what, lesson.slots) == (Learned.LEARNED, 5)
    assert lesson.moves
    assert {move.before for move in lesson.moves} <= set(weights.tolist())
    # The first look began after the snapshot.
    assert topics_read.count(MODEL_UPDATES.name) >= 2


def test_records_of_a_user_are_where_they_are_looked_for(topics_applied: KafkaSettings) -> None:
    users = [*(f"user-{number}" for number in range(60)), "élodie", "用户", "a b", "x" * 256]
    places = send(topics_applied, INTERACTIONS, [interaction(user) for user in users])
    assert [partition for _, partition, _ in places] == [partition_of(user, 3) for user in users]


def told(outcome: subprocess.CompletedProcess[bytes]) -> str:
    assert outcome.returncode == 0, outcome.stderr.decode()
    assert outcome.stderr == b""
    return outcome.stdout.decode()


def outcomes(kafka: KafkaSettings, request_id: str) -> list[Outcome]:
    found = [Outcome.FromString(message.value() or b"") for message in read_all(kafka, OUTCOMES.name)]
    return [outcome for outcome in found if outcome.request_id == request_id]


def examples(kafka: KafkaSettings) -> int:
    """Slots learned by now."""
    records = [ModelUpdate.FromString(message.value() or b"") for message in read_all(kafka, MODEL_UPDATES.name)]
    return max((record.update.examples for record in records), default=0)
