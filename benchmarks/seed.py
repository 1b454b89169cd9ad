"""Puts a made-up shop into a running stack: items, users' features, sessions, a champion; without any worker."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from confluent_kafka import Producer
from google.protobuf.message import Message

from benchmarks.redis_client import redis_client
from millrace.features import decay
from millrace.features.user_state import Engagement, KnownPosition, UserState, encode_user, user_key
from millrace.ranking.first import first_ranker
from millrace.registry.cache import default_directory
from millrace.settings import HOUR_MS, SECOND_MS, KafkaSettings
from millrace.stream import logs
from millrace.stream.clients import producer_config
from millrace.stream.codec import encode
from millrace.topics import INTERACTIONS, ITEM_STATE, MODEL_EVENTS, Topic
from millrace.v1.common_pb2 import DecayedSum
from millrace.v1.interaction_pb2 import Interaction, InteractionType
from millrace.v1.item_pb2 import Item, ItemState, Neighbours
from millrace.v1.model_pb2 import ModelEvent, ModelEventType

CLICK = InteractionType.INTERACTION_TYPE_CLICK
NEIGHBOURS = 50


def now_ms() -> int:
    """Unix milliseconds."""
    return int(time.time() * 1000)


def item_id(number: int) -> str:
    """Id of a made-up item."""
    return f"item-{number}"


def item_states(count: int, seed: int = 1) -> list[ItemState]:
    """Item states with popularity as it is on the web (Zipf, exponent 1) and 50 neighbours each."""
    random = np.random.default_rng(seed)
    now = now_ms()
    popularity = 1_000.0 / (1.0 + random.permutation(count))
    weights = np.sort(random.gamma(0.5, size=(count, NEIGHBOURS)))[:, ::-1]
    neighbours = random.integers(0, count, (count, NEIGHBOURS))
    return [
        ItemState(
            item_id=item_id(number),
            version=1,
            popularity_short=DecayedSum(value=popularity[number] / 36, as_of_ms=now),
            popularity_long=DecayedSum(value=popularity[number], as_of_ms=now),
            first_seen_ms=now - 24 * HOUR_MS,
            last_seen_ms=now - SECOND_MS,
            neighbours=Neighbours(
                item_ids=[item_id(other) for other in dict.fromkeys(neighbours[number].tolist())],
                weights=weights[number, : len(set(neighbours[number].tolist()))].tolist(),
                as_of_ms=now,
            ),
            catalogue=Item(item_id=item_id(number), title=f"Item {number}"),
        )
        for number in range(count)
    ]


def publish(kafka: KafkaSettings, topic: Topic, records: Iterable[tuple[str, Message]]) -> None:
    """Send keyed messages and wait until the broker has them."""
    publish_mixed(kafka, ((topic, key, message) for key, message in records))


def publish_mixed(kafka: KafkaSettings, records: Iterable[tuple[Topic, str, Message]]) -> None:
    """The same for records (topic, key, message) of several topics."""
    producer = Producer(producer_config(kafka), logger=logs.kafka_logger())
    for topic, key, message in records:
        value, headers = encode(message)
        while True:
            try:
                producer.produce(topic.name, value=value, key=key, headers=list(headers))
                break
            except BufferError:
                # The queue is full: wait until the broker has taken something.
                producer.poll(1.0)
        producer.poll(0)
    if producer.flush(30):
        raise RuntimeError("the broker did not take all records within 30 s")


def publish_items(kafka: KafkaSettings, states: Iterable[ItemState]) -> None:
    """Send item states."""
    publish(kafka, ITEM_STATE, ((state.item_id, state) for state in states))


def user_fields(items: Sequence[str], at_ms: int, disliked: Sequence[str] = ()) -> dict[str, bytes]:
    """The hash of a user who clicked the items, newest first, a second apart."""
    count = len(items)
    recent = tuple(
        Engagement(item, CLICK, at_ms - place * SECOND_MS, 0, count - place, 0) for place, item in enumerate(items)
    )
    state = UserState(
        counts={CLICK: count},
        decayed={CLICK: decay.DecayedSum(float(count), at_ms)},
        first_seen_ms=at_ms - count * SECOND_MS,
        last_seen_ms=at_ms,
        purchase_value=0.0,
        recent=recent,
        disliked=frozenset(disliked),
        known=KnownPosition(0, count),
    )
    return encode_user(state)


def write_users(redis_url: str, count: int, items: int, recent: int = 20, seed: int = 2) -> list[str]:
    """Write users with so many recent clicks each; returns their ids."""
    random = np.random.default_rng(seed)
    users = [f"user-{number}" for number in range(count)]
    now = now_ms()
    with redis_client(redis_url) as redis:
        pipeline = redis.pipeline(transaction=False)
        for user in users:
            clicked = [item_id(number) for number in random.integers(0, items, recent).tolist()]
            pipeline.hset(user_key(user), mapping=user_fields(clicked, now))
        pipeline.execute()
    return users


def publish_sessions(kafka: KafkaSettings, count: int, items: int, length: int = 5, seed: int = 3) -> int:
    """Send sessions of so many clicks each, on items by popularity (Zipf, exponent 1); returns how many clicks."""
    random = np.random.default_rng(seed)
    weights = 1.0 / (1.0 + random.permutation(items))
    clicked = random.choice(items, (count, length), p=weights / weights.sum()).tolist()
    now = now_ms()
    publish(
        kafka,
        INTERACTIONS,
        (
            (
                f"somebody-{session}",
                Interaction(
                    event_id=f"{session}-{place}",
                    user_id=f"somebody-{session}",
                    item_id=item_id(number),
                    type=CLICK,
                    occurred_at_ms=now,
                ),
            )
            for session, numbers in enumerate(clicked)
            for place, number in enumerate(numbers)
        ),
    )
    return count * length


def promote_first_ranker(kafka: KafkaSettings, model_name: str = "ranker", version: str = "1") -> Path:
    """Put the first ranker into this machine's cache and make it the champion, without MLflow."""
    folder = default_directory(model_name) / version
    digest = first_ranker().save(folder)
    event = ModelEvent(
        event_id=f"promoted-{version}",
        model_name=model_name,
        model_version=version,
        type=ModelEventType.MODEL_EVENT_TYPE_PROMOTED,
        at_ms=now_ms(),
        reason="seeded",
        sha256=bytes.fromhex(digest),
    )
    publish(kafka, MODEL_EVENTS, [(model_name, event)])
    return folder
