"""Live updates: parameters change and versions are swapped while requests go on, and none fails."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from confluent_kafka import Producer

from benchmarks.seed import item_states, promote_first_ranker, publish_items, write_users
from millrace.learning.parameters import changed, to_vector
from millrace.learning.state import fresh
from millrace.learning.updates import snapshot_records
from millrace.ranking.first import first_ranker
from millrace.ranking.model import RankingModel
from millrace.settings import KafkaSettings
from millrace.stream import logs
from millrace.stream.clients import producer_config
from millrace.stream.codec import encode
from millrace.topics import IMPRESSIONS, MODEL_UPDATES
from millrace.v1.impression_pb2 import Impression
from millrace.v1.model_pb2 import ModelUpdate, ParameterUpdate
from tests.recommending import Service, recommender, wait_for
from tests.stream_support import read_all

UPDATES = 300
# After these updates somebody is answered before the next one comes.
ANSWERED_AT = range(20, UPDATES + 1, 20)


@pytest.fixture
def shop(topics_applied: KafkaSettings, redis_url: str, millrace_home: Path) -> dict[str, str]:
    publish_items(topics_applied, item_states(300))
    write_users(redis_url, 5, 300)
    return {
        "KAFKA_BOOTSTRAP_SERVERS": topics_applied.bootstrap_servers,
        "KAFKA_PARTITIONS": "3",
        "REDIS_URL": redis_url,
    }


@contextmanager
def champion(version: str, kafka: KafkaSettings, home: Path, log: Path, env: dict[str, str]) -> Iterator[Service]:
    """A recommender that ranks with a version of the test's own."""
    promote_first_ranker(kafka, version=version)
    with recommender(home, log, env) as service:
        wait_for(lambda: service.ready() and serving(service) == (version, 0, 0), "the recommender")
        yield service


def serving(service: Service) -> tuple[str, int, int]:
    detail = service.readiness()[1]
    return detail["model_version"], detail["learner_epoch"], detail["learner_sequence"]


class Topic:
    """Writes to model-updates, one record after the other."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._producer = Producer(producer_config(kafka), logger=logs.kafka_logger())

    def put(self, *records: ModelUpdate) -> None:
        for record in records:
            value, headers = encode(record)
            self._producer.produce(MODEL_UPDATES.name, value, b"ranker", headers=[*headers])
        assert self._producer.flush(10) == 0


def update(before: RankingModel, after: RankingModel, epoch: int, sequence: int, reign: str) -> ModelUpdate:
    return ModelUpdate(
        update=ParameterUpdate(
            model_name="ranker",
            model_version="1",
            epoch=epoch,
            sequence=sequence,
            parameters=changed(to_vector(before), to_vector(after)),
            reign_id=reign,
        )
    )


def test_no_request_fails_while_parameters_and_versions_change(
    topics_applied: KafkaSettings, shop: dict[str, str], millrace_home: Path, tmp_path: Path
) -> None:
    with champion("1", topics_applied, millrace_home, tmp_path / "recommender.log", shop) as service:
        answers = change_everything(service, topics_applied)
    # What an answer was ranked with stands in its impression, and never goes back.
    logged = [Impression.FromString(message.value() or b"") for message in read_all(topics_applied, IMPRESSIONS.name)]
    found = {one.request_id: (one.model_version, one.learner_epoch, one.learner_sequence) for one in logged}
    order = [found[request_id] for request_id in answers]
    assert order == sorted(order)
    assert {sequence for _, _, sequence in order} >= set(ANSWERED_AT)

    # A new process ends where the old one was.
    with recommender(millrace_home, tmp_path / "second.log", shop) as second:
        wait_for(lambda: serving(second) == ("2", 2, 0), "the second recommender")


def change_everything(service: Service, kafka: KafkaSettings) -> list[str]:
    """Hundreds of updates and a new version while somebody asks all the time; returns the answers' ids in order."""
    stop, answers, failures, topic = threading.Event(), list[str](), list[grpc.RpcError](), Topic(kafka)

    def ask() -> None:
        while not stop.wait(0.005):
            try:
                answers.append(service.ask("user-1").request_id)
            except grpc.RpcError as error:
                failures.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        model = first_ranker()
        topic.put(*snapshot_records("ranker", fresh(model, "1", "promoted-1", 1), 1))
        for sequence in range(1, UPDATES + 1):
            after = replace(model, intercept=model.intercept + 0.01)
            topic.put(update(model, after, 1, sequence, "promoted-1"))
            model = after
            if sequence in ANSWERED_AT:
                wait_for(lambda n=sequence: serving(service) == ("1", 1, n), "the update")  # type: ignore[misc]
                seen = len(answers)
                # The answer to a question that was on its way may be older.
                wait_for(lambda before=seen: len(answers) > before + 1, "an answer with it")  # type: ignore[misc]
        promote_first_ranker(kafka, version="2")
        wait_for(lambda: serving(service) == ("2", 0, 0), "the new version")
        # What is learned for the former reign is not served any more.
        topic.put(update(model, first_ranker(), 1, UPDATES + 1, "promoted-1"))
        topic.put(*snapshot_records("ranker", fresh(replace(model, intercept=0.5), "2", "promoted-2", 2), 1))
        wait_for(lambda: serving(service) == ("2", 2, 0), "its line of learning")
        seen = len(answers)
        wait_for(lambda: len(answers) > seen + 20, "answers with it")
    finally:
        stop.set()
        asking.join()
    assert not failures
    # Two snapshots, the updates, and the one for the former reign, whose line goes on unserved.
    assert f'result="applied"}} {UPDATES + 3}.0' in service.figures()
    return answers


def test_after_a_gap_the_next_snapshot_is_waited_for(
    topics_applied: KafkaSettings, shop: dict[str, str], millrace_home: Path, tmp_path: Path
) -> None:
    with champion("3", topics_applied, millrace_home, tmp_path / "recommender.log", shop) as service:
        leave_gaps(service, Topic(topics_applied))


def leave_gaps(service: Service, topic: Topic) -> None:
    """An update is missing, then a snapshot is damaged, then one comes whole."""
    model = first_ranker()
    line = replace(fresh(model, "3", "promoted-3", 50), sequence=5)
    topic.put(*snapshot_records("ranker", line, 1))
    wait_for(lambda: serving(service)[1:] == (50, 5), "the snapshot")
    topic.put(update(model, replace(model, intercept=1.0), 50, 7, "promoted-3"))
    [damaged] = snapshot_records("ranker", replace(line, sequence=7), 1)
    damaged.snapshot.payload = damaged.snapshot.payload[:-100]
    topic.put(damaged)
    topic.put(update(model, replace(model, intercept=2.0), 50, 8, "promoted-3"))
    wait_for(lambda: 'result="gap"} 2.0' in service.figures(), "two gaps")
    assert serving(service)[1:] == (50, 5)
    topic.put(*snapshot_records("ranker", replace(line, sequence=8), 1))
    wait_for(lambda: serving(service)[1:] == (50, 8), "the next snapshot")
