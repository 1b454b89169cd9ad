"""Workers: events a second that one process takes, from a topic that holds them all, item-state going out meanwhile.

Two limits are measured in the same run: the bare consumer that reads the same records and does nothing, and the bare
Redis that takes one guarded counter for each user and item of a batch in pipelined Lua. A worker cannot be faster
than the lower one, which stands as the limit beside its figure.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence

import numpy as np
from confluent_kafka import Consumer, TopicPartition

from benchmarks.environment import Process, Say, process, servers
from benchmarks.report import Row, rate_row
from benchmarks.seed import now_ms, publish
from millrace.features.calls import batched_calls
from millrace.features.store import FeatureStore, load_script
from millrace.settings import DAY_MS, KafkaSettings, RedisSettings, settings
from millrace.stream import logs
from millrace.stream.clients import consumer_config
from millrace.topics import INTERACTIONS, Topic
from millrace.v1.interaction_pb2 import Interaction, InteractionType

EVENTS = 200_000
USERS, ITEMS, TOPICS = 20_000, 10_000, 200
# Sessions that go on at the same time, their mean length, and the time between two events of the whole shop: a
# session lasts some ten minutes, and the events an hour.
ACTIVE_SESSIONS, SESSION_LENGTH, STEP_MS = 4_000, 5, 20
TYPES = (
    (InteractionType.INTERACTION_TYPE_CLICK, 0.60),
    (InteractionType.INTERACTION_TYPE_VIEW, 0.30),
    (InteractionType.INTERACTION_TYPE_ADD_TO_CART, 0.07),
    (InteractionType.INTERACTION_TYPE_PURCHASE, 0.03),
)
# Between two looks at the worker's counters; each costs the worker 2 ms.
LOOK_S = 0.2
GIVE_UP_S = 60.0
REDIS_LIMIT_EVENTS = 50_000

_RECORDS = re.compile(r"^millrace_stream_records_total\{[^}]*\} (\S+)$", re.MULTILINE)


def run(say: Say, bootstrap_servers: str = "", redis_url: str = "") -> list[Row]:
    """The row ``feature_updater.events_per_s`` and the rows of its two limits."""
    with servers(say, bootstrap_servers, redis_url) as at:
        say(f"writing {EVENTS:,} interactions")
        events = list(shop(EVENTS))
        publish(at.kafka, INTERACTIONS, ((event.user_id, event) for event in events))
        say("the limit of the broker: a bare consumer")
        consumed = consume_rate(at.kafka, [INTERACTIONS], EVENTS)
        say("the limit of Redis: guarded counters in pipelined Lua")
        written = redis_rate(at.redis, events[:REDIS_LIMIT_EVENTS])
        say("one feature updater")
        with process("workers.feature_updater", at) as updater:
            taken = worker_rate(updater, EVENTS)
    limit = min(consumed, written)
    return [
        rate_row("feature_updater.events_per_s", taken, "events/s", limit, EVENTS),
        rate_row("feature_updater.consumer_limit_per_s", consumed, "events/s", None, EVENTS),
        rate_row("feature_updater.redis_limit_per_s", written, "events/s", None, REDIS_LIMIT_EVENTS),
    ]


def shop(count: int, seed: int = 3) -> Iterator[Interaction]:
    """Interactions of a made-up shop up to now: sessions that stay within a topic, popularity as on the web (Zipf)."""
    random = np.random.default_rng(seed)
    kinds = random.choice([kind for kind, _ in TYPES], count, p=[share for _, share in TYPES]).tolist()
    slots = random.integers(0, ACTIVE_SESSIONS, count).tolist()
    places = _zipf(random, ITEMS // TOPICS, count)
    ends = (random.random(count) < 1 / SESSION_LENGTH).tolist()
    users = random.integers(0, USERS, ACTIVE_SESSIONS + count).tolist()
    topics = _zipf(random, TOPICS, ACTIVE_SESSIONS + count)
    sessions = list(zip(users[:ACTIVE_SESSIONS], topics[:ACTIVE_SESSIONS], strict=True))
    start_ms = now_ms() - count * STEP_MS
    for number, (kind, slot, place) in enumerate(zip(kinds, slots, places, strict=True)):
        user, topic = sessions[slot]
        yield Interaction(
            event_id=f"bench-{number:012d}",
            user_id=f"shopper-{user}",
            item_id=f"item-{topic * (ITEMS // TOPICS) + place}",
            type=kind,
            occurred_at_ms=start_ms + number * STEP_MS,
            value=9.99 if kind == InteractionType.INTERACTION_TYPE_PURCHASE else None,
        )
        if ends[number]:
            sessions[slot] = users[ACTIVE_SESSIONS + number], topics[ACTIVE_SESSIONS + number]


def consume_rate(kafka: KafkaSettings, topics: Sequence[Topic], records: int) -> float:
    """Records a second of a consumer that does nothing with them; the topics hold so many."""
    consumer = Consumer(consumer_config(kafka, "bench"), logger=logs.kafka_logger())
    consumer.assign([TopicPartition(topic.name, number, 0) for topic in topics for number in range(kafka.partitions)])
    batch_size = settings().stream.batch_size
    seen = len(consumer.consume(1, GIVE_UP_S))
    began = time.perf_counter()
    while seen < records:
        seen += len(consumer.consume(batch_size, 1.0))
        if time.perf_counter() > began + GIVE_UP_S:
            raise RuntimeError(f"the broker had {seen} of {records} records")
    rate = records / (time.perf_counter() - began)
    consumer.close()
    return rate


def redis_rate(redis: RedisSettings, events: Sequence[Interaction]) -> float:
    """Events a second of a Redis that counts each once for its user and once for its item, and does no more."""
    store = FeatureStore(redis)
    store.connect()
    script = store.load(load_script("bench_counter", {"TTL_MS": DAY_MS}, package="benchmarks"))
    batch_size = settings().stream.batch_size
    began = time.perf_counter()
    for start in range(0, len(events), batch_size):
        for prefix, ids in (("u", "user_id"), ("i", "item_id")):
            packed: dict[bytes, list[bytes]] = {}
            for offset, event in enumerate(events[start : start + batch_size], start):
                key = f"bench:{prefix}:{getattr(event, ids)}".encode()
                packed.setdefault(key, []).append(offset.to_bytes(8, "little"))
            store.run(script, batched_calls(packed))
    rate = len(events) / (time.perf_counter() - began)
    store.close()
    return rate


def worker_rate(worker: Process, records: int) -> float:
    """Records a second from the first that the worker is seen to have handled to the last of so many."""
    nothing_at = time.perf_counter()
    give_up = nothing_at + GIVE_UP_S
    first: tuple[float, float] | None = None
    while True:
        now, handled = time.perf_counter(), sum(map(float, _RECORDS.findall(worker.metrics())))
        if not handled:
            nothing_at = now
        elif first is None:
            # Where the first look finds everything done, the time since the last that found nothing has to do.
            first = (now, handled) if handled < records else (nothing_at, 0.0)
        if first is not None and handled >= records:
            return (handled - first[1]) / (now - first[0])
        if now > give_up:
            raise RuntimeError(f"the worker handled {handled:.0f} of {records} records in {GIVE_UP_S:.0f} s")
        # A worker does not tell when it is through; its counters do.
        time.sleep(LOOK_S)


def _zipf(random: np.random.Generator, kinds: int, count: int) -> list[int]:
    weights = 1.0 / np.arange(1, kinds + 1)
    chosen: list[int] = random.choice(kinds, count, p=weights / weights.sum()).tolist()
    return chosen
