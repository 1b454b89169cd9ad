"""Freshness: how soon a click shows in recommendations, while 1,000 other clicks a second go through.

A probe sends a click of its own user and then asks for that user's recommendations again and again: until an answer
knows the click (its position is at or past the click's), and until such an answer's list differs from the one
before the click. The limit is the bare way through the broker: from producing a record to a consumer that has it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import grpc
import numpy as np
from confluent_kafka import Consumer, TopicPartition

from benchmarks import seed
from benchmarks.clicks import background_clicks
from benchmarks.environment import ASK_TIMEOUT_S, Say, process, servers
from benchmarks.report import Row, latency_row
from millrace.client import EventProducer
from millrace.settings import KafkaSettings, settings
from millrace.stream import logs
from millrace.stream.clients import consumer_config
from millrace.topics import INTERACTIONS
from millrace.v1.recommendation_service_pb2 import RecommendRequest, RecommendResponse
from millrace.v1.recommendation_service_pb2_grpc import RecommendationServiceStub

BACKGROUND_PER_S = 1_000
WARM_UP_S, PROBING_S, LIMIT_S = 6.0, 20.0, 3.0
PROBE_USERS, K = 40, 20
# A pause before each probe, random so that probes do not fall into step with batches.
PAUSE_MAX_S = 0.03
# Between two questions of a probe: what it adds to a sample at most, and what keeps it from loading the service.
POLL_S = 0.001
# A click that does not show in this time counts with it.
GIVE_UP_S = 2.0


@dataclass(slots=True)
class Samples:
    """Milliseconds from sending a click to ..."""

    known_ms: list[float] = field(default_factory=list)
    changed_ms: list[float] = field(default_factory=list)


def run(say: Say, bootstrap_servers: str = "", redis_url: str = "", running: bool = False) -> list[Row]:
    """The rows ``freshness.click_to_known_ms`` and ``freshness.click_to_recommendation_ms``.

    ``running``: through the pipeline that already runs, as the settings say; it gets the background load as well.
    """
    with pipeline(say, bootstrap_servers, redis_url, running) as (kafka, target), ExitStack() as stack:
        stack.enter_context(background_clicks(kafka, BACKGROUND_PER_S, WARM_UP_S + PROBING_S + LIMIT_S + 5.0))
        stub = RecommendationServiceStub(stack.enter_context(grpc.insecure_channel(target)))
        events = stack.enter_context(EventProducer(kafka))
        say(f"{BACKGROUND_PER_S} clicks/s in the background: warm-up")
        _probe_for(WARM_UP_S, stub, events, Samples())
        say("probing")
        samples = Samples()
        _probe_for(PROBING_S, stub, events, samples)
        say("the limit: through the broker and back")
        limit_ms = _broker_ms(kafka)
    return [
        latency_row("freshness.click_to_known_ms", samples.known_ms, limit_ms),
        latency_row("freshness.click_to_recommendation_ms", samples.changed_ms, limit_ms),
    ]


@contextmanager
def pipeline(say: Say, bootstrap_servers: str, redis_url: str, running: bool) -> Iterator[tuple[KafkaSettings, str]]:
    """Broker and gRPC address of a pipeline with a feature updater and a recommender."""
    if running:
        yield settings().kafka, settings().client.recommender_target
        return
    with servers(say, bootstrap_servers, redis_url) as at:
        seed.promote_first_ranker(at.kafka)
        say("starting feature updater and recommender")
        # A list in random order would look changed.
        ordered = {"MILLRACE_RECOMMENDER_SHUFFLED_SHARE": "0"}
        with process("workers.feature_updater", at), process("services.recommender", at, **ordered) as recommender:
            recommender.wait_ready()
            yield at.kafka, recommender.announced["grpc"]


def _probe_for(seconds: float, stub: RecommendationServiceStub, events: EventProducer, samples: Samples) -> None:
    random = np.random.default_rng(7)
    until = time.monotonic() + seconds
    number = 0
    while time.monotonic() < until:
        time.sleep(random.uniform(0, PAUSE_MAX_S))
        _probe(stub, events, f"probe-{number % PROBE_USERS}", random, samples)
        number += 1


def _probe(
    stub: RecommendationServiceStub, events: EventProducer, user: str, random: np.random.Generator, samples: Samples
) -> None:
    """Click one of the user's recommendations and ask until it shows."""
    before = _ask(stub, user)
    listed = [item.item_id for item in before.items]
    clicked = listed[random.integers(len(listed))] if listed else seed.item_id(int(random.integers(100)))
    # Nobody else clicks as this user: any newer position is this click's or past it.
    newest = before.known.offset if before.HasField("known") else -1
    known_ms = None
    started = time.perf_counter()
    events.interaction(user, clicked, "click", request_id=before.request_id)
    while True:
        answer = _ask(stub, user)
        ms = (time.perf_counter() - started) * 1000
        gave_up = ms > GIVE_UP_S * 1000
        if gave_up or (answer.HasField("known") and answer.known.offset > newest):
            known_ms = ms if known_ms is None else known_ms
            if gave_up or [item.item_id for item in answer.items] != listed:
                samples.known_ms.append(known_ms)
                samples.changed_ms.append(ms)
                return
        time.sleep(POLL_S)


def _ask(stub: RecommendationServiceStub, user: str) -> RecommendResponse:
    return stub.Recommend(RecommendRequest(user_id=user, k=K), timeout=ASK_TIMEOUT_S)


def _broker_ms(kafka: KafkaSettings) -> float:
    """Median milliseconds from producing a click to a consumer that has it."""
    consumer = Consumer(
        consumer_config(kafka, "benchmark") | {"fetch.wait.max.ms": settings().stream.fetch_wait_ms},
        logger=logs.kafka_logger(),
    )
    samples: list[float] = []
    try:
        partitions = consumer.list_topics(INTERACTIONS.name, timeout=10).topics[INTERACTIONS.name].partitions
        places = [TopicPartition(INTERACTIONS.name, number) for number in partitions]
        for place in places:
            place.offset = consumer.get_watermark_offsets(place, timeout=10)[1]
        consumer.assign(places)
        with EventProducer(kafka) as events:
            until = time.monotonic() + LIMIT_S
            while not samples or time.monotonic() < until:
                started = time.perf_counter()
                events.interaction("limit", seed.item_id(0), "click")
                if _arrives(consumer, b"limit"):
                    samples.append((time.perf_counter() - started) * 1000)
    finally:
        consumer.close()
    return float(np.median(samples))


def _arrives(consumer: Consumer, key: bytes) -> bool:
    """Whether a record with the key comes; those of the background are passed over."""
    give_up = time.monotonic() + GIVE_UP_S
    while time.monotonic() < give_up:
        message = consumer.poll(GIVE_UP_S)
        if message is not None and message.key() == key:
            return True
    return False
