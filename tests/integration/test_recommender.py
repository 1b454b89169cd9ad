"""The recommender as a process, with a real broker and Redis, asked over gRPC."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from google.protobuf.message import Message
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub
from redis import Redis as RedisClient

from benchmarks import seed
from deploy.embedded.member import stop
from millrace.features.user_state import user_key
from millrace.ranking.features import FEATURE_NAMES, FEATURE_SCHEMA
from millrace.ranking.first import first_ranker
from millrace.settings import KafkaSettings
from millrace.stream.reader import TopicReader
from millrace.stream.scrape import Announcement, all_announcements
from millrace.topics import IMPRESSIONS
from millrace.v1.common_pb2 import Context
from millrace.v1.impression_pb2 import AnswerStatus, CandidateSource, Fallback, Impression
from millrace.v1.item_pb2 import ItemState
from millrace.v1.recommendation_service_pb2 import (
    RecommendBatchRequest,
    RecommendRequest,
    RepeatPolicy,
)
from millrace.v1.recommendation_service_pb2_grpc import RecommendationServiceStub
from tests.processes import PATIENCE_S
from tests.recommending import Service, popen, recommender, wait_for

ITEMS, USERS = 300, 20
UNAVAILABLE, DISLIKED = seed.item_id(0), seed.item_id(1)


@pytest.fixture(scope="module")
def shop(topics_applied: KafkaSettings, redis_url: str, millrace_home: Path) -> dict[str, str]:
    """Items, users and a champion; the environment of a recommender that serves them."""
    states = seed.item_states(ITEMS)
    states[0].catalogue.available = False
    seed.publish_items(topics_applied, states)
    seed.write_users(redis_url, USERS, ITEMS)
    with RedisClient.from_url(redis_url) as redis:
        fields = seed.user_fields([seed.item_id(5), seed.item_id(6)], seed.now_ms(), disliked=[DISLIKED])
        redis.hset(user_key("dislikes"), mapping=fields)
    seed.promote_first_ranker(topics_applied)
    return {
        "KAFKA_BOOTSTRAP_SERVERS": topics_applied.bootstrap_servers,
        "KAFKA_PARTITIONS": "3",
        "REDIS_URL": redis_url,
    }


@pytest.fixture(scope="module")
def service(shop: dict[str, str], millrace_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with recommender(millrace_home, tmp_path_factory.mktemp("recommender") / "log", shop) as running:
        wait_for(lambda: running.ready() and running.readiness()[1]["model_version"], "readiness and a champion")
        yield running


def refused(call: Any) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, caught.value
    return str(caught.value.details())


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("user_id", {"user_id": ""}),
        ("user_id", {"user_id": "x" * 257}),
        ("user_id", {"user_id": "a\nb"}),
        ("k", {"k": 0}),
        ("k", {"k": -1}),
        ("k", {"k": 1_000_000}),
        ("as_of_ms", {"as_of_ms": -5}),
        ("as_of_ms", {"as_of_ms": 1_700_000_000}),
        ("exclude_item_ids", {"exclude_item_ids": ["i"] * 1_001}),
        ("exclude_item_ids[1]", {"exclude_item_ids": ["i", ""]}),
        ("restrict_to_item_ids[0]", {"restrict_to_item_ids": ["\x00"]}),
        ("request_id", {"request_id": "r" * 300}),
        ("session_id", {"session_id": "s" * 300}),
        ("repeat_policy", {"repeat_policy": 77}),
        ("viewport", {"viewport": 201}),
        ("context", {"context": Context(device="d" * 300)}),
    ],
)
def test_bad_input_is_refused_by_name(service: Service, field: str, fields: dict[str, Any]) -> None:
    assert refused(lambda: service.ask(**fields)).startswith(field)


def test_a_batch_is_refused_by_the_place_of_what_is_wrong(service: Service) -> None:
    good, bad = RecommendRequest(user_id="user-0", k=5), RecommendRequest(user_id="user-1", k=0)
    batch = service.stub.RecommendBatch
    assert refused(lambda: batch(RecommendBatchRequest(requests=[good, bad]))).startswith("requests[1].k")
    assert refused(lambda: batch(RecommendBatchRequest())).startswith("requests:")
    assert refused(lambda: batch(RecommendBatchRequest(requests=[good] * 101))).startswith("requests:")


def test_bytes_that_are_no_protobuf_are_refused(service: Service) -> None:
    for method in ("Recommend", "RecommendBatch"):
        raw: Any = service.channel.unary_unary(f"/millrace.v1.RecommendationService/{method}")
        assert refused(lambda raw=raw: raw(b"\xff\xff\xff", timeout=PATIENCE_S)).startswith("request:")
    assert refused(lambda raw=raw: raw(b"", timeout=PATIENCE_S)).startswith("requests:")
    assert service.ask().items, "and the service goes on"


def test_a_known_user_gets_the_models_ranking_of_own_candidates(service: Service) -> None:
    answer = service.ask("user-3", 20, explain=True)
    assert len({item.item_id for item in answer.items}) == 20
    scores = [item.score for item in answer.items]
    assert scores == sorted(scores, reverse=True)
    assert (answer.status, answer.fallback) == (AnswerStatus.ANSWER_STATUS_OK, Fallback.FALLBACK_NONE)
    assert (answer.model_name, answer.model_version) == ("ranker", "1")
    assert (answer.feature_schema, tuple(answer.feature_names)) == (FEATURE_SCHEMA, FEATURE_NAMES)
    assert all(len(item.features) == len(FEATURE_NAMES) for item in answer.items)
    assert any(CandidateSource.CANDIDATE_SOURCE_NEIGHBOURS in item.sources for item in answer.items)
    assert (answer.known.topic, answer.known.partition, answer.known.offset) == ("interactions", 0, 20)
    assert wait_for(lambda: service.ask("user-3").known.topic_id, "the topic's id")
    assert answer.request_id
    assert answer.serve_micros > 0
    assert UNAVAILABLE not in {item.item_id for item in service.ask("user-3", 200).items}


def test_an_unknown_user_gets_trending_items_and_is_told(service: Service) -> None:
    answer = service.ask("nobody knows me")
    assert answer.fallback == Fallback.FALLBACK_UNKNOWN_USER
    assert answer.status == AnswerStatus.ANSWER_STATUS_OK
    assert not answer.HasField("known")
    trending = {CandidateSource.CANDIDATE_SOURCE_TRENDING_SHORT, CandidateSource.CANDIDATE_SOURCE_TRENDING_LONG}
    assert len(answer.items) == 10
    assert all(trending & set(item.sources) for item in answer.items)


def test_excluded_restricted_disliked_and_repeated_items(service: Service) -> None:
    first = [item.item_id for item in service.ask("user-1", 5).items]
    assert not set(first) & {item.item_id for item in service.ask("user-1", 200, exclude_item_ids=first).items}
    wanted = [seed.item_id(number) for number in (7, 8, 9)]
    restricted = service.ask("user-1", 10, restrict_to_item_ids=[*wanted, UNAVAILABLE, "no such item"])
    assert {item.item_id for item in restricted.items} == set(wanted)
    assert all(CandidateSource.CANDIDATE_SOURCE_REQUESTED in item.sources for item in restricted.items)
    everything = service.ask("dislikes", 200)
    assert DISLIKED not in {item.item_id for item in everything.items}
    assert not service.ask("dislikes", 10, restrict_to_item_ids=[DISLIKED]).items
    known = {seed.item_id(5), seed.item_id(6)}
    new_only = service.ask("dislikes", 200, repeat_policy=RepeatPolicy.REPEAT_POLICY_EXCLUDE)
    assert not known & {item.item_id for item in new_only.items}


def test_as_of_is_serving_time(service: Service) -> None:
    as_of = seed.now_ms() - 3_600_000
    answer = service.ask("user-2", as_of_ms=as_of)
    assert answer.served_at_ms == as_of
    assert answer.items


def test_a_batch_answers_in_order(service: Service) -> None:
    users = ["user-4", "nobody", "user-5"]
    batch = RecommendBatchRequest(requests=[RecommendRequest(user_id=user, k=3, request_id=user) for user in users])
    answers = service.stub.RecommendBatch(batch, timeout=PATIENCE_S).responses
    assert [answer.request_id for answer in answers] == users
    assert [answer.fallback for answer in answers] == [
        Fallback.FALLBACK_NONE,
        Fallback.FALLBACK_UNKNOWN_USER,
        Fallback.FALLBACK_NONE,
    ]


def test_impressions_carry_the_features_that_were_scored(service: Service, topics_applied: KafkaSettings) -> None:
    asked = {}
    for number in range(5):
        answer = service.ask(f"user-{number}", 10, session_id="s", viewport=4)
        asked[answer.request_id] = answer
    unknown = service.ask("stranger")
    asked[unknown.request_id] = unknown
    logged = impressions(topics_applied, set(asked))
    river = first_ranker().to_river()
    for request_id, answer in asked.items():
        impression = logged[request_id]
        assert [slot.item_id for slot in impression.slots] == [item.item_id for item in answer.items]
        assert [slot.rank for slot in impression.slots] == list(range(len(answer.items)))
        for slot, item in zip(impression.slots, answer.items, strict=True):
            assert slot.score == item.score
            example = dict(zip(FEATURE_NAMES, slot.features, strict=True))
            assert river.predict_proba_one(example)[True] == pytest.approx(slot.score, abs=1e-6)
        assert impression.feature_schema == FEATURE_SCHEMA
        assert (impression.status, impression.fallback) == (answer.status, answer.fallback)
        assert impression.propensity == 1.0
        assert impression.served_at_ms == answer.served_at_ms
        assert impression.candidates >= len(impression.slots)
    assert logged[unknown.request_id].segment == "unknown"
    assert logged[unknown.request_id].viewport == 10
    known = next(iter(asked))
    assert (logged[known].viewport, logged[known].session_id) == (4, "s")
    assert logged[known].known == asked[known].known


def impressions(kafka: KafkaSettings, wanted: set[str]) -> dict[str, Impression]:
    found: dict[str, Impression] = {}
    with TopicReader(kafka, [IMPRESSIONS]) as reader:
        give_up = time.monotonic() + PATIENCE_S
        while set(found) != wanted:
            assert time.monotonic() < give_up, f"missing: {wanted - set(found)}"
            for record in reader.poll():
                message: Message | None = record.message
                assert isinstance(message, Impression)
                assert record.key == message.user_id.encode()
                if message.request_id in wanted:
                    found[message.request_id] = message
    return found


def test_new_states_and_tombstones_reach_the_answers(service: Service, topics_applied: KafkaSettings) -> None:
    def shown() -> set[str]:
        return {item.item_id for item in service.ask("user-6", 10, restrict_to_item_ids=["brand new"]).items}

    assert not shown()
    seed.publish_items(topics_applied, [ItemState(item_id="brand new", version=5)])
    wait_for(shown, "the new item")
    gone = ItemState(item_id="brand new", version=6)
    gone.catalogue.available = False
    seed.publish_items(topics_applied, [gone])
    wait_for(lambda: not shown(), "the item's end")


def test_health_and_reflection(service: Service) -> None:
    health: Any = HealthStub(service.channel)
    for name in ("", "millrace.v1.RecommendationService"):
        assert health.Check(HealthCheckRequest(service=name), timeout=PATIENCE_S).status == HealthCheckResponse.SERVING
    ask = iter([ServerReflectionRequest(list_services="")])
    reflection: Any = ServerReflectionStub(service.channel)
    (answer,) = reflection.ServerReflectionInfo(ask, timeout=PATIENCE_S)
    names = {entry.name for entry in answer.list_services_response.service}
    assert {"millrace.v1.RecommendationService", "grpc.health.v1.Health"} <= names


def test_metrics(service: Service) -> None:
    service.ask("nobody")
    wait_for(lambda: "millrace_recommender_mirror_items 30" in service.figures(), "the number of items")
    figures = service.figures()
    for name in (
        "millrace_recommender_request_seconds_bucket",
        "millrace_recommender_features_read_seconds_count",
        "millrace_recommender_mirror_items_max 1e+06",
        "millrace_recommender_impressions_pending_max 50000.0",
        "millrace_recommender_requests_under_way_max 256.0",
        'millrace_recommender_model_version{model="ranker",version="1"} 1.0',
        'fallback="FALLBACK_UNKNOWN_USER"',
    ):
        assert name in figures, name


def test_drain_ends_with_zero_and_sends_impressions(
    shop: dict[str, str], millrace_home: Path, tmp_path: Path, topics_applied: KafkaSettings
) -> None:
    # Impressions linger for longer than the test would wait without a flush.
    env = shop | {"MILLRACE_RECOMMENDER_LINGER_MS": "60000"}
    with recommender(millrace_home, tmp_path / "log", env) as running:
        wait_for(running.ready, "readiness")
        request_ids = {running.ask(f"user-{number}").request_id for number in range(20)}
        running.popen.terminate()
        assert running.popen.wait(PATIENCE_S) == 0, (tmp_path / "log").read_text()
    assert set(impressions(topics_applied, request_ids)) == request_ids
    assert not (millrace_home / "run" / f"recommender-{running.popen.pid}.json").exists()


def test_a_port_that_is_taken_is_named(
    service: Service, shop: dict[str, str], millrace_home: Path, tmp_path: Path
) -> None:
    port = service.target.rpartition(":")[2]
    process = popen(millrace_home, tmp_path / "log", shop | {"MILLRACE_RECOMMENDER_PORT": port})
    try:
        assert process.wait(PATIENCE_S) == 1
    finally:
        stop(process)
    assert f"cannot listen on {service.target}" in (tmp_path / "log").read_text()


def test_several_processes_share_the_port(shop: dict[str, str], millrace_home: Path, tmp_path: Path) -> None:
    process = popen(millrace_home, tmp_path / "log", shop | {"MILLRACE_RECOMMENDER_PROCESSES": "2"})

    def announced() -> list[Announcement]:
        assert process.poll() is None, (tmp_path / "log").read_text()
        children = {child.pid for child in psutil.Process(process.pid).children()}
        return [one for one in all_announcements(millrace_home / "run") if one.pid in children]

    try:
        two = wait_for(lambda: both if len(both := announced()) == 2 else None, "two processes") or []
        assert len({one.grpc for one in two}) == 1
        with grpc.insecure_channel(two[0].grpc) as channel:
            stub = RecommendationServiceStub(channel)
            wait_for(lambda: stub.Recommend(RecommendRequest(user_id="user-1", k=5), timeout=PATIENCE_S).items, "items")
        process.terminate()
        assert process.wait(PATIENCE_S) == 0, (tmp_path / "log").read_text()
    finally:
        stop(process)
