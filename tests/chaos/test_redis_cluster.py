"""A Redis Cluster whose nodes fail over: the ledger test of the feature updater, and what the recommender answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import seed
from benchmarks.reliability_document import FAILS_OVER
from millrace.features.user_state import user_key
from millrace.v1.impression_pb2 import AnswerStatus, Fallback
from tests.chaos.failing_cluster import FailingCluster
from tests.chaos.impatient import impatient_kafka
from tests.chaos.results import report, times
from tests.chaos.shop import Shop
from tests.conftest import StartProcess
from tests.recommending import recommender, wait_for

SEED = 20_260_102
FAILOVERS = 2 * times()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, kafka_jars: tuple[Path, ...]) -> Iterator[Shop]:
    cluster = FailingCluster(tmp_path_factory.mktemp("redis"), SEED)
    with impatient_kafka(tmp_path_factory.mktemp("kafka"), kafka_jars) as kafka:
        shop = Shop(kafka, cluster, SEED)
        yield shop
        shop.store.close()
    cluster.close()


def test_a_master_dies_and_its_replica_takes_over_without_its_last_writes(shop: Shop, process: StartProcess) -> None:
    # What is on no replica fails after half of this: the master is dead by then, or nobody would miss it.
    worker = process("workers.feature_updater", env={**shop.env, "REDIS_TIMEOUT_MS": "10000"})
    recovered = shop.lose_writes(worker, FAILOVERS)
    ledger = shop.settle(worker)
    assert worker.popen.returncode == 0, worker.output()
    report(FAILS_OVER, len(recovered), shop.found(ledger), recovered)
    shop.assert_equals(ledger)


def test_the_recommender_answers_without_features_and_finds_the_replica(
    shop: Shop, millrace_home: Path, tmp_path: Path
) -> None:
    seed.publish_items(shop.kafka, seed.item_states(50))
    seed.promote_first_ranker(shop.kafka)
    users = seed.write_users(shop.redis.url, 10, items=50)
    servers = {name: value for name, value in shop.env.items() if name.startswith(("KAFKA_", "REDIS_"))}
    env = {**servers, "MILLRACE_RECOMMENDER_FEATURES_TIMEOUT_MS": "50"}
    try:
        with recommender(millrace_home, tmp_path / "log", env) as service:

            def statuses() -> set[AnswerStatus.ValueType]:
                return {service.ask(user).status for user in users}

            def someone_is_unknown() -> bool:
                answers = [service.ask(user) for user in users]
                return any(answer.fallback == Fallback.FALLBACK_FEATURES_UNAVAILABLE for answer in answers)

            wait_for(lambda: statuses() == {AnswerStatus.ANSWER_STATUS_OK}, "features of all")
            with shop.redis.losing(0):
                wait_for(someone_is_unknown, "answers without features")
                assert all(len(service.ask(user).items) == 10 for user in users)
            wait_for(
                lambda: statuses() == {AnswerStatus.ANSWER_STATUS_OK}, "features of all once the replica has taken over"
            )
    finally:
        # The ledger knows nothing of them.
        shop.store.connect()
        shop.store.ask_all(("DEL", user_key(user)) for user in users)
