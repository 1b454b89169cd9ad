"""The scripts on a real Redis, case by case: what is counted, what is remembered, what is bounded."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from millrace.features.catalogue import CatalogueWriter
from millrace.features.intake import CatalogueEntry
from millrace.features.user_state import POSITION
from millrace.features.writer import DISLIKED_KEPT, FeatureWriter
from millrace.settings import DAY_MS, HOUR_MS, MINUTE_MS, FeatureSettings
from millrace.v1.interaction_pb2 import Interaction
from tests.feature_ledger import CLICK, DISLIKE, FORGET, PURCHASE, VIEW, Ledger, Logged
from tests.feature_support import (
    T0,
    CrashingStore,
    assert_equals_ledger,
    close,
    connected,
    events_of,
    everything,
    load_item,
    load_user,
)

FEATURES = FeatureSettings()


@pytest.fixture(scope="module")
def connection(redis_url: str) -> Iterator[CrashingStore]:
    store = connected(redis_url)
    yield store
    store.close()


@pytest.fixture
def store(connection: CrashingStore) -> CrashingStore:
    connection.ask("FLUSHDB")
    return connection


_ids = itertools.count()


def event(user: str, item: str, at_ms: int = 0, type: Any = CLICK, **fields: Any) -> Interaction:
    fields.setdefault("event_id", f"e{next(_ids)}")
    return Interaction(user_id=user, item_id=item, type=type, occurred_at_ms=T0 + at_ms, **fields)


def logged(events: Sequence[Interaction], start: int = 0) -> list[Logged]:
    return [Logged(0, start + place, event) for place, event in enumerate(events)]


def write(store: CrashingStore, events: Sequence[Interaction], start: int = 0, **settings: Any) -> None:
    FeatureWriter(store, FeatureSettings(**settings)).take(events_of(logged(events, start)))


def neighbours(store: CrashingStore, item: str, settings: FeatureSettings = FEATURES) -> dict[str, float]:
    state = load_item(store, item, settings)
    assert state is not None
    return dict(zip(state.neighbours.item_ids, state.neighbours.weights, strict=True))


def test_a_session_pairs_each_item_with_the_five_before_it(store: CrashingStore) -> None:
    """Weights are 1/distance over distinct items; the item itself and views are no distance."""
    write(store, [event("u", item) for item in "abb"] + [event("u", "v", type=VIEW)])
    write(store, [event("u", item) for item in "cdefg"], start=10)
    assert neighbours(store, "a") == {"b": 2.0, "c": 1 / 2, "d": 1 / 3, "e": 1 / 4, "f": 1 / 5}
    assert neighbours(store, "b") == {"c": 1.0, "d": 1 / 2, "e": 1 / 3, "f": 1 / 4, "g": 1 / 5}
    assert neighbours(store, "g") == {}
    assert load_item(store, "v", FEATURES) is not None


def test_pairs_count_the_other_way_round_with_their_weight(store: CrashingStore) -> None:
    """Also when the writes of one batch come again."""
    events = [event("u", item) for item in "abc"]
    for _ in range(2):
        write(store, events, backward_weight=0.5)
        assert neighbours(store, "a") == {"b": 1.0, "c": 1 / 2}
        assert neighbours(store, "b") == {"c": 1.0, "a": 1 / 2}
        assert neighbours(store, "c") == {"b": 1 / 2, "a": 1 / 4}


def test_sessions_end_at_a_gap_or_with_their_id(store: CrashingStore) -> None:
    gap = FEATURES.session_gap_ms
    write(store, [event("u", "a"), event("u", "b", gap - 1), event("u", "c", 2 * gap - 1)])
    assert neighbours(store, "a") == close({"b": 1.0})
    assert neighbours(store, "b") == {}
    write(
        store,
        [event("w", item, at, session_id=s) for item, at, s in [("p", 0, "1"), ("q", 1, "2"), ("r", DAY_MS, "1")]],
    )
    assert neighbours(store, "p") == close({"r": 1.0})
    assert neighbours(store, "q") == {}


def test_the_same_event_id_counts_once_within_the_window(store: CrashingStore) -> None:
    """A client that posts a click twice; beyond the window (documented) it counts again."""
    write(store, [event("u", "a", event_id="same")], dedup_window=64)
    write(store, [event("u", "x") for _ in range(63)], start=1, dedup_window=64)
    write(store, [event("u", "a", event_id="same")], start=64, dedup_window=64)
    state = load_user(store, "u")
    assert state is not None
    assert state.counts == {CLICK: 64}
    assert state.known.offset == 64
    write(store, [event("u", "x")], start=65, dedup_window=64)
    write(store, [event("u", "a", event_id="same")], start=66, dedup_window=64)
    state = load_user(store, "u")
    assert state is not None
    assert state.counts == {CLICK: 66}


def test_a_replay_finds_the_session_as_it_was(store: CrashingStore) -> None:
    """The process dies between users and items. `old` is at the edge of what the walk back may see."""
    settings = FeatureSettings(dedup_window=16, recent_kept=16, user_batch_max=8)
    events = [event("u", item) for item in ["old"] + ["a", "b"] * 7 + ["c"] + ["a", "b"] * 3]
    writer = FeatureWriter(store, settings)
    log = logged(events)
    for start in range(0, len(log), 8):
        writer.take(events_of(log[start : start + 8]))
    expected = everything(store)
    store.ask("FLUSHDB")
    for start in range(0, len(log), 8):
        part = events_of(log[start : start + 8])
        with store.crashing(0, after=True):
            writer.take(part)
        writer.take(part)
    assert everything(store) == expected
    assert_equals_ledger(store, Ledger(settings, log), settings)


def test_forget_leaves_the_guard_and_the_time(store: CrashingStore) -> None:
    write(store, [event("u", "a"), event("u", "b", type=DISLIKE), event("u", "c", type=PURCHASE, value=5.0)])
    write(store, [event("u", "", 7, type=FORGET)], start=3)
    assert everything(store)[b"u:u"] == {b"state": (0.0, 0.0, 0.0, T0 + 7.0, 0, 0, POSITION.pack(3 << 16))}
    assert load_user(store, "u") is None
    assert store.ask("PTTL", "u:u") > 29 * DAY_MS
    write(store, [event("u", "d")], start=4)
    state = load_user(store, "u")
    assert state is not None
    assert [engagement.item_id for engagement in state.recent] == ["d"]
    assert neighbours(store, "c") == {}


def test_items_of_the_events_before_a_forget_are_written_first(store: CrashingStore) -> None:
    """The user's memory of what was accepted goes with FORGET: what it was for must be done by then."""
    log = logged([event("u", "a"), event("u", "b"), event("u", "", type=FORGET), event("u", "c")])
    writer = FeatureWriter(store, FEATURES)
    for round_trip in range(4):
        with store.crashing(round_trip, after=True):
            writer.take(events_of(log))
    writer.take(events_of(log))
    assert_equals_ledger(store, Ledger(FEATURES, log), FEATURES)


