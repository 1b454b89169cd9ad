"""Two learners: the one that learns is killed with -9, and the one that stands by goes on to the same weights."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.reliability_document import TAKEOVER
from benchmarks.seed import promote_first_ranker
from millrace.learning.examples import read_examples
from millrace.learning.learner import OnlineRanker
from millrace.learning.parameters import to_vector
from millrace.learning.state import LearnerState, fresh
from millrace.learning.updates import Lines
from millrace.ranking.features import FEATURE_SCHEMA
from millrace.ranking.first import first_ranker
from millrace.settings import KafkaSettings, StreamSettings
from millrace.stream.codec import encode
from millrace.stream.reader import TopicReader
from millrace.topics import MODEL_UPDATES, OUTCOMES
from millrace.v1.model_pb2 import ModelUpdate
from millrace.v1.outcome_pb2 import Outcome
from tests.chaos.impatient import impatient_kafka
from tests.chaos.results import Found, report, times
from tests.conftest import Child, StartProcess
from tests.learning_support import D, outcomes
from tests.stream_support import get, read_all, send

SEED = 20_261_126
# So many, and more until one came in the middle of a lot: a stall of this process may cost some.
TAKEOVERS, LIVES_MAX = 3 * times(), 20 * times()
LOT, SLOTS = 3_000, 5
# A leader dies when it has learned this share of its lot; a lot takes it half a second.
LEARNED = (0.1, 0.6)


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory, kafka_jars: tuple[Path, ...]) -> Iterator[KafkaSettings]:
    """One partition: a lot comes while a leader is awake, and its order must be that of the log all the same.

    A session that no stall of a busy machine ends: who leads is told by who was killed.
    """
    with impatient_kafka(tmp_path_factory.mktemp("kafka"), kafka_jars, partitions=1, session_ms=3_000) as kafka:
        yield kafka


class Watched:
    """What stands in model-updates, as it comes."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._reader = TopicReader(kafka, [MODEL_UPDATES], "beginning", StreamSettings())
        self._lines = Lines("ranker")

    def look(self) -> bool:
        """Take what has come; whether anything has."""
        records = self._reader.poll(timeout_s=0.02)
        for record in records:
            if isinstance(record.message, ModelUpdate):
                self._lines.apply(record.message)
        return bool(records)

    def state(self) -> LearnerState | None:
        """The newest whole state, once nothing more comes."""
        while self.look():
            pass
        return self._lines.last

    def learned(self) -> int:
        """How many outcomes the newest whole state includes."""
        self.look()
        state = self._lines.last
        return state.learned.get(0, 0) if state is not None else 0

    def close(self) -> LearnerState:
        """The newest whole state, for good."""
        state = self.state()
        self._reader.close()
        assert state is not None
        return state


def role(child: Child) -> str:
    """What a learner says that it is."""
    text = get(child, "online_learner", "/readyz")[1]
    return next((role for role in ("stand-by", "leader") if f'"{role}"' in text), "")


def without_stops(kafka: KafkaSettings) -> OnlineRanker:
    """The learner after everything in the topic, in one go."""
    ranker = OnlineRanker(fresh(first_ranker(), "1", "promoted-1", 1))
    for message in read_all(kafka, OUTCOMES.name):
        ranker.learn(*read_examples(Outcome.FromString(message.value() or b""), FEATURE_SCHEMA, D))
    return ranker


def test_who_stands_by_goes_on_to_the_same_weights(
    kafka: KafkaSettings, process: StartProcess, millrace_home: Path
) -> None:
    chance = random.Random(SEED)
    promote_first_ranker(kafka)
    env = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "KAFKA_PARTITIONS": "1",
        "ONLINE_LEARNING_BUFFER_SIZE": "50",
        "ONLINE_LEARNING_SNAPSHOT_INTERVAL_MS": "50",
    }
    watched = Watched(kafka)
    leader = process("workers.online_learner", env=env)
    leader.until(watched.state)
    cut_short, recovered = 0, list[float]()
    for life in range(LIVES_MAX):
        stand_by = process("workers.online_learner", env=env)
        stand_by.until(lambda stand_by=stand_by: role(stand_by) == "stand-by")  # type: ignore[misc]
        assert role(leader) == "leader"
        lot = outcomes(LOT, seed=life, slots=SLOTS)
        send(kafka, OUTCOMES, [(outcome.user_id, *encode(outcome)) for outcome in lot])
        goal, everything = LOT * (life + chance.uniform(*LEARNED)), LOT * (life + 1)
        leader.until(lambda goal=goal: watched.learned() >= goal, interval_s=0)  # type: ignore[misc]
        leader.kill()
        killed_at = time.monotonic()
        state = watched.state()
        assert state is not None
        if state.learned[0] < everything:
            cut_short += 1
            stand_by.until(lambda reached=state.learned[0]: watched.learned() > reached)  # type: ignore[misc]
            recovered.append(time.monotonic() - killed_at)
        stand_by.until(lambda everything=everything: watched.learned() == everything)  # type: ignore[misc]
        assert role(stand_by) == "leader"
        state = watched.state()
        # Each who led began one epoch: the one that stood by has waited until it was its turn.
        assert state is not None
        assert state.epoch == life + 2
        leader = stand_by
        if life + 1 >= TAKEOVERS and cut_short:
            break
    else:
        pytest.fail("no kill came in the middle of a lot")
    assert leader.terminate() == 0, leader.output()

    last, expected = watched.close(), without_stops(kafka)
    observations = first_ranker().observations + (life + 1) * LOT * SLOTS
    found = Found(events=(life + 1) * LOT)
    found.compare(observations, last.model.observations)
    report(TAKEOVER, life + 1, found, recovered)
    assert last.model.observations == observations
    np.testing.assert_allclose(to_vector(last.model), to_vector(expected.model()), rtol=0, atol=1e-9)
    squared = expected.state(0, {}, "").squared_gradients
    np.testing.assert_allclose(last.squared_gradients, squared, rtol=0, atol=1e-9)
