"""The ledger test: known events go in while the worker is killed with -9; at the end everything is counted once."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from millrace.features.store import FeatureStore
from millrace.settings import HOUR_MS, FeatureSettings, KafkaSettings
from millrace.stream.codec import encode
from millrace.topics import INTERACTIONS, ITEM_STATE
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.item_pb2 import ItemState
from tests.chaos.impatient import impatient_kafka
from tests.conftest import StartProcess
from tests.feature_ledger import CLICK, DISLIKE, FORGET, PURCHASE, VIEW, Ledger, Logged
from tests.feature_support import assert_equals_ledger, connected
from tests.stream_support import read_all, send

SEED = 20_260_101
KILLS = 10
EVENTS_PER_LIFE = 2_000
# No neighbour may be left out, else the naive model would have to know in which order they came.
FEATURES = FeatureSettings(neighbours_kept=10_000)
# A worker is killed at some moment of this time after its first write: it takes the events of its life in some 0.3 s,
# publishes 0.25-1 s later and commits 2 s later, and each of these is to be hit.
LIFE_S = 1.5
T0 = 1_700_000_000_000


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory, kafka_jars: tuple[Path, ...]) -> Iterator[KafkaSettings]:
    with impatient_kafka(tmp_path_factory.mktemp("kafka"), kafka_jars) as kafka:
        yield kafka


def shoppers(numbers: range, chance: random.Random) -> list[Interaction]:
    """Events of some hundred users: sessions, every type, clicks posted twice, a few users who ask to be forgotten."""
    events: list[Interaction] = []
    for number in numbers:
        kind: Any = chance.choices((CLICK, VIEW, PURCHASE, DISLIKE, FORGET), (700, 200, 50, 40, 2))[0]
        event = Interaction(
            event_id=f"e{number}",
            user_id=f"user {chance.randrange(300)}",
            item_id="" if kind == FORGET else f"item-{int(chance.paretovariate(0.8)) % 150}",
            type=kind,
            occurred_at_ms=T0 + number * 1_000 + chance.randrange(HOUR_MS),
        )
        if kind == PURCHASE:
            event.value = chance.randrange(1, 10_000) / 100
        events.append(event)
        if chance.random() < 0.03:
            events.append(event)
    return events


def scripts_run(store: FeatureStore) -> int:
    """How many script calls this Redis has served."""
    for line in store.ask("INFO", "commandstats").decode().splitlines():
        if line.startswith("cmdstat_evalsha:calls="):
            return int(line.partition("=")[2].partition(",")[0])
    return 0


def has_run_scripts(store: FeatureStore, before: int) -> bool:
    return scripts_run(store) > before


def produce(kafka: KafkaSettings, events: Sequence[Interaction], log: list[Logged]) -> None:
    places = send(kafka, INTERACTIONS, [(event.user_id, *encode(event)) for event in events])
    log.extend(Logged(partition, offset, event) for (_, partition, offset), event in zip(places, events, strict=True))


def test_killed_ten_times_every_counter_equals_the_ledger(
    kafka: KafkaSettings, redis_url: str, process: StartProcess
) -> None:
    chance = random.Random(SEED)
    env = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "KAFKA_PARTITIONS": "3",
        "REDIS_URL": redis_url,
        "MILLRACE_FEATURES_NEIGHBOURS_KEPT": str(FEATURES.neighbours_kept),
    }
    store = connected(redis_url)
    log: list[Logged] = []
    for life in range(KILLS):
        lot = shoppers(range(life * EVENTS_PER_LIFE, (life + 1) * EVENTS_PER_LIFE), chance)
        # The events come while the worker starts and works.
        producing = threading.Thread(target=produce, args=(kafka, lot, log))
        wrote = partial(has_run_scripts, store, scripts_run(store))
        worker = process("workers.feature_updater", env=env)
        producing.start()
        worker.until(wrote, interval_s=0.005)
        time.sleep(chance.uniform(0, LIFE_S))
        worker.kill()
        producing.join()

    last = Interaction(event_id="last", user_id="last", item_id="item-0", type=CLICK, occurred_at_ms=T0)
    for partition in range(kafka.partitions):
        last.user_id = f"last-{partition}"
        [(_, _, offset)] = send(kafka, INTERACTIONS, [(last.user_id, *encode(last))], partition)
        event = Interaction()
        event.CopyFrom(last)
        log.append(Logged(partition, offset, event))
    worker = process("workers.feature_updater", env=env)
    worker.until(lambda: all(store.ask("EXISTS", f"u:last-{number}") for number in range(kafka.partitions)))
    assert worker.terminate() == 0, worker.output()

    ledger = Ledger(FEATURES, log)
    assert ledger.duplicates > 300
    assert any(user.erased for user in ledger.users.values())
    assert_equals_ledger(store, ledger, FEATURES)
    assert published_clicks(kafka) == {name: item.counts()[CLICK] for name, item in ledger.items.items()}
    store.close()


def published_clicks(kafka: KafkaSettings) -> Mapping[str, int]:
    """Clicks of each item by the newest record of item-state, as a mirror sees it."""
    newest: dict[str, ItemState] = {}
    for message in read_all(kafka, ITEM_STATE.name):
        value = message.value()
        assert isinstance(value, bytes)
        state = ItemState.FromString(value)
        if state.item_id not in newest or state.version >= newest[state.item_id].version:
            newest[state.item_id] = state
    return {item: state.counts.clicks for item, state in newest.items()}
