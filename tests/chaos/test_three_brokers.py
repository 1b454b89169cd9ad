"""One of three brokers dies, again and again: the others go on, and everything counts once."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from benchmarks.reliability_document import BROKER_DIES
from millrace.stream import logs
from millrace.stream.clients import admin_config
from tests.chaos.answered_shop import AnsweredShop, Group
from tests.chaos.forking import Forking
from tests.chaos.impatient import Brokers
from tests.chaos.losing_redis import LosingRedis
from tests.chaos.results import report, times
from tests.processes import PATIENCE_S, in_time

# Three brokers take a sixth of the time that all other faults take together.
pytestmark = pytest.mark.chaos

SEED = 20_261_128
# Two of three, and each of them in the longer form: whoever coordinates a group or transactions is one of the dead.
KILLS = 2 * times()
# Of the workers, none of which dies: nothing here waits for it, and a busy machine shall not end it.
SESSION_MS, TRANSACTION_MS = 10_000, 10_000


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory, kafka_jars: tuple[Path, ...]) -> Iterator[Brokers]:
    with Brokers(tmp_path_factory.mktemp("kafka"), kafka_jars, count=3, session_ms=SESSION_MS) as brokers:
        yield brokers


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[LosingRedis]:
    redis = LosingRedis(tmp_path / "redis")
    yield redis
    redis.close()


def all_in_sync(admin: AdminClient, brokers: Brokers) -> bool:
    """Whether every partition, those of positions and transactions too, is on each broker up to its end."""
    return all(
        len(partition.isrs) == len(brokers.nodes)
        for topic in admin.list_topics(timeout=PATIENCE_S).topics.values()
        for partition in topic.partitions.values()
    )


@pytest.mark.timeout(600 + 30 * KILLS)
def test_one_of_three_brokers_dies_and_nothing_is_lost_or_doubled(
    brokers: Brokers, redis: LosingRedis, tmp_path: Path
) -> None:
    chance, recovered = random.Random(SEED), []
    admin = AdminClient(admin_config(brokers.kafka), logger=logs.kafka_logger())
    shop = AnsweredShop(brokers.kafka, redis, SEED, TRANSACTION_MS)
    with Forking(tmp_path, "tests.chaos.members:member", shop.env) as forking:
        updaters, joiners = Group(forking, "feature_updater"), Group(forking, "outcome_joiner")
        for group in (updaters, joiners):
            group.join()
        with shop.acting():
            shop.moves(updaters, joiners)
            order = list(brokers.nodes)
            for kill in range(KILLS):
                if kill % len(order) == 0:
                    chance.shuffle(order)
                in_time(lambda: all_in_sync(admin, brokers))
                node = order[kill % len(order)]
                brokers.kill(node)
                recovered.append(shop.moves(updaters, joiners))
                brokers.start(node)
        ledger = shop.end(updaters, joiners)
    report(BROKER_DIES, KILLS, shop.found(ledger), recovered)
    shop.assert_equals(ledger)
    shop.close()
