"""Joiner and learner together, fed what no shop should send: what is wrong is set aside, the rest is learned once."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping

import numpy as np
from confluent_kafka import Producer
from google.protobuf.message import Message

from benchmarks.seed import promote_first_ranker
from millrace.learning.examples import read_examples
from millrace.learning.learner import OnlineRanker
from millrace.learning.parameters import to_vector
from millrace.learning.state import LearnerState, fresh
from millrace.learning.updates import Lines
from millrace.ranking.features import FEATURE_SCHEMA
from millrace.ranking.first import first_ranker
from millrace.settings import KafkaSettings
from millrace.stream.clients import producer_config
from millrace.stream.codec import encode
from millrace.stream.logs import kafka_logger
from millrace.topics import IMPRESSIONS, INTERACTIONS, MODEL_UPDATES, OUTCOMES, Topic
from millrace.v1.model_pb2 import ModelUpdate
from millrace.v1.outcome_pb2 import Outcome
from tests.conftest import StartProcess
from tests.learning_support import D
from tests.outcome_support import act, check_frames, impression, labels
from tests.processes import PATIENCE_S
from tests.stream_support import headers_of, read_all, send

USER = "user"  # one user's outcomes stand in one partition: their order is the log's


def now_ms() -> int:
    return int(time.time() * 1_000)


def put(kafka: KafkaSettings, topic: Topic, *messages: Message) -> None:
    send(kafka, topic, [(USER, *encode(message)) for message in messages])


def put_at_once(kafka: KafkaSettings, *messages: tuple[Topic, Message]) -> None:
    """Send records of several topics with one producer: nothing can hold one up that the others do not wait for."""
    producer = Producer(producer_config(kafka), logger=kafka_logger())
    for topic, message in messages:
        value, headers = encode(message)
        producer.produce(topic.name, value, USER, headers=headers)  # type: ignore[arg-type]  # a list is invariant
    assert producer.flush(PATIENCE_S) == 0


def outcomes(kafka: KafkaSettings) -> list[Outcome]:
    return [Outcome.FromString(message.value() or b"") for message in read_all(kafka, OUTCOMES.name)]


def newest(kafka: KafkaSettings) -> LearnerState | None:
    lines = Lines("ranker")
    for message in read_all(kafka, MODEL_UPDATES.name):
        lines.apply(ModelUpdate.FromString(message.value() or b""))
    return lines.last


def fields(kafka: KafkaSettings, topic: Topic) -> list[str]:
    """What the dead letters of a topic name as wrong."""
    return sorted(headers_of(dead)["dlq.field"].decode() for dead in read_all(kafka, topic.dlq))


def learned_once(some: Iterable[Outcome]) -> OnlineRanker:
    """A learner that got these outcomes, each once."""
    ranker = OnlineRanker(fresh(first_ranker(), "1", "promoted-1", 1))
    for outcome in some:
        ranker.learn(*read_examples(outcome, FEATURE_SCHEMA, D))
    return ranker


def test_what_is_wrong_is_set_aside_and_the_rest_is_learned_once(
    topics_applied: KafkaSettings, kafka_env: Mapping[str, str], process: StartProcess
) -> None:
    kafka = topics_applied
    promote_first_ranker(kafka)
    env = {
        **kafka_env,
        "MILLRACE_JOINER_ATTRIBUTION_WINDOW_MS": "3000",
        "MILLRACE_JOINER_ORGANIC_RATE": "0",
        "ONLINE_LEARNING_SNAPSHOT_INTERVAL_MS": "200",
    }
    at_ms = now_ms()

    good = impression("good", USER, ["a", "b", "c"], at_ms)
    ignored = impression("ignored", USER, ["x", "y", "z"], at_ms, viewport=2)
    # Not wrong: what another model showed by the same features teaches as well.
    ignored.model_name = "challenger"
    foreign = impression("foreign", USER, ["a", "b"], at_ms)
    foreign.feature_schema = "v0-unknown"
    broken = impression("broken", USER, ["a", "b"], at_ms)
    broken.slots[1].features[3] = math.nan
    click = act(USER, "b", "click", at_ms + 1, "good")

    put(kafka, INTERACTIONS, click)  # before its impression
    put(kafka, IMPRESSIONS, good, good, ignored, foreign, broken, good)
    put(
        kafka,
        INTERACTIONS,
        click,
        act(USER, "b", "click", at_ms + 2, "good"),
        act(USER, "never shown", "click", at_ms + 3, "good"),
        act(USER, "a", "click", at_ms + 4, "foreign"),
        act(USER, "b", "click", at_ms + 5, "broken"),
    )
    # All of it stands in the log by now: else windows might close by the clock before the clicks are there.
    joiner = process("workers.outcome_joiner", env=env)
    learner = process("workers.online_learner", env=env)
    joiner.until(lambda: sum(outcome.final for outcome in outcomes(kafka)) == 4, interval_s=0.2)
    # Comes last: learning has gone on, and the same impression after its window closed is none.
    at_ms = now_ms()
    put_at_once(
        kafka,
        (IMPRESSIONS, good),
        (IMPRESSIONS, impression("after", USER, ["a"], at_ms)),
        (INTERACTIONS, act(USER, "a", "click", at_ms + 1, "after")),
    )
    joiner.until(lambda: sum(outcome.final for outcome in outcomes(kafka)) == 5, interval_s=0.2)

    found = outcomes(kafka)
    check_frames(found)
    assert labels(found) == {
        ("good", "a"): "negative",
        ("good", "b"): "positive",
        ("good", "c"): "unseen",
        ("ignored", "x"): "negative",
        ("ignored", "y"): "negative",
        ("ignored", "z"): "unseen",
        ("foreign", "a"): "positive",
        ("foreign", "b"): "unseen",
        ("broken", "a"): "negative",
        ("broken", "b"): "positive",
        ("after", "a"): "positive",
    }
    assert fields(kafka, INTERACTIONS) == ["item_id"]
    assert fields(kafka, IMPRESSIONS) == []

    # Of ours: a and b of "good", x and y of "ignored", a of "broken", and "after".
    expected = learned_once(
        outcome
        for outcome in found
        if outcome.request_id != "foreign" and (outcome.request_id, outcome.slots[0].slot.item_id) != ("broken", "b")
    )
    assert expected.examples == 6

    def observations() -> int:
        state = newest(kafka)
        return state.model.observations if state is not None else 0

    learner.until(lambda: observations() >= first_ranker().observations + 6, interval_s=0.2)
    state = newest(kafka)
    assert state is not None
    assert state.model.observations == first_ranker().observations + 6
    np.testing.assert_array_equal(to_vector(state.model), to_vector(expected.model()))
    wrong = ["impression.feature_schema", "impression.feature_schema", "slots[0].slot.features[3]"]
    learner.until(lambda: fields(kafka, OUTCOMES) == wrong, interval_s=0.2)
    for child in (joiner, learner):
        assert child.terminate() == 0, child.output()
