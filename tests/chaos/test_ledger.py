"""Ledger tests of the feature updater: known events go in while things are killed; everything counts once."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.reliability_document import REDIS_LOSES, UPDATER_DIES
from tests.chaos.fault_points import FEATURE_UPDATER, NTH, POINT
from tests.chaos.forking import Forking
from tests.chaos.impatient import impatient_kafka
from tests.chaos.losing_redis import LosingRedis
from tests.chaos.results import report, times
from tests.chaos.shop import Shop
from tests.conftest import StartProcess

SEED = 20_260_101
# So many kills at random moments, and one at each fault point.
KILLS = 5 * times()
LOSSES = 3 * times()
# A worker is killed at some moment of this time after its first write: it publishes 0.25-1 s later and commits 2 s
# later, and each of these is to be hit.
LIFE_S = 1.5
# Scripts of a life are sent in some 30 pieces, some of which load the scripts; there is a commit every half second.
CALLS = {"in the middle of the scripts of a batch": (20, 40), "between states and positions": (1, 2)}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, kafka_jars: tuple[Path, ...]) -> Iterator[Shop]:
    redis = LosingRedis(tmp_path_factory.mktemp("redis"))
    with impatient_kafka(tmp_path_factory.mktemp("kafka"), kafka_jars) as kafka:
        shop = Shop(kafka, redis, SEED)
        yield shop
        shop.store.close()
    redis.close()


def test_killed_at_random_and_at_every_fault_point_every_counter_equals_the_ledger(shop: Shop, tmp_path: Path) -> None:
    chance = random.Random(SEED)
    points = list(FEATURE_UPDATER) * times()
    lives = [*points, *[""] * KILLS]
    chance.shuffle(lives)
    recovered = []
    # Batches are small and commits come at once, so that every point is met within a life.
    small = {"MILLRACE_STREAM_BATCH_SIZE": "100", "MILLRACE_STREAM_DURABILITY_MARGIN_MS": "0"}
    with Forking(tmp_path, "tests.chaos.fault_points:feature_updater", shop.env) as forking:
        killed_at = 0.0
        for point in lives:
            before = shop.scripts_run()
            nth = chance.randint(*CALLS.get(point, (1, 10)))
            worker = forking.start(small | {POINT: point, NTH: str(nth)} if point else {})
            with shop.acting():
                if point:
                    worker.wait()
                else:
                    worker.until(lambda before=before: shop.scripts_run() > before)  # type: ignore[misc]
                    if killed_at:
                        recovered.append(time.monotonic() - killed_at)
                    time.sleep(chance.uniform(0, LIFE_S))
                    worker.kill()
            killed_at = 0.0 if point else time.monotonic()
        ledger = shop.settle(forking.start({}))
    report(UPDATER_DIES, len(lives), shop.found(ledger), recovered)
    shop.assert_equals(ledger)


def test_redis_loses_its_last_second_under_a_worker_that_lives(shop: Shop, process: StartProcess) -> None:
    worker = process("workers.feature_updater", env=shop.env)
    recovered = shop.lose_writes(worker, LOSSES)
    ledger = shop.settle(worker)
    assert worker.popen.returncode == 0, worker.output()
    report(REDIS_LOSES, LOSSES, shop.found(ledger), recovered)
    shop.assert_equals(ledger)
