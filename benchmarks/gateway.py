"""The REST gateway: events one by one and in batches, and what it adds to a recommendation.

The limit of single events is a service on the same HTTP server that only gives the body back; that of batches is a bare
``EventProducer`` in a process of its own right, told of each event; that of a recommendation is the same question over
gRPC, asked in turn. Events are answered when the broker has them.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Sequence

import grpc
import numpy as np

from benchmarks import seed
from benchmarks.environment import Say, Servers, process, servers
from benchmarks.http_echo import http_echo
from benchmarks.http_load import run_http_load
from benchmarks.report import Row, latency_row, rate_row
from millrace.client import EventProducer
from millrace.events import build
from millrace.v1.recommendation_service_pb2 import RecommendRequest
from millrace.v1.recommendation_service_pb2_grpc import RecommendationServiceStub

ITEMS, USERS, K = 10_000, 5_000, 10
LOAD_S, QUESTIONS = 6.0, 2_000
# As many callers as a shop's processes keep connections; the more there are, the longer each waits.
CALLERS, BATCH_CALLERS, BATCH = 32, 4, 100
EVENT_PATH = "/api/v1/event"
TIMEOUT_S = 60.0


def run(say: Say, bootstrap_servers: str = "", redis_url: str = "") -> list[Row]:
    """The rows ``gateway.events_per_s``, ``event_ms``, ``batched_events_per_s``, ``batch_ms`` and ``recommend_ms``."""
    with servers(say, bootstrap_servers, redis_url) as at:
        say("putting items, users and a champion in")
        seed.publish_items(at.kafka, seed.item_states(ITEMS))
        users = seed.write_users(at.redis.url, USERS, ITEMS)
        seed.promote_first_ranker(at.kafka)
        with process("services.recommender", at) as recommender:
            recommender.wait_ready()
            target = recommender.announced["grpc"]
            variables = {"MILLRACE_GATEWAY_PORT": "0", "MILLRACE_RECOMMENDER_TARGET": target}
            with process("services.gateway", at, **variables) as gateway:
                gateway.wait_ready()
                return _measured(say, at, gateway.announced["http"], target, users)


def _measured(say: Say, at: Servers, address: str, target: str, users: Sequence[str]) -> list[Row]:
    events = [
        {"user_id": users[number % len(users)], "item_id": seed.item_id(number % ITEMS), "type": "click"}
        for number in range(100 * BATCH)
    ]
    batches = [events[start : start + BATCH] for start in range(0, len(events), BATCH)]
    run_http_load(address, EVENT_PATH, events, CALLERS, LOAD_S / 6)  # warm-up: connections, metadata, caches
    say(f"single events from {CALLERS} callers")
    single = run_http_load(address, EVENT_PATH, events, CALLERS, LOAD_S)
    say(f"batches of {BATCH} from {BATCH_CALLERS} callers")
    batched = run_http_load(address, EVENT_PATH, batches, BATCH_CALLERS, LOAD_S)
    for load in (single, batched):
        if load.failed:
            raise RuntimeError(f"{load.failed} requests were not taken")
    say("recommendations, over REST and gRPC in turn")
    rest_ms, grpc_ms = _questions(address, target, users)
    say("the limits: an HTTP echo, a bare producer")
    with http_echo() as echo:
        limit = run_http_load(echo, "/", events, CALLERS, LOAD_S / 2)
    return [
        rate_row("gateway.events_per_s", single.per_s, "events/s", limit.per_s, len(single.latencies_ms)),
        latency_row("gateway.event_ms", single.latencies_ms, float(np.percentile(limit.latencies_ms, 50))),
        rate_row(
            "gateway.batched_events_per_s",
            batched.per_s * BATCH,
            "events/s",
            _producer_per_s(at, batches),
            len(batched.latencies_ms),
        ),
        latency_row("gateway.batch_ms", batched.latencies_ms),
        latency_row("gateway.recommend_ms", rest_ms, float(np.percentile(grpc_ms, 50))),
    ]


def _questions(address: str, target: str, users: Sequence[str]) -> tuple[list[float], list[float]]:
    """Milliseconds of questions over REST and over gRPC, one after the other, in turn."""
    random = np.random.default_rng(1)
    rest, direct = [], []
    connection = http.client.HTTPConnection(address, timeout=TIMEOUT_S)
    with grpc.insecure_channel(target) as channel:
        stub = RecommendationServiceStub(channel)
        for user in random.choice(np.array(users), QUESTIONS).tolist():
            body = json.dumps({"user_id": user, "k": K})
            began = time.perf_counter()
            connection.request("POST", "/api/v1/recommend", body, {"Content-Type": "application/json"})
            json.loads(connection.getresponse().read())
            between = time.perf_counter()
            stub.Recommend(RecommendRequest(user_id=user, k=K), timeout=TIMEOUT_S)
            direct.append((time.perf_counter() - between) * 1000)
            rest.append((between - began) * 1000)
    connection.close()
    return rest, direct


def _producer_per_s(at: Servers, batches: Sequence[Sequence[dict[str, str]]]) -> float:
    """Events per second of a producer that is told of each event, with nothing before it."""
    sent = 0
    with EventProducer(at.kafka) as producer:
        began = time.perf_counter()
        while time.perf_counter() - began < LOAD_S / 2:
            batch = batches[sent // BATCH % len(batches)]
            assert not producer.deliver([build.interaction(one["user_id"], one["item_id"]) for one in batch])
            sent += len(batch)
        return sent / (time.perf_counter() - began)
