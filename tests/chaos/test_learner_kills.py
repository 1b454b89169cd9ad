"""The learner killed with -9 again and again: its weights are those of a run that was never stopped."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka import Consumer, TopicPartition

from benchmarks.reliability_document import LEARNER_DIES
from benchmarks.seed import promote_first_ranker
from millrace.learning.examples import read_examples
from millrace.learning.learner import OnlineRanker
from millrace.learning.parameters import to_vector
from millrace.learning.state import LearnerState, fresh
from millrace.learning.updates import Lines
from millrace.ranking.features import FEATURE_SCHEMA
from millrace.ranking.first import first_ranker
from millrace.settings import KafkaSettings
from millrace.stream import logs
from millrace.stream.clients import consumer_config
from millrace.stream.codec import encode
from millrace.topics import MODEL_UPDATES, OUTCOMES
from millrace.v1.model_pb2 import ModelUpdate
from millrace.v1.outcome_pb2 import Outcome
from tests.chaos.impatient import impatient_kafka
from tests.chaos.results import Found, report, times
from tests.conftest import StartProcess
from tests.learning_support import D, outcomes
from tests.stream_support import read_all, ready, send

SEED = 20_261_125
# That many in the middle of a lot, in no more lives than these.
KILLS, LIVES_MAX = 8 * times(), 40 * times()
OUTCOMES_PER_LIFE = 800
# A buffer is published every 10 ms or so. A life ends at most three buffers' time after this share of its lot.
BUFFER, LEARNED, LATER_S = 50, (0.05, 0.5), (0.0, 0.03)


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory, kafka_jars: tuple[Path, ...]) -> Iterator[KafkaSettings]:
    with impatient_kafka(tmp_path_factory.mktemp("kafka"), kafka_jars) as kafka:
        yield kafka


class Watched:
    """What stands in model-updates, as it comes."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._consumer = Consumer(consumer_config(kafka, "tests"), logger=logs.kafka_logger())
        self._consumer.assign([TopicPartition(MODEL_UPDATES.name, 0, 0)])
        self._lines = Lines("ranker")

    def learned(self, within_s: float = 0.02) -> dict[int, int]:
        """Positions of the newest whole state."""
        for message in self._consumer.consume(1_000, within_s):
            assert message.error() is None, message.error()
            self._lines.apply(ModelUpdate.FromString(message.value() or b""))
        return dict(self._lines.last.learned) if self._lines.last is not None else {}

    def close(self) -> LearnerState:
        """The newest whole state, for good."""
        self._consumer.close()
        assert self._lines.last is not None
        return self._lines.last


def without_stops(kafka: KafkaSettings) -> LearnerState:
    """The state after everything in the topic, in the order of the log, learned in one go."""
    ranker, learned = OnlineRanker(fresh(first_ranker(), "1", "promoted-1", 1)), dict[int, int]()
    messages = read_all(kafka, OUTCOMES.name)
    for message in sorted(messages, key=lambda one: (one.timestamp()[1], one.partition(), one.offset())):
        ranker.learn(*read_examples(Outcome.FromString(message.value() or b""), FEATURE_SCHEMA, D))
        learned[message.partition() or 0] = (message.offset() or 0) + 1
    return ranker.state(0, learned, "")


def test_killed_again_and_again_it_learns_the_same(
    kafka: KafkaSettings, process: StartProcess, millrace_home: Path
) -> None:
    chance = random.Random(SEED)
    promote_first_ranker(kafka)
    env = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "KAFKA_PARTITIONS": str(kafka.partitions),
        "ONLINE_LEARNING_BUFFER_SIZE": str(BUFFER),
        "ONLINE_LEARNING_SNAPSHOT_INTERVAL_MS": "50",
    }
    watched = Watched(kafka)
    reached: list[int] = []
    for life in range(LIVES_MAX):
        # Written before the life begins: the order in which it is read is then a matter of the log.
        lot = outcomes(OUTCOMES_PER_LIFE, seed=life)
        send(kafka, OUTCOMES, [(outcome.user_id, *encode(outcome)) for outcome in lot])
        goal = OUTCOMES_PER_LIFE * (life + chance.uniform(*LEARNED))
        learner = process("workers.online_learner", env=env)
        learner.until(lambda goal=goal: sum(watched.learned().values()) >= goal, interval_s=0)  # type: ignore[misc]
        time.sleep(chance.uniform(*LATER_S))
        learner.kill()
        reached.append(sum(watched.learned(0.5).values()))
        # In the middle of a lot, each time at another point; a stall of this process costs a life.
        if sum(at < OUTCOMES_PER_LIFE * (life + 1) for life, at in enumerate(reached)) == KILLS:
            break
    else:
        pytest.fail(f"too few kills in the middle of a lot: {reached}")

    learner = process("workers.online_learner", env=env)
    expected = without_stops(kafka)
    learner.until(lambda: watched.learned() == dict(expected.learned), interval_s=0)
    # All of it may have been learned before the last kill.
    learner.until(lambda: ready(learner, "online_learner"))
    assert learner.terminate() == 0, learner.output()
    watched.learned(0.5)
    state = watched.close()
    found = Found(events=sum(expected.learned.values()))
    found.compare(expected.model.observations, state.model.observations)
    report(LEARNER_DIES, len(reached), found)
    np.testing.assert_allclose(to_vector(state.model), to_vector(expected.model), rtol=0, atol=1e-9)
    np.testing.assert_allclose(state.squared_gradients, expected.squared_gradients, rtol=0, atol=1e-9)
