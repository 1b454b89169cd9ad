"""The connection to Redis: never made anew behind the caller's back, scripts sent again when they are forgotten."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from millrace.errors import InfrastructureError, MillraceError
from millrace.features.store import FeatureStore, load_script
from millrace.features.topic_guard import accept_topics, check_topics
from millrace.features.writer import FeatureWriter, item_script
from millrace.redis_link import Server
from millrace.settings import FeatureSettings, RedisSettings
from millrace.v1.interaction_pb2 import Interaction
from tests.feature_ledger import CLICK, Logged
from tests.feature_support import (
    T0,
    Outbox,
    RedisServer,
    clicks,
    connected,
    events_of,
    load_item,
    load_user,
    record,
)
from workers.feature_updater.worker import FeatureUpdater

FEATURES = FeatureSettings()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def store(redis_url: str) -> Iterator[FeatureStore]:
    store = connected(redis_url)
    yield store
    store.close()


def click(offset: int, user: str = "u") -> Logged:
    event = Interaction(event_id=f"e{offset}", user_id=user, item_id="a", type=CLICK, occurred_at_ms=T0)
    return Logged(0, offset, event)


WAYS: list[Callable[[FeatureStore], object]] = [
    lambda store: store.ask("SET", "k", "v"),
    lambda store: store.receive(store.send(item_script(FEATURES), [((b"k",), [b""])])),
    lambda store: store.verify(),
]


@pytest.mark.parametrize("way", WAYS)
def test_a_restart_while_idle_is_never_bridged(server: RedisServer, way: Callable[[FeatureStore], object]) -> None:
    """Every way to talk to Redis fails after the restart, and goes on failing until it is connected again."""
    store = connected(server.url)
    server.restart()
    for _ in range(3):
        with pytest.raises(InfrastructureError, match="redis"):
            way(store)
        assert not store.connected
    store.connect()
    assert store.ask("GET", "k") is None
    store.close()


def test_a_worker_that_is_behind_notices_a_restart_at_the_next_tick(server: RedisServer) -> None:
    """Also when it was stopped between a batch and the tick, which would otherwise leave asking to the next batch."""
    connected(server.url).close()
    worker, output = FeatureUpdater(RedisSettings(url=server.url), FEATURES), Outbox()
    worker.restore([], {})
    old = record(0, 0, Interaction(event_id="e", user_id="u", item_id="a", type=CLICK, occurred_at_ms=T0))
    worker.on_batch([old], output)
    server.restart()
    with pytest.raises(InfrastructureError, match="redis"):
        worker.on_tick(time.monotonic(), output)


def test_redis_py_itself_would_bridge_it(server: RedisServer) -> None:
    """The trap that the store avoids: a connection of redis-py connects again when it sends."""
    store = connected(server.url)
    assert isinstance(store._redis, Server)
    store._redis._connected().disconnect()
    with pytest.raises(InfrastructureError):
        store.ask("PING")
    assert not store.connected
    store.close()


def test_absent_redis_is_named(server: RedisServer) -> None:
    server.stop()
    store = FeatureStore(RedisSettings(url=server.url.replace("redis://", "redis://user:secret@")))
    with pytest.raises(InfrastructureError, match=r"127\.0\.0\.1") as caught:
        store.connect()
    assert "secret" not in str(caught.value)


def test_a_redis_that_hangs_is_given_up(redis_url: str) -> None:
    store = FeatureStore(RedisSettings(url=redis_url, timeout_ms=1_000))
    store.connect()
    other = connected(redis_url)
    # Longer than anybody waits; until it is told to go on.
    other.ask("CLIENT", "PAUSE", "600000", "WRITE")
    with pytest.raises(InfrastructureError, match="Timeout"):
        store.ask("SET", "k", "v")
    assert not store.connected
    other.ask("CLIENT", "UNPAUSE")
    other.close()


def test_an_error_reply_closes_the_connection(store: FeatureStore) -> None:
    """What was sent after the failed command may or may not be done: the writer has to go back."""
    store.ask("SET", "k", "v")
    with pytest.raises(InfrastructureError, match="WRONGTYPE"):
        store.ask_all([("HGET", "k", "f"), ("SET", "other", "v")])
    with pytest.raises(InfrastructureError, match="no connection"):
        store.ask("PING")


def test_an_error_while_commands_are_built_closes_the_connection(store: FeatureStore) -> None:
    def commands() -> Iterator[tuple[str, ...]]:
        yield ("PING",)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.ask_all(commands())
    assert not store.connected


def test_a_server_that_forgot_the_scripts_gets_them_with_the_next_connection(store: FeatureStore) -> None:
    """A restart or a failover ends the connection; a flush of the scripts counts as one."""
    writer = FeatureWriter(store, FEATURES)
    for offset in range(3):
        store.ask("SCRIPT", "FLUSH")
        with pytest.raises(InfrastructureError, match="NoScript"):
            writer.take(events_of([click(offset)]))
        store.connect()
        writer.take(events_of([click(offset), click(offset + 10, "w")]))
    assert clicks(store, "u") == 3


def test_a_bug_between_users_and_items_stops_the_writer(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the next batch would go on, and what is half written would be committed with it."""
    writer = FeatureWriter(store, FEATURES)
    writer.begin(events_of([click(0)]))
    with monkeypatch.context() as broken:
        broken.setattr("millrace.features.writer.OWN", None)
        with pytest.raises(AttributeError):
            writer.finish()
    with pytest.raises(InfrastructureError):
        writer.begin(events_of([click(1)]))
    store.connect()
    writer.drop()
    writer.take(events_of([click(0), click(1)]))
    state = load_item(store, "a", FEATURES)
    assert state is not None
    assert state.counts.clicks == 2