def test_decayed_sums_do_not_depend_on_order_over_years(store: CrashingStore) -> None:
    """Neighbours' landmark moves when weights would overflow: 1,500 half-lives of 6 h are a year."""
    settings = FeatureSettings(neighbours_kept=100)
    ages = [day * DAY_MS for day in (0, 1, 65, 200, 201, 366, 366, 10)]
    events = [
        event(f"u{place}", item, at_ms + step)
        for place, at_ms in enumerate(ages)
        for step, item in enumerate(("a", f"b{place % 3}"))
    ]
    results = []
    for order in (events, [*events[8:], *events[:8]], [*events[2:], *events[:2]]):
        store.ask("FLUSHDB")
        log = logged(order)
        FeatureWriter(store, settings).take(events_of(log))
        assert_equals_ledger(store, Ledger(settings, log), settings)
        results.append(neighbours(store, "a", settings))
    assert results[1] == close(results[0])
    assert results[2] == close(results[0])


def test_the_heaviest_neighbours_are_kept(store: CrashingStore) -> None:
    settings = FeatureSettings(neighbours_kept=4)
    followers = [*"pqrs", *"pqrs", *"abcdefgh"]
    events = [event(f"u{place}", item) for place, follower in enumerate(followers) for item in ("x", follower)]
    FeatureWriter(store, settings).take(events_of(logged(events)))
    found = neighbours(store, "x", settings)
    assert found == dict.fromkeys("pqrs", 2.0)
    assert list(found) == ["p", "q", "r", "s"]
    # In Redis there are at most half as many more.
    assert store.ask("HGET", "i:x", "neighbours").count(b"\x1f") <= 6


