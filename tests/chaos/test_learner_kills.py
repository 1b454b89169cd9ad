"""The learner killed with -9 at ten moments: its weights are those of a run that was never stopped."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.seed import promote_first_ranker
from millrace.learning.examples import read_examples
from millrace.learning.learner import OnlineRanker
from millrace.learning.parameters import to_vector
from millrace.learning.state import LearnerState, fresh
from millrace.learning.updates import Lines
from millrace.ranking.features import FEATURE_SCHEMA
from millrace.ranking.model import first_ranker
from millrace.settings import KafkaSettings
from millrace.stream.codec import encode
from millrace.topics import MODEL_UPDATES, OUTCOMES
from millrace.v1.model_pb2 import ModelUpdate
from millrace.v1.outcome_pb2 import Outcome
from tests.chaos.impatient import impatient_kafka
from tests.conftest import StartProcess
from tests.learning_support import D, outcomes
from tests.stream_support import read_all, send

SEED = 20_261_125
KILLS = 10
OUTCOMES_PER_LIFE = 400
# The first records come half a second after the start; then a life's 2,000 slots take a second with this buffer.
BUFFER, LIFE_S = 50, (0.4, 1.6)


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory, kafka_jars: tuple[Path, ...]) -> Iterator[KafkaSettings]:
    with impatient_kafka(tmp_path_factory.mktemp("kafka"), kafka_jars) as kafka:
        yield kafka


def lines(kafka: KafkaSettings) -> Lines:
    """What stands in model-updates."""
    found = Lines("ranker")
    for message in read_all(kafka, MODEL_UPDATES.name):
        found.apply(ModelUpdate.FromString(message.value() or b""))
    return found


def without_stops(kafka: KafkaSettings) -> LearnerState:
    """The state after everything in the topic, in the order of the log, learned in one go."""
    ranker, learned = OnlineRanker(fresh(first_ranker(), "1", "promoted-1", 1)), dict[int, int]()
    messages = read_all(kafka, OUTCOMES.name)
    for message in sorted(messages, key=lambda one: (one.timestamp()[1], one.partition(), one.offset())):
        ranker.learn(*read_examples(Outcome.FromString(message.value() or b""), FEATURE_SCHEMA, D))
        learned[message.partition() or 0] = (message.offset() or 0) + 1
    return ranker.state(0, learned, "")


def test_killed_ten_times_it_learns_the_same(kafka: KafkaSettings, process: StartProcess, millrace_home: Path) -> None:
    chance = random.Random(SEED)
    promote_first_ranker(kafka)
    env = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "KAFKA_PARTITIONS": str(kafka.partitions),
        "ONLINE_LEARNING_BUFFER_SIZE": str(BUFFER),
        "ONLINE_LEARNING_SNAPSHOT_INTERVAL_MS": "50",
    }
    reached: list[int] = []
    for life in range(KILLS):
        # Written before the life begins: the order in which it is read is then a matter of the log.
        lot = outcomes(OUTCOMES_PER_LIFE, seed=life)
        send(kafka, OUTCOMES, [(outcome.user_id, *encode(outcome)) for outcome in lot])
        learner = process("workers.online_learner", env=env)
        learner.until(lambda learner=learner: "reads from" in learner.output(), interval_s=0.01)  # type: ignore[misc]
        time.sleep(chance.uniform(*LIFE_S))
        learner.kill()
        last = lines(kafka).last
        reached.append(sum(last.learned.values()) if last is not None else 0)
    # The kills came at different points of the lots, most of them in the middle.
    assert sum(at % OUTCOMES_PER_LIFE > 0 for at in reached) >= KILLS // 2, reached

    learner = process("workers.online_learner", env=env)
    expected = without_stops(kafka)

    def all_learned() -> bool:
        last = lines(kafka).last
        return last is not None and dict(last.learned) == dict(expected.learned)

    learner.until(all_learned, interval_s=0.2)
    assert learner.terminate() == 0, learner.output()
    state = lines(kafka).last
    assert state is not None
    np.testing.assert_allclose(to_vector(state.model), to_vector(expected.model), rtol=0, atol=1e-9)
    np.testing.assert_allclose(state.squared_gradients, expected.squared_gradients, rtol=0, atol=1e-9)