def test_replies_are_received_in_the_order_of_sending(store: FeatureStore) -> None:
    """Also when they are asked for in another order, or not at all."""
    count = store.load(load_script("bench_counter", {"TTL_MS": 1_000}, package="benchmarks"))
    first = store.send(count, [((b"k",), [b"\1" + b"\0" * 7])])
    second = store.send(count, [((b"k",), [b"\2" + b"\0" * 7]), ((b"l",), [b"\2" + b"\0" * 7])])
    assert store.ask("HGET", "k", "n") == b"2"
    assert store.receive(second) == [None, None]
    assert store.receive(first) == [None]


def test_what_failed_unasked_is_raised_with_the_next_reply(store: FeatureStore) -> None:
    count = store.load(load_script("bench_counter", {"TTL_MS": 1_000}, package="benchmarks"))
    store.ask("SET", "k", "no hash")
    store.send(count, [((b"k",), [b"\1" + b"\0" * 7])])
    with pytest.raises(InfrastructureError, match="WRONGTYPE"):
        store.verify()
    assert not store.connected


def test_scripts_carry_the_settings() -> None:
    assert item_script(FEATURES).sha != item_script(FeatureSettings(neighbours_kept=7)).sha
    assert item_script(FEATURES) == item_script(FeatureSettings())


def test_bounds_that_cannot_hold_are_refused(store: FeatureStore) -> None:
    with pytest.raises(MillraceError, match="USER_BATCH_MAX=40"):
        FeatureWriter(store, FeatureSettings(user_batch_max=40))


def test_a_topic_made_anew_is_noticed_and_accepted(store: FeatureStore) -> None:
    check_topics(store, {"interactions": "one", "items": "two"})
    check_topics(store, {"interactions": "one", "items": "two"})
    writer = FeatureWriter(store, FEATURES)
    writer.take(events_of([click(500), click(501, "w")]))
    store.ask("HSET", "c:a", "guards", "12345678", "item", "x")

    with pytest.raises(MillraceError, match="--accept-topics"):
        check_topics(store, {"interactions": "other"})
    assert accept_topics(store, {"interactions": "other", "items": "two"}) == ["interactions"]
    check_topics(store, {"interactions": "other", "items": "two"})

    state = load_user(store, "u")
    assert state is not None
    assert state.known.offset == -1
    assert state.counts == {CLICK: 1}
    assert store.ask("HEXISTS", "i:a", "guards") == 0
    assert store.ask("HEXISTS", "c:a", "guards") == 1
    writer.take(events_of([click(0), click(500)]))
    state = load_user(store, "u")
    assert state is not None
    assert state.counts == {CLICK: 2}, "the first is new, the second came by the old topic as well"
