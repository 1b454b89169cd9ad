"""Recommenders restart one after another while callers ask: nobody notices."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks import seed
from deploy.embedded.ports import free_port
from millrace.settings import KafkaSettings
from millrace.topics import IMPRESSIONS
from millrace.v1.impression_pb2 import Impression
from tests.asking import asking
from tests.processes import PATIENCE_S
from tests.recommending import Service, recommender, wait_for
from tests.stream_support import read_all

ITEMS, CALLERS = 50, 4


@pytest.fixture(scope="module")
def env(topics_applied: KafkaSettings, redis_url: str, millrace_home: Path) -> dict[str, str]:
    """The environment of a recommender with items, users and a champion."""
    seed.publish_items(topics_applied, seed.item_states(ITEMS))
    seed.write_users(redis_url, 5, ITEMS)
    seed.promote_first_ranker(topics_applied)
    return {
        "KAFKA_BOOTSTRAP_SERVERS": topics_applied.bootstrap_servers,
        "KAFKA_PARTITIONS": str(topics_applied.partitions),
        "REDIS_URL": redis_url,
    }


def test_replicas_restart_one_after_another_and_no_call_fails(
    env: dict[str, str], topics_applied: KafkaSettings, millrace_home: Path, tmp_path: Path
) -> None:
    """As Kubernetes does it: a replica gets SIGTERM, drains and ends; the next one's turn is when its successor is
    ready.
    """
    ports: list[int] = []
    for _ in range(2):
        ports.append(free_port(taken=frozenset(ports)))
    target = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)

    def wait_until_serving(service: Service) -> None:
        wait_for(lambda: service.ready() and service.readiness()[1]["model_version"], "readiness")

    with ExitStack() as replicas:

        def start(port: int, name: str) -> Service:
            return replicas.enter_context(
                recommender(millrace_home, tmp_path / name, env | {"MILLRACE_RECOMMENDER_PORT": str(port)})
            )

        running = [start(port, f"before-{port}") for port in ports]
        for service in running:
            wait_until_serving(service)
        with asking(target, "user-1", CALLERS) as asked:
            wait_for(asked.more(200), "answers")
            for port, service in zip(ports, running, strict=True):
                service.popen.terminate()
                assert service.popen.wait(PATIENCE_S) == 0
                wait_until_serving(start(port, f"after-{port}"))
                wait_for(asked.more(200), "answers")
    assert not asked.failures
    assert {(answer.status, len(answer.items)) for answer in asked.answers} == {("ok", 10)}
    logged = Counter(
        Impression.FromString(one.value() or b"").request_id for one in read_all(topics_applied, IMPRESSIONS.name)
    )
    assert {logged[answer.request_id] for answer in asked.answers} == {1}
