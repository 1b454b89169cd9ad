"""The feature updater as a process on a real broker and a real Redis."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

import pytest

from millrace.events.build import now_ms
from millrace.settings import DAY_MS, FeatureSettings, KafkaSettings
from millrace.stream.codec import encode
from millrace.topics import INTERACTIONS, ITEM_STATE, ITEMS
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.item_pb2 import Item, ItemState
from tests.conftest import Child, StartProcess
from tests.feature_ledger import CLICK, FORGET, PURCHASE, RATING
from tests.feature_support import RedisServer, clicks, connected, load_item, load_user
from tests.stream_support import Raw, headers_of, read_all, send

_ids = count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def env(topics_applied: KafkaSettings, kafka_env: Mapping[str, str], server: RedisServer) -> Mapping[str, str]:
    return {**kafka_env, "REDIS_URL": server.url}


def event(user: str, item: str, **fields: Any) -> Raw:
    fields = dict[str, Any](event_id=f"e{next(_ids)}", type=CLICK, occurred_at_ms=now_ms()) | fields
    value, headers = encode(Interaction(user_id=user, item_id=item, **fields))
    return user, value, headers


def entry(item: str, key: str | None = None, **fields: Any) -> Raw:
    value, headers = encode(Item(item_id=item, **fields))
    return key or item, value, headers


def states(kafka: KafkaSettings) -> dict[str, list[ItemState | None]]:
    """Every record of item-state, by item."""
    found: dict[str, list[ItemState | None]] = {}
    for message in read_all(kafka, ITEM_STATE.name):
        key, value = message.key(), message.value()
        assert isinstance(key, bytes)
        state = ItemState.FromString(value) if isinstance(value, bytes) else None
        found.setdefault(key.decode(), []).append(state)
    return found


def wait_taken(worker: Child, server: RedisServer, user: str, count: int) -> None:
    """Wait until so many clicks of the user are counted."""
    store = connected(server.url, empty=False)
    worker.until(lambda: clicks(store, user) == count)
    store.close()


def test_events_become_features_and_item_state(
    topics_applied: KafkaSettings, env: Mapping[str, str], server: RedisServer, process: StartProcess
) -> None:
    worker = process("workers.feature_updater", env=env)
    send(topics_applied, ITEMS, [entry("shoe", title="Shoe", price=9.5), entry("sock {1}", title="Sock")])
    send(
        topics_applied,
        INTERACTIONS,
        [
            event("ann", "shoe"),
            event("ann", "sock {1}", type=PURCHASE, value=2.5),
            event("ann", "shoe", type=RATING, value=4.0),
            event("bob", "hat", event_id="once"),
            event("bob", "hat", event_id="once"),
            event("bob", "sock {1}"),
        ],
    )
    store = connected(server.url, empty=False)

    def item(name: str) -> ItemState:
        return load_item(store, name, FeatureSettings()) or ItemState()

    # Users, items and catalogue come from three topics' partitions, in any order.
    worker.until(lambda: item("shoe").counts.ratings and item("shoe").catalogue.title)
    worker.until(lambda: item("sock {1}").purchase_value and item("sock {1}").HasField("catalogue"))
    worker.until(lambda: clicks(store, "bob") == 2)
    worker.until(lambda: {"shoe", "sock {1}", "hat"} <= set(states(topics_applied)))
    send(topics_applied, ITEMS, [("sock {1}", None, [])])
    send(topics_applied, INTERACTIONS, [event("ann", "", type=FORGET), event("bob", "shoe")])
    worker.until(lambda: item("shoe").counts.clicks == 2 and not item("sock {1}").HasField("catalogue"))
    worker.until(lambda: load_user(store, "ann") is None)
    store.close()
    assert worker.terminate() == 0, worker.output()

    found = states(topics_applied)
    for versions in found.values():
        numbers = [state.version for state in versions if state is not None]
        assert numbers == sorted(numbers), "a later record is never an older state"
    shoe, sock = found["shoe"][-1], found["sock {1}"][-1]
    assert shoe is not None
    assert shoe.catalogue.title == "Shoe"
    assert shoe.counts.clicks == 2
    assert shoe.counts.ratings == 1
    assert shoe.rating_sum == 4.0
    assert list(shoe.neighbours.item_ids) == ["sock {1}"]
    assert sock is not None
    assert not sock.HasField("catalogue"), "out of the catalogue, still in the statistics"
    assert sock.purchase_value == 2.5
    assert sock.popularity_short.value == pytest.approx(2.0, abs=0.1)
    assert set(sock.neighbours.item_ids) == {"shoe"}


BAD_INTERACTIONS: Mapping[str, tuple[Raw, str]] = {
    "empty value": (("u", b"", []), "value"),
    "no value": (("u", None, []), "value"),
    "not protobuf": (("u", b"\xff\xff\xff", [("schema", b"millrace.v1.Interaction")]), "value"),
    "another message": (("u", encode(Item(item_id="i"))[0], [("schema", b"millrace.v1.Item")]), "header schema"),
    "oversized": (("u", b"\n" + b"x" * 300_000, [("schema", b"millrace.v1.Interaction")]), "value"),
    "unknown type": (event("u", "i", type=99), "type"),
    "type missing": (event("u", "i", type=0), "type"),
    "no user": (event("", "i"), "user_id"),
    "no item": (event("u", ""), "item_id"),
    "no event id": (event("u", "i", event_id=""), "event_id"),
    "long id": (event("u" * 257, "i"), "user_id"),
    "control character": (event("u", "i\x1f"), "item_id"),
    "from the future": (event("u", "i", occurred_at_ms=now_ms() + DAY_MS), "occurred_at_ms"),
    "negative time": (event("u", "i", occurred_at_ms=-1), "occurred_at_ms"),
    "seconds": (event("u", "i", occurred_at_ms=1_700_000_000), "occurred_at_ms"),
    "NaN": (event("u", "i", type=PURCHASE, value=math.nan), "value"),
}
BAD_ITEMS: Mapping[str, tuple[Raw, str]] = {
    "NaN price": (entry("i", price=math.nan), "price"),
    "negative price": (entry("i", price=-1.0), "price"),
    "no id": (entry("", key="i", title="T"), "item_id"),
    "another key": (entry("i", key="j"), "key"),
    "tombstone of a bad id": (("x" * 300, None, []), "key"),
}


def test_bad_records_become_dead_letters_and_the_stream_goes_on(
    topics_applied: KafkaSettings, env: Mapping[str, str], server: RedisServer, process: StartProcess
) -> None:
    worker = process("workers.feature_updater", env=env)
    places: dict[tuple[str, int, int], str] = {}
    for topic, bad in ((INTERACTIONS, BAD_INTERACTIONS), (ITEMS, BAD_ITEMS)):
        at = send(topics_applied, topic, [raw for raw, _ in bad.values()])
        places |= dict(zip(at, (field for _, field in bad.values()), strict=True))
    send(topics_applied, INTERACTIONS, [event("after", "fine")], partition=0)
    wait_taken(worker, server, "after", 1)

    def dead_letters() -> dict[tuple[str, int, int], dict[str, bytes]]:
        letters = {}
        for topic in (INTERACTIONS, ITEMS):
            for message in read_all(topics_applied, topic.dlq):
                headers = headers_of(message)
                place = (headers["dlq.topic"].decode(), int(headers["dlq.partition"]), int(headers["dlq.offset"]))
                letters[place] = headers
        return letters

    worker.until(lambda: len(dead_letters()) >= len(places), interval_s=0.3)
    letters = dead_letters()
    assert set(letters) == set(places)
    for place, field in places.items():
        assert letters[place]["dlq.field"].decode() == field, (place, letters[place])
    assert worker.terminate() == 0, worker.output()


def test_restarts_of_redis_are_survived(
    topics_applied: KafkaSettings, env: Mapping[str, str], server: RedisServer, process: StartProcess
) -> None:
    """While the worker is idle, and while events come."""
    worker = process("workers.feature_updater", env=env)
    send(topics_applied, INTERACTIONS, [event("idle", "a")])
    wait_taken(worker, server, "idle", 1)
    server.restart()
    send(topics_applied, INTERACTIONS, [event("idle", "b")])
    wait_taken(worker, server, "idle", 2)

    for round_number in range(1, 4):
        send(topics_applied, INTERACTIONS, [event(f"busy{n}", f"item{n % 7}") for n in range(2_000)])
        server.restart()
        wait_taken(worker, server, "busy1999", round_number)
    store = connected(server.url, empty=False)

    def clicked() -> int:
        """Clicks of all items, which are written after the users of a batch."""
        items = [load_item(store, f"item{n}", FeatureSettings()) for n in range(7)]
        return sum(item.counts.clicks for item in items if item)

    worker.until(lambda: clicked() >= 6_000)
    assert clicked() == 6_000
    assert {clicks(store, f"busy{n}") for n in range(2_000)} == {3}
    store.close()
    assert worker.terminate() == 0, worker.output()


def test_a_topic_made_anew_stops_the_worker_with_the_command(
    topics_applied: KafkaSettings, env: Mapping[str, str], server: RedisServer, process: StartProcess
) -> None:
    store = connected(server.url, empty=False)
    store.ask("HSET", "meta:topics", "items", "another-id")
    worker = process("workers.feature_updater", env=env)
    assert worker.wait() == 1
    assert "--accept-topics" in worker.output()
    assert process("workers.feature_updater", "--accept-topics", env=env).wait() == 0
    worker = process("workers.feature_updater", env=env)
    send(topics_applied, INTERACTIONS, [event("accepted", "a")])
    wait_taken(worker, server, "accepted", 1)
    assert worker.terminate() == 0, worker.output()
    store.close()


def test_ttls_below_the_retention_are_refused(env: Mapping[str, str], process: StartProcess) -> None:
    worker = process("workers.feature_updater", env={**env, "MILLRACE_FEATURES_ITEM_TTL_MS": str(2 * DAY_MS)})
    assert worker.wait() == 1
    assert "MILLRACE_FEATURES_ITEM_TTL_MS" in worker.output()


def test_the_worker_says_how_it_is_called(process: StartProcess) -> None:
    helped = process("workers.feature_updater", "--help")
    assert helped.wait() == 0
    assert "--accept-topics" in helped.output()
