"""A Redis that is slow, and does not hang, piles up no work in the recommender."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import grpc
from prometheus_client.parser import text_string_to_metric_families

from benchmarks import seed
from millrace.errors import InfrastructureError
from millrace.settings import KafkaSettings, RedisSettings
from millrace.v1.impression_pb2 import AnswerStatus, Fallback
from millrace.v1.recommendation_service_pb2 import RecommendRequest
from services.recommender.redis_pipe import RedisPipe
from tests.recommending import Service, recommender, wait_for
from tests.slow_redis import slow_redis

COMMAND, REPLY = b"*3\r\n$5\r\nHMGET\r\n$1\r\nk\r\n$1\r\nf\r\n", b"*1\r\n$-1\r\n"
UNDER_WAY_MAX, ASKED = 32, 200
PATIENT_S = 60.0


async def test_a_command_waits_no_longer_than_the_limit_though_others_are_answered(redis_url: str) -> None:
    with slow_redis(redis_url) as redis:
        pipe = RedisPipe(RedisSettings(url=redis.url), timeout_s=1.0)
        assert await pipe.ask(COMMAND) == [None]
        # A reply every tenth of a second: ten within the limit, and the hundredth after ten of them.
        redis.piece_bytes, redis.pause_s = len(REPLY), 0.1
        # The proxy waits for its next piece already, which may be as large as before.
        assert await pipe.ask(COMMAND) == [None]
        answers = await asyncio.gather(*(pipe.ask(COMMAND, promptly=False) for _ in range(100)), return_exceptions=True)
        assert answers[0] == [None]
        assert isinstance(answers[-1], InfrastructureError)
        redis.pause_s = 0.0
        assert await pipe.ask(COMMAND) == [None], "over a new connection"
        await pipe.close()


def figure(service: Service, name: str, **labels: str) -> float:
    return sum(
        sample.value
        for family in text_string_to_metric_families(service.figures())
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def test_a_slow_redis_under_load(
    topics_applied: KafkaSettings, redis_url: str, millrace_home: Path, tmp_path: Path
) -> None:
    """What is taken on is answered within its deadline, without features if need be; the rest is refused at once."""
    seed.publish_items(topics_applied, seed.item_states(50))
    seed.write_users(redis_url, 5, 50)
    seed.promote_first_ranker(topics_applied)
    with slow_redis(redis_url) as redis:
        env = {
            "KAFKA_BOOTSTRAP_SERVERS": topics_applied.bootstrap_servers,
            "REDIS_URL": redis.url,
            "MILLRACE_RECOMMENDER_CONCURRENT_MAX": str(UNDER_WAY_MAX),
            "MILLRACE_RECOMMENDER_FEATURES_TIMEOUT_MS": "2000",
            # Longer than a busy machine needs, shorter than this Redis needs for all that may be under way.
            "MILLRACE_RECOMMENDER_DEADLINE_MS": "30000",
        }
        with recommender(millrace_home, tmp_path / "log", env) as service:

            def personal() -> bool:
                answer = service.ask("user-1")
                return answer.status == AnswerStatus.ANSWER_STATUS_OK and answer.fallback == Fallback.FALLBACK_NONE

            wait_for(personal, "answers with features")
            # A piece is less than a user's features: 32 of them would take longer than the deadline.
            redis.piece_bytes, redis.pause_s = 512, 1.0
            request = RecommendRequest(user_id="user-1", k=10)
            calls = [service.stub.Recommend.future(request, timeout=PATIENT_S) for _ in range(ASKED)]
            wait_for(lambda: sum(call.done() for call in calls) >= ASKED - UNDER_WAY_MAX, "refusals")
            assert figure(service, "millrace_recommender_requests_under_way") <= UNDER_WAY_MAX
            codes = Counter(call.code() for call in calls)
            assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
            late = [call.result() for call in calls if call.code() is grpc.StatusCode.OK]
            assert all(len(answer.items) == 10 for answer in late)
            assert any(answer.fallback == Fallback.FALLBACK_FEATURES_UNAVAILABLE for answer in late)
            assert figure(service, "millrace_recommender_requests_under_way") == 0
            redis.pause_s = 0.0
            wait_for(personal, "features again, without a restart")
