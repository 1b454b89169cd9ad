"""The ledger test of the feature updater on a Redis Cluster whose nodes fail over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.reliability_document import FAILS_OVER
from tests.chaos.failing_cluster import FailingCluster
from tests.chaos.impatient import impatient_kafka
from tests.chaos.results import report, times
from tests.chaos.shop import Shop
from tests.conftest import StartProcess

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
    worker = process("workers.feature_updater", env=shop.env)
    recovered = shop.lose_writes(worker, FAILOVERS)
    ledger = shop.settle(worker)
    assert worker.popen.returncode == 0, worker.output()
    report(FAILS_OVER, FAILOVERS, shop.found(ledger), recovered)
    shop.assert_equals(ledger)
