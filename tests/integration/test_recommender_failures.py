"""The recommender while Redis, Kafka or a model is away: it answers as well as it can, says so, and recovers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import Popen

import grpc
import pytest
from redis import Redis as RedisClient

from benchmarks import seed
from deploy.embedded.jars import classpath
from deploy.embedded.kafka import Kafka
from deploy.embedded.member import running
from deploy.embedded.ports import free_port
from deploy.embedded.redis import Redis
from millrace.features.user_state import user_key
from millrace.ranking.first import first_ranker
from millrace.registry.cache import default_directory
from millrace.settings import KafkaSettings, StackSettings
from millrace.stream.admin import apply_topics
from millrace.topics import MODEL_EVENTS
from millrace.v1.impression_pb2 import AnswerStatus, Fallback
from millrace.v1.model_pb2 import ModelEvent, ModelEventType
from millrace.v1.recommendation_service_pb2 import RecommendRequest, RecommendResponse
from tests.processes import PATIENCE_S, a_redis
from tests.recommending import ROOT, environment, recommender, wait_for

ITEMS = 50


@pytest.fixture(scope="module")
def stocked(topics_applied: KafkaSettings, millrace_home: Path) -> KafkaSettings:
    seed.publish_items(topics_applied, seed.item_states(ITEMS))
    seed.promote_first_ranker(topics_applied)
    return topics_applied


@pytest.fixture
def redis(tmp_path: Path) -> Redis:
    """A Redis that does not run yet."""
    folder = tmp_path / "redis"
    folder.mkdir()
    return a_redis(folder)


@contextmanager
def with_a_user(member: Redis) -> Iterator[Popen[bytes]]:
    with running(member) as process:
        with RedisClient.from_url(member.address) as client:
            client.hset(user_key("known"), mapping=seed.user_fields([seed.item_id(3)], seed.now_ms()))
        yield process


def kafka_env(kafka: KafkaSettings) -> dict[str, str]:
    return {"KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers, "KAFKA_PARTITIONS": str(kafka.partitions)}


def unavailable(answer: RecommendResponse) -> bool:
    return (
        answer.status == AnswerStatus.ANSWER_STATUS_DEGRADED
        and answer.fallback == Fallback.FALLBACK_FEATURES_UNAVAILABLE
        and not answer.HasField("known")
        and len(answer.items) == 10
    )


def test_redis_absent_killed_hanging_and_back(
    stocked: KafkaSettings, redis: Redis, millrace_home: Path, tmp_path: Path
) -> None:
    env = kafka_env(stocked) | {"REDIS_URL": redis.address, "MILLRACE_RECOMMENDER_FEATURES_TIMEOUT_MS": "50"}
    with recommender(millrace_home, tmp_path / "log", env) as service:
        wait_for(service.ready, "readiness without Redis")

        def personal() -> bool:
            return service.ask("known").status == AnswerStatus.ANSWER_STATUS_OK

        assert unavailable(service.ask("known")), "absent at start"
        assert "redis" in (tmp_path / "log").read_text().lower()
        with with_a_user(redis) as process:
            wait_for(personal, "features once Redis is there")
            os.kill(process.pid, signal.SIGSTOP)
            assert unavailable(service.ask("known")), "hanging"
            os.kill(process.pid, signal.SIGCONT)
            wait_for(personal, "features once Redis goes on")
            process.kill()
            process.wait()
            assert unavailable(service.ask("known")), "killed"
        with with_a_user(redis):
            wait_for(personal, "features once Redis is back")
        figures = service.figures()
        assert 'fallback="FALLBACK_FEATURES_UNAVAILABLE"' in figures
        assert "millrace_recommender_features_failures_total" in figures


def test_too_many_requests_are_refused_at_once(
    stocked: KafkaSettings, redis: Redis, millrace_home: Path, tmp_path: Path
) -> None:
    """Requests pile up behind a Redis that hangs; what it would take too many of is refused before any work."""
    env = kafka_env(stocked) | {
        "REDIS_URL": redis.address,
        "MILLRACE_RECOMMENDER_CONCURRENT_MAX": "2",
        "MILLRACE_RECOMMENDER_FEATURES_TIMEOUT_MS": "60000",
        "MILLRACE_RECOMMENDER_DEADLINE_MS": "60000",
    }
    with with_a_user(redis) as process, recommender(millrace_home, tmp_path / "log", env) as service:
        wait_for(lambda: service.ask("known").status == AnswerStatus.ANSWER_STATUS_OK, "a first answer")
        os.kill(process.pid, signal.SIGSTOP)
        calls = [service.stub.Recommend.future(RecommendRequest(user_id="known", k=10), timeout=60) for _ in range(50)]
        wait_for(lambda: sum(call.done() for call in calls) == 48, "refusals")
        os.kill(process.pid, signal.SIGCONT)
        codes = Counter(call.code() for call in calls)
        assert codes == {grpc.StatusCode.OK: 2, grpc.StatusCode.RESOURCE_EXHAUSTED: 48}
        assert service.ask("known").items


def test_kafka_absent_at_start(redis: Redis, millrace_home: Path, tmp_path: Path) -> None:
    port = free_port()
    kafka = KafkaSettings(bootstrap_servers=f"127.0.0.1:{port}", partitions=3)
    # Left by an earlier run of the service:
    folder = default_directory("ranker")
    first_ranker().save(folder / "1")
    (folder / "champion").write_text("1")
    env = kafka_env(kafka) | {
        "REDIS_URL": redis.address,
        "MILLRACE_RECOMMENDER_IMPRESSIONS_PENDING_MAX": "5",
        "MILLRACE_RECOMMENDER_DRAIN_TIMEOUT_MS": "4000",
    }
    with ExitStack() as stack:
        stack.enter_context(with_a_user(redis))
        service = stack.enter_context(recommender(millrace_home, tmp_path / "log", env))
        status, readiness = service.readiness()
        assert status == 503
        assert any("kafka" in missing for missing in readiness["missing"])
        for _ in range(8):
            answer = service.ask("known")
        assert answer.status == AnswerStatus.ANSWER_STATUS_DEGRADED
        assert answer.model_version == "1", "the last champion on disk"
        assert not answer.items, "nothing is known of items"
        assert 'impressions_dropped_total{reason="queue full"} 3.0' in service.figures()

        (tmp_path / "kafka").mkdir()
        stack_settings = StackSettings()
        member = Kafka(
            folder=tmp_path / "kafka",
            port=port,
            controller_port=free_port(taken=frozenset({port})),
            jars=classpath(stack_settings.kafka_version),
            heap_mb=stack_settings.kafka_heap_mb,
        )
        stack.enter_context(running(member))
        apply_topics(kafka)
        seed.publish_items(kafka, seed.item_states(ITEMS))
        wait_for(service.ready, "readiness once Kafka is there")
        wait_for(lambda: service.ask("known").items, "items")
        # The service ends while its broker is still there: nothing waits for it.
        service.popen.terminate()
        assert service.popen.wait(PATIENCE_S) == 0


def test_the_champion_changes_and_a_damaged_one_is_refused(
    stocked: KafkaSettings, redis: Redis, millrace_home: Path, tmp_path: Path
) -> None:
    def promote(version: str) -> None:
        event = ModelEvent(
            event_id=f"champion-{version}-{time.time_ns()}",
            model_name="ranker",
            model_version=version,
            type=ModelEventType.MODEL_EVENT_TYPE_PROMOTED,
            at_ms=seed.now_ms(),
        )
        seed.publish(stocked, MODEL_EVENTS, [("ranker", event)])

    folder = default_directory("ranker")
    env = kafka_env(stocked) | {"REDIS_URL": redis.address}
    with with_a_user(redis), recommender(millrace_home, tmp_path / "log", env) as service:
        wait_for(lambda: service.ask().model_version == "1", "the champion")
        first_ranker().save(folder / "2")
        promote("2")
        wait_for(lambda: service.ask().model_version == "2", "the next champion")
        damaged = folder / "3"
        first_ranker().save(damaged)
        (damaged / "weights.npz").write_bytes(b"damaged")
        promote("3")
        missing = wait_for(lambda: service.readiness()[1]["missing"], "the problem")
        assert "version 3" in missing[0]
        assert "damaged" in missing[0]
        answer = service.ask("known")
        assert (answer.model_version, answer.status) == ("2", AnswerStatus.ANSWER_STATUS_OK)
        promote("1")
        wait_for(lambda: service.ask().model_version == "1", "the way back")
        wait_for(lambda: not service.readiness()[1]["missing"], "readiness without complaint")


def test_without_any_model(topics_applied: KafkaSettings, redis: Redis, tmp_path: Path) -> None:
    seed.publish_items(topics_applied, seed.item_states(ITEMS))
    env = kafka_env(topics_applied) | {"REDIS_URL": redis.address, "MILLRACE_RECOMMENDER_MODEL_NAME": "other"}
    with with_a_user(redis), recommender(tmp_path / "home", tmp_path / "log", env) as service:
        wait_for(service.ready, "readiness")
        answer = service.ask("known")
        assert answer.fallback == Fallback.FALLBACK_NO_MODEL
        assert answer.status == AnswerStatus.ANSWER_STATUS_DEGRADED
        assert len(answer.items) == 10
        assert answer.model_version == ""


def test_a_part_that_fails_ends_the_process(tmp_path: Path) -> None:
    """A service whose items stand still looks healthy and is not: it drains, exits 1 and is started anew."""
    program = (
        "from services.recommender import mirror\n"
        "from services.recommender.__main__ import main\n"
        "class Broken(mirror.TopicReader):\n"
        "    poll = lambda *_, **__: 1 / 0\n"
        "whole = mirror.TopicReader\n"
        "of = lambda kafka, topics, *rest: (Broken if topics == [mirror.ITEM_STATE] else whole)(kafka, topics, *rest)\n"
        "mirror.TopicReader = of\n"
        "main()\n"
    )
    nowhere = f"127.0.0.1:{free_port()}"
    env = environment(tmp_path, {"KAFKA_BOOTSTRAP_SERVERS": nowhere, "REDIS_URL": f"redis://{nowhere}"})
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=env,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
        text=True,
    )
    assert ended.returncode == 1
    assert "item-mirror" in ended.stderr