def test_sums_keep_seventeen_digits(store: CrashingStore) -> None:
    prices = [0.1, 1 / 3, 1e-7, 123456789.123456789]
    write(store, [event("u", "a", type=PURCHASE, value=price) for price in prices])
    state, user = load_item(store, "a", FEATURES), load_user(store, "u")
    assert state is not None
    assert user is not None
    assert state.purchase_value == user.purchase_value == sum(prices)


def test_recent_and_disliked_are_bounded(store: CrashingStore) -> None:
    count = DISLIKED_KEPT + 10
    write(store, [event("u", f"i{n}", n) for n in range(100)], recent_kept=64)
    write(store, [event("u", f"i{n}", n, type=DISLIKE) for n in range(count)], start=100)
    state = load_user(store, "u")
    assert state is not None
    assert [engagement.item_id for engagement in state.recent] == [f"i{n}" for n in range(99, 35, -1)]
    assert state.disliked == {f"i{n}" for n in range(10, count)}
    assert store.ask("HSTRLEN", "u:u", "seen") == 16 * FEATURES.dedup_window


def test_versions_grow_also_across_expiry(store: CrashingStore) -> None:
    versions = []
    for offset in range(5):
        if offset == 3:
            store.ask("DEL", "i:a")
        write(store, [event("u", "a")], start=offset)
        state = load_item(store, "a", FEATURES)
        assert state is not None
        versions.append(state.version)
    assert versions == sorted(set(versions))
    write(store, [event("u", "a")], start=4)
    state = load_item(store, "a", FEATURES)
    assert state is not None
    assert state.version == versions[-1], "a replay is no change"


def test_every_key_of_statistics_expires(store: CrashingStore) -> None:
    write(store, [event("u", "a"), event("u", "b")], user_ttl_ms=40 * DAY_MS, item_ttl_ms=50 * DAY_MS)
    for key, ttl_ms in (("u:u", 40 * DAY_MS), ("i:a", 50 * DAY_MS), ("i:b", 50 * DAY_MS)):
        assert ttl_ms - MINUTE_MS < store.ask("PTTL", key) <= ttl_ms


def test_catalogue_takes_the_newest_and_keeps_it(store: CrashingStore) -> None:
    catalogue = CatalogueWriter(store, FEATURES)

    def take(offset: int, value: bytes) -> None:
        assert catalogue.take([CatalogueEntry(b"a", (offset << 16).to_bytes(8, "little") + value)]) == {b"a"}

    take(1, b"first")
    take(3, b"third")
    take(1, b"first")
    assert store.ask("HGET", "c:a", "item") == b"third"
    assert store.ask("PTTL", "c:a") == -1
    take(4, b"")
    take(3, b"third")
    assert store.ask("HGET", "c:a", "item") is None
    assert store.ask("PTTL", "c:a") > 0, "only the guard is left, for as long as records may come again"
    take(5, b"fifth")
    assert store.ask("HGET", "c:a", "item") == b"fifth"
    assert store.ask("PTTL", "c:a") == -1


def test_session_context_ignores_the_gap_rule_within_an_id(store: CrashingStore) -> None:
    write(store, [event("u", "a", session_id="s"), event("u", "b", 2 * HOUR_MS, session_id="s")])
    assert neighbours(store, "a") == close({"b": 1.0})
