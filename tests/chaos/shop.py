"""A shop whose every event is in a ledger: what the feature updater is held to whatever befalls it."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import count
from typing import Any, Protocol

import pytest
from confluent_kafka import KafkaError, Producer
from confluent_kafka import Message as KafkaMessage

from millrace.errors import InfrastructureError
from millrace.features.store import FeatureStore
from millrace.redis_link import parse_info
from millrace.settings import HOUR_MS, FeatureSettings, KafkaSettings
from millrace.stream import logs
from millrace.stream.clients import producer_config
from millrace.stream.codec import encode
from millrace.topics import INTERACTIONS, ITEM_STATE
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.item_pb2 import ItemState
from tests.chaos.forking import Forked
from tests.chaos.results import Found, times
from tests.conftest import Child
from tests.contracts import by_any_release
from tests.feature_ledger import CLICK, DISLIKE, FORGET, PURCHASE, VIEW, Ledger, Logged
from tests.feature_support import assert_equals_ledger, clicks, connected, load_item
from tests.processes import PATIENCE_S
from tests.stream_support import committed, read_all

T0 = 1_700_000_000_000
# No neighbour may be left out, else the naive model would have to know in which order they came.
FEATURES = FeatureSettings(neighbours_kept=10_000)
# While shoppers act they do less than 1,000 things a second, and several times as many in the longer form.
AT_ONCE, PAUSE_S = 20 * min(5, times()), 0.02
# Of all that they do, one thing is to ask to be forgotten.
FORGET_EVERY = 400
# Redis with everysec loses at most its last second, as does a replica that takes over here.
LOST_S = (0.2, 1.0)


class LosesWrites(Protocol):
    """A Redis that loses what it wrote last: of ``losing`` see ``losing_redis`` and ``failing_cluster``."""

    @property
    def url(self) -> str: ...

    def losing(self, within_s: float) -> AbstractContextManager[int]: ...


class Shop:
    """What shoppers did, where it stands on the log, and what Redis has to hold because of it."""

    def __init__(self, kafka: KafkaSettings, redis: LosesWrites, seed: int) -> None:
        self.kafka, self.redis = kafka, redis
        self.log: list[Logged] = []
        self.store: FeatureStore = connected(redis.url)
        self._chance, self._numbers, self._lasts = random.Random(seed), count(), count()
        self._producer = Producer(producer_config(kafka), logger=logs.kafka_logger())
        self._reported = 0

    @property
    def env(self) -> Mapping[str, str]:
        """Environment variables of a feature updater of this shop."""
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
            "KAFKA_PARTITIONS": str(self.kafka.partitions),
            "REDIS_URL": self.redis.url,
            "MILLRACE_FEATURES_NEIGHBOURS_KEPT": str(FEATURES.neighbours_kept),
        }

    @contextmanager
    def acting(self, users: int = 300, items: int = 150) -> Iterator[None]:
        """Shoppers act all the time, for the length of a ``with`` block.

        Some events are posted twice, and a few users ask to be forgotten. Producers are of several releases.
        """
        ends = threading.Event()

        def act() -> None:
            while not ends.wait(PAUSE_S):
                self._act(users, items)

        acting = threading.Thread(target=act)
        acting.start()
        try:
            yield
        finally:
            ends.set()
            acting.join()

    def scripts_run(self) -> int:
        """How many script calls this Redis has served since it started."""
        figures = (
            parse_info(reply).get("cmdstat_evalsha", "") for reply in self.store.ask_every("INFO", "commandstats")
        )
        return sum(int(shown.removeprefix("calls=").partition(",")[0]) for shown in figures if shown)

    def lose_writes(self, worker: Child, losses: int) -> Sequence[float]:
        """Redis loses writes so many times under a worker that lives; how long each time until that went on, seconds.

        Few users and few items act, so that the next write to a key that lost some would hide the hole at once.
        """
        found, recovered = 0, []
        for _ in range(3 * losses):
            with self.acting(users=12, items=20):
                # Positions are committed again, so that the next ones soon are.
                before = committed(self.kafka, "feature_updater", INTERACTIONS)
                worker.until(
                    lambda before=before: committed(self.kafka, "feature_updater", INTERACTIONS) != before  # type: ignore[misc]
                )
                with self.redis.losing(self._chance.uniform(*LOST_S)) as lost:
                    lost_at = time.monotonic()
                worker.until(self._scripts_run_again)
                recovered.append(time.monotonic() - lost_at)
            found += lost > 0
            if found == losses:
                return recovered
        pytest.fail("Redis lost something too seldom")

    def settle(self, worker: Child | Forked) -> Ledger:
        """Wait until the worker has taken everything, and end it; what there has to be now."""
        number = next(self._lasts)
        for partition in range(self.kafka.partitions):
            self._produce([click(f"last {number}", f"last-{number}-{partition}", T0)], partition)
        worker.until(
            lambda: all(clicks(self.store, f"last-{number}-{place}") for place in range(self.kafka.partitions))
        )
        worker.terminate()
        return Ledger(FEATURES, self.log)

    def found(self, ledger: Ledger) -> Found:
        """Clicks of users and items as Redis counts them, against the ledger; events since it was asked last."""
        found = Found(events=len(self.log) - self._reported)
        self._reported = len(self.log)
        for name, item in ledger.items.items():
            state = load_item(self.store, name, FEATURES)
            found.compare(item.counts()[CLICK], state.counts.clicks if state else 0)
        for name, user in ledger.users.items():
            found.compare(sum(event.type == CLICK for event in user.accepted), clicks(self.store, name))
        return found

    def assert_equals(self, ledger: Ledger) -> None:
        """Every user, every item and every published state is what the ledger says."""
        assert ledger.duplicates > len(self.log) / 60
        assert any(user.erased for user in ledger.users.values())
        assert_equals_ledger(self.store, ledger, FEATURES)
        assert self._published_clicks() == {name: item.counts()[CLICK] for name, item in ledger.items.items()}

    def _act(self, users: int, items: int) -> None:
        """What comes at once."""
        self._produce(self._made(AT_ONCE, users, items))

    def _scripts_run_again(self) -> bool:
        try:
            if not self.store.connected:
                self.store.connect()
            return self.scripts_run() > 0
        except InfrastructureError:
            return False  # a node of a cluster may tell of the past yet

    def _made(self, number: int, users: int, items: int) -> list[Interaction]:
        chance, events = self._chance, list[Interaction]()
        for _ in range(number):
            at = next(self._numbers)
            kind: Any = chance.choices((CLICK, VIEW, PURCHASE, DISLIKE), (700, 200, 50, 40))[0]
            if at % FORGET_EVERY == FORGET_EVERY // 2:
                kind = FORGET
            event = click(f"e{at}", f"user {chance.randrange(users)}", T0 + at * 1_000 + chance.randrange(HOUR_MS))
            event.type = kind
            event.item_id = "" if kind == FORGET else f"item-{int(chance.paretovariate(0.8)) % items}"
            if kind == PURCHASE:
                event.value = chance.randrange(1, 10_000) / 100
            events += [event] * (1 + (chance.random() < 0.03))
        return events

    def _produce(self, events: Sequence[Interaction], partition: int = -1) -> list[tuple[int, int]]:
        """Send and log some events; the partition and the offset of each."""
        places: dict[int, tuple[int, int]] = {}

        def arrived(number: int, error: KafkaError | None, message: KafkaMessage) -> None:
            assert error is None, error
            places[number] = message.partition() or 0, message.offset() or 0

        for number, event in enumerate(events):
            _, headers = encode(event)
            self._producer.produce(
                INTERACTIONS.name,
                by_any_release(event, self._chance),
                event.user_id,
                partition,
                headers=headers,  # type: ignore[arg-type]  # a list is invariant
                on_delivery=partial(arrived, number),
            )
        assert self._producer.flush(PATIENCE_S) == 0
        self.log += [Logged(*places[number], event) for number, event in enumerate(events)]
        return [places[number] for number in range(len(events))]

    def _published_clicks(self) -> Mapping[str, int]:
        """Clicks of each item by the newest record of item-state, as a mirror sees it."""
        newest: dict[str, ItemState] = {}
        for message in read_all(self.kafka, ITEM_STATE.name):
            value = message.value()
            assert isinstance(value, bytes)
            state = ItemState.FromString(value)
            if state.item_id not in newest or state.version >= newest[state.item_id].version:
                newest[state.item_id] = state
        return {item: state.counts.clicks for item, state in newest.items()}


def click(event_id: str, user_id: str, at_ms: int) -> Interaction:
    """Of the most common kind, on an item that everybody knows."""
    return Interaction(event_id=event_id, user_id=user_id, item_id="item-0", type=CLICK, occurred_at_ms=at_ms)
