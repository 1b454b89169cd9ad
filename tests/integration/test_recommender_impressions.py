"""What becomes of impressions while Kafka is away, and when the recommender is killed."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Set
from pathlib import Path

import pytest

from benchmarks import seed
from deploy.embedded.kafka import STORAGE, Kafka
from deploy.embedded.member import start, stop, wait_ready
from deploy.embedded.ports import free_port
from millrace.settings import KafkaSettings
from millrace.stream.admin import apply_topics
from millrace.topics import IMPRESSIONS
from millrace.v1.impression_pb2 import Impression
from tests.asking import Asked, asking
from tests.recommending import Service, recommender, wait_for
from tests.stream_support import read_all

ITEMS, CALLERS = 50, 4
PENDING_MAX, CONCURRENT_MAX = 300, 16


class Broker:
    """A broker that goes away and comes back with what it had."""

    def __init__(self, member: Kafka) -> None:
        self.kafka = KafkaSettings(bootstrap_servers=member.address, partitions=3)
        self._member = member
        self.come()

    def come(self) -> None:
        self._process = start(self._member)
        wait_ready(self._member, alive=lambda: self._process.poll() is None)

    def go(self) -> None:
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        stop(self._process)


@pytest.fixture
def broker(tmp_path: Path, kafka_jars: tuple[Path, ...], kafka_storage: Path) -> Iterator[Broker]:
    folder, port = tmp_path / "kafka", free_port()
    shutil.copytree(kafka_storage, folder / STORAGE)
    running = Broker(Kafka(folder, port, free_port(taken=frozenset({port})), kafka_jars))
    try:
        apply_topics(running.kafka)
        yield running
    finally:
        running.end()


def logged(kafka: KafkaSettings) -> Counter[str]:
    """How often each answer's impression is on the topic."""
    return Counter(Impression.FromString(one.value() or b"").request_id for one in read_all(kafka, IMPRESSIONS.name))


def answered(asked: Asked) -> Set[str]:
    return {answer.request_id for answer in asked.answers}


def impressions(service: Service) -> dict[str, int]:
    """What /readyz says of them; the service is ready all the time."""
    status, body = service.readiness()
    assert status == 200, body
    found: dict[str, int] = body["impressions"]
    return found


def test_kafka_goes_away_and_comes_back_and_then_the_recommender_is_killed(
    broker: Broker, redis_url: str, millrace_home: Path, tmp_path: Path
) -> None:
    seed.publish_items(broker.kafka, seed.item_states(ITEMS))
    seed.write_users(redis_url, 5, ITEMS)
    seed.promote_first_ranker(broker.kafka)
    env = {
        "KAFKA_BOOTSTRAP_SERVERS": broker.kafka.bootstrap_servers,
        "REDIS_URL": redis_url,
        "MILLRACE_RECOMMENDER_IMPRESSIONS_PENDING_MAX": str(PENDING_MAX),
        "MILLRACE_RECOMMENDER_CONCURRENT_MAX": str(CONCURRENT_MAX),
    }
    with recommender(millrace_home, tmp_path / "log", env) as service:
        wait_for(lambda: service.ready() and service.readiness()[1]["model_version"], "readiness and a champion")
        with asking(service.target, "user-1", CALLERS) as asked:
            wait_for(asked.more(100), "answers")
            broker.go()
            wait_for(asked.more(2 * PENDING_MAX), "answers without Kafka")
            away = impressions(service)
            assert away["pending_max"] == PENDING_MAX
            # A full queue, and answers that are on their way to it.
            assert PENDING_MAX <= away["pending"] <= PENDING_MAX + CONCURRENT_MAX
            assert away["dropped"] > 0
            assert 'impressions_dropped_total{reason="queue full"}' in service.figures()
            broker.come()
            wait_for(lambda: impressions(service)["pending"] < PENDING_MAX / 2, "the queue's end")
            wait_for(asked.more(100), "answers")
        assert not asked.failures
        assert {(answer.status, len(answer.items)) for answer in asked.answers} == {("ok", 10)}
        wait_for(lambda: impressions(service)["pending"] == 0, "every impression")
        found = logged(broker.kafka)
        assert set(found.values()) == {1}
        assert len(answered(asked) - found.keys()) == impressions(service)["dropped"], "what is missing was counted"
        assert impressions(service)["dropped"] >= PENDING_MAX - CALLERS

        with asking(service.target, "user-1", CALLERS) as asked:
            wait_for(asked.more(500), "answers")
            service.popen.kill()
            service.popen.wait()
        found = logged(broker.kafka)
        assert set(found.values()) == {1}
        # In its queue, or answered and not logged yet.
        assert len(answered(asked) - found.keys()) <= PENDING_MAX + CONCURRENT_MAX
