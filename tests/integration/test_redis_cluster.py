"""A Redis Cluster as the one store of features: its masters stand and fall together, readers find who has a key."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis as Client
from redis.crc import key_slot

from benchmarks import seed
from deploy.embedded.redis_cluster import ClusterNode, address, cluster_nodes, running_cluster
from millrace.cli import _server_checks
from millrace.cli.main import cli
from millrace.errors import InfrastructureError, MillraceError
from millrace.features.item_state import catalogue_key
from millrace.features.store import FeatureStore, load_script
from millrace.features.topic_guard import accept_topics, check_topics
from millrace.features.user_state import UserState, user_key
from millrace.features.writer import FeatureWriter
from millrace.redis_cluster import Cluster
from millrace.settings import FeatureSettings, RedisSettings, StackSettings
from millrace.settings import settings as values
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.item_pb2 import Item
from services.gateway.features import FeatureReader
from services.recommender.users import UserReader
from tests.conftest import StartProcess
from tests.feature_ledger import CLICK, FORGET, Ledger, Logged
from tests.feature_logs import PROPERTY, logs
from tests.feature_support import (
    T0,
    CrashingStore,
    assert_equals_ledger,
    clicks,
    connected,
    events_of,
    load_user,
)
from tests.integration.test_features_properties import FEATURES as SMALL_BOUNDS
from tests.processes import PATIENCE_S, a_redis, in_time

FEATURES = FeatureSettings()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sequence[ClusterNode]]:
    nodes = cluster_nodes(tmp_path_factory.mktemp("cluster"), StackSettings().redis)
    with running_cluster(nodes):
        yield nodes


@pytest.fixture(scope="module")
def url(nodes: Sequence[ClusterNode]) -> str:
    return address(nodes)


@pytest.fixture
def store(url: str) -> Iterator[CrashingStore]:
    in_time(lambda: _answers(url))
    store = connected(url)
    yield store
    store.close()


def _answers(url: str) -> bool:
    """Whether all nodes know by now what the test before has done to them."""
    store = FeatureStore(RedisSettings(url=url))
    try:
        store.connect()
        store.ask_all(("GET", f"any {number}") for number in range(100))
    except InfrastructureError:
        return False
    store.close()
    return True


def event(offset: int, user: str, item: str = "a", kind: int = CLICK) -> Logged:
    made = Interaction(event_id=f"e{offset}", user_id=user, item_id=item, occurred_at_ms=T0)
    made.type = kind  # type: ignore[assignment]  # an int
    return Logged(0, offset, made)


def node_of(nodes: Sequence[ClusterNode], key: str) -> tuple[int, str]:
    """The port of the master of a key, and its id."""
    with Client(port=nodes[0].port, decode_responses=True) as client:
        slots = client.execute_command("CLUSTER SLOTS")
    slot = key_slot(key.encode())
    return next((master[1], master[2]) for first, last, master, *_ in slots if first <= slot <= last)


def elsewhere(nodes: Sequence[ClusterNode], key: str, form: str) -> str:
    """A name whose key has another master than this key."""
    return next(
        name
        for name in (f"name-{number}" for number in range(1_000))
        if node_of(nodes, form.format(name))[0] != node_of(nodes, key)[0]
    )


@settings(PROPERTY, max_examples=15)
@given(data=st.data())
def test_state_equals_the_ledger_however_it_is_cut_and_whenever_the_writer_dies(
    store: CrashingStore, data: st.DataObject
) -> None:
    log = data.draw(logs())
    store.ask_every("FLUSHDB")
    writer = FeatureWriter(store, SMALL_BOUNDS)
    chance = data.draw(st.randoms())
    committed = 0
    for _ in range(data.draw(st.integers(1, 4))):
        end = chance.randint(committed, len(log))
        with store.crashing(chance.randint(0, 5), after=chance.random() < 0.5):
            writer.take(events_of(log[committed:end]))
            committed = chance.randint(committed, end)
    writer.take(events_of(log[committed:]))
    assert_equals_ledger(store, Ledger(SMALL_BOUNDS, log), SMALL_BOUNDS)


def test_replies_are_in_the_order_of_what_was_asked(store: FeatureStore) -> None:
    answer = store.load(load_script("bench_counter", {"TTL_MS": 60_000}, package="benchmarks"))
    keys = [f"k{number}".encode() for number in range(40)]
    argument = b"\1" + b"\0" * 7
    first = store.send(answer, [(tuple(keys[:16]), [argument] * 16), (tuple(keys[16:]), [argument] * 24)])
    second = store.send(answer, [((keys[0],), [b"\2" + argument[1:]])])
    assert store.ask_all(("HGET", key, "n") for key in keys) == [b"2"] + [b"1"] * 39
    assert store.receive(second) == [None]
    assert store.receive(first) == [None, None]


WAYS: list[Callable[[FeatureStore, str], object]] = [
    lambda store, key: store.ask("HGET", key, "state"),
    lambda store, key: FeatureWriter(store, FEATURES).take(events_of([event(1, key.removeprefix("u:"))])),
]


@pytest.mark.parametrize("way", WAYS)
def test_a_key_that_has_moved_ends_every_connection(
    store: FeatureStore, nodes: Sequence[ClusterNode], way: Callable[[FeatureStore, str], object]
) -> None:
    key = "u:mover"
    port, _ = node_of(nodes, key)
    other_port, other = node_of(nodes, user_key(elsewhere(nodes, key, "u:{}")))
    clients: list[Any] = [Client(port=node.port) for node in nodes]
    for client in clients:
        if client.info("replication")["role"] == "master":
            client.execute_command("CLUSTER SETSLOT", key_slot(key.encode()), "NODE", other)
    # So that the others believe it.
    next(client for client, node in zip(clients, nodes, strict=True) if node.port == other_port).execute_command(
        "CLUSTER BUMPEPOCH"
    )
    for _ in range(2):
        with pytest.raises(InfrastructureError, match=r"Moved|no connection"):
            way(store, key)
        assert not store.connected
    in_time(lambda: _answers(address(nodes)))
    store.connect()
    way(store, key)
    assert node_of(nodes, key)[0] != port
    for client in clients:
        client.close()


def test_a_lot_waits_until_every_master_has_done_the_one_before(
    nodes: Sequence[ClusterNode], store: FeatureStore
) -> None:
    """Else a user is erased who has to tell again what the item, whose master has failed, must count."""
    user = elsewhere(nodes, "i:a", "u:{}")
    impatient = FeatureStore(RedisSettings(url=address(nodes), timeout_ms=1_000))
    impatient.connect()
    writer = FeatureWriter(impatient, FEATURES)
    writer.begin(events_of([event(1, user)]))
    pid = Client(port=node_of(nodes, "i:a")[0]).info("server")["process_id"]
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(InfrastructureError, match="redis"):
            writer.begin(events_of([event(2, user, "", FORGET)]))
    finally:
        os.kill(pid, signal.SIGCONT)
    assert not impatient.connected
    state = load_user(store, user)
    assert state is not None
    assert state.counts == {CLICK: 1}, "not erased"


def test_what_is_on_no_replica_is_not_done(nodes: Sequence[ClusterNode]) -> None:
    store = FeatureStore(RedisSettings(url=address(nodes), timeout_ms=1_000))
    store.connect()
    writer = FeatureWriter(store, FEATURES)
    port, _ = node_of(nodes, "i:a")
    clients: list[Any] = [Client(port=node.port) for node in nodes]
    replica = next(client for client in clients if client.info("replication").get("master_port") == port)
    pid = replica.info("server")["process_id"]
    os.kill(pid, signal.SIGSTOP)
    try:
        writer.begin(events_of([event(5, elsewhere(nodes, "i:a", "u:{}"))]))
        writer.finish()
        with pytest.raises(InfrastructureError, match=r"0 of 1 replicas have what was written"):
            store.verify()
    finally:
        os.kill(pid, signal.SIGCONT)
    for client in clients:
        client.close()


def test_a_replica_that_takes_over_is_noticed_and_found_by_all(
    nodes: Sequence[ClusterNode], store: FeatureStore, url: str
) -> None:
    """The writer fails and goes back; readers fail for a moment and find who has the key by themselves."""
    FeatureWriter(store, FEATURES).take(events_of([event(1, "reader")]))
    reader_settings = RedisSettings(url=url)

    async def read() -> None:
        users, gateway = UserReader(reader_settings, 1_000), FeatureReader(reader_settings)

        async def known() -> UserState | None:
            try:
                return await users.read("reader", 1.0)
            except InfrastructureError:
                return None

        assert await known()
        assert await gateway.read("reader")
        await asyncio.to_thread(_take_over, nodes, user_key("reader"))
        with pytest.raises(InfrastructureError, match=r"another server answers|WAIT cannot be used with replica"):
            store.verify()
        for _ in range(int(10 * PATIENCE_S)):
            if await known():
                break
            await asyncio.sleep(0.1)
        assert await known()
        assert await gateway.read("reader")
        assert await gateway.items(["a", "b"]) == {}
        await users.close()
        await gateway.close()

    asyncio.run(read())


def _take_over(nodes: Sequence[ClusterNode], key: str) -> None:
    """Have the replica take over from the master of a key, which lives and becomes its replica."""
    port, _ = node_of(nodes, key)
    clients: list[Any] = [Client(port=node.port) for node in nodes]
    replica = next(client for client in clients if client.info("replication").get("master_port") == port)
    replica.execute_command("CLUSTER FAILOVER TAKEOVER")
    in_time(lambda: Client(port=port).info("replication")["role"] == "slave")
    for client in clients:
        client.close()


def test_topics_made_anew_are_accepted_for_the_keys_of_all_masters(store: FeatureStore) -> None:
    users = [f"user {number}" for number in range(30)]
    FeatureWriter(store, FEATURES).take(events_of([event(number, user) for number, user in enumerate(users)]))
    check_topics(store, {"interactions": "one"})
    with pytest.raises(MillraceError, match="--accept-topics"):
        check_topics(store, {"interactions": "other"})
    assert accept_topics(store, {"interactions": "other"}) == ["interactions"]
    states = [load_user(store, user) for user in users]
    assert [state.known.offset if state else None for state in states] == [-1] * 30


def test_what_people_ask_with_knows_clusters(
    store: FeatureStore, nodes: Sequence[ClusterNode], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    FeatureWriter(store, FEATURES).take(events_of([event(1, "somebody")]))
    store.ask("HSET", catalogue_key("a"), "item", Item(item_id="a", title="T").SerializeToString(), "version", 1)
    seed.write_users(url, 5, items=10)
    assert clicks(store, "user-4") == 20
    monkeypatch.setenv("REDIS_URL", url)
    values.cache_clear()
    shown = CliRunner().invoke(cli, ["users", "show", "somebody", "--json"])
    assert json.loads(shown.output)["counts"] == {"click": 1}
    shown = CliRunner().invoke(cli, ["items", "show", "a", "--json"])
    assert json.loads(shown.output)["catalogue"]["title"] == "T"
    values.cache_clear()
    check = _server_checks._redis(RedisSettings(url=url))
    assert check.state == "ok", check
    assert "3 masters" in check.finding


def test_addresses_of_the_other_kind_are_refused_by_name(
    nodes: Sequence[ClusterNode], tmp_path: Path, redis_url: str
) -> None:
    one = FeatureStore(RedisSettings(url=nodes[0].address))
    with pytest.raises(MillraceError, match=rf"REDIS_URL=redis\+cluster://127\.0\.0\.1:{nodes[0].port}") as caught:
        one.connect()
    assert not isinstance(caught.value, InfrastructureError)
    cluster = FeatureStore(RedisSettings(url=redis_url.replace("redis://", "redis+cluster://")))
    with pytest.raises(MillraceError, match="is no node of a cluster") as caught:
        cluster.connect()
    assert not isinstance(caught.value, InfrastructureError)
    absent = FeatureStore(RedisSettings(url=f"redis+cluster://:secret@127.0.0.1:{a_redis(tmp_path).port}"))
    with pytest.raises(InfrastructureError, match=r"127\.0\.0\.1") as caught:
        absent.connect()
    assert "secret" not in str(caught.value)
    assert isinstance(absent._redis, Cluster)
    with pytest.raises(InfrastructureError, match="no connection to the cluster of"):
        absent.ask("GET", "k")


def test_one_to_try_runs_until_it_is_ended(process: StartProcess) -> None:
    cluster = process("deploy.embedded.redis_cluster")
    cluster.until(lambda: "REDIS_URL=" in cluster.output())
    url = cluster.output().partition("REDIS_URL=")[2].strip()
    assert _answers(url)
    assert cluster.terminate() == 0
    assert not _answers(url)
