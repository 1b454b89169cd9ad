"""What the feature tests share: records, a store that crashes when told, and everything that Redis holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from math import exp2
from pathlib import Path
from typing import Any

import pytest

from deploy.embedded.member import running
from millrace.errors import InfrastructureError
from millrace.features import user_state
from millrace.features.intake import Event, read_interaction
from millrace.features.item_state import CATALOGUE_FIELDS, ITEM_FIELDS, decode_item
from millrace.features.store import Call, FeatureStore, Pending, Script
from millrace.features.user_state import USER_FIELDS, UserState, decode_user
from millrace.settings import FeatureSettings, RedisSettings
from millrace.stream.worker import Record
from millrace.topics import INTERACTIONS, Topic
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.item_pb2 import ItemState
from tests.feature_ledger import CLICK, Ledger, Logged
from tests.processes import a_redis

T0 = 1_700_000_000_000
"""An event time."""


class CrashingStore(FeatureStore):
    """A store whose process dies before or after it sent the n-th lot of script calls from now."""

    def __init__(self, settings: RedisSettings) -> None:
        super().__init__(settings)
        self._crash: tuple[int, bool] | None = None

    @contextmanager
    def crashing(self, lot: int, after: bool) -> Iterator[None]:
        """Die at that lot of the block (from 0): after all of it was sent, or before."""
        self._crash = lot, after
        try:
            with suppress(InfrastructureError):
                yield
        finally:
            self._crash = None

    def send(self, script: Script, calls: Iterable[Call]) -> Pending:
        if self._crash is None:
            return super().send(script, calls)
        left, after = self._crash
        if left > 0:
            self._crash = left - 1, after
            return super().send(script, calls)
        self._crash = None
        if after:
            super().send(script, calls)
        raise InfrastructureError("redis", "the test's crash")


class Outbox:
    """An Output that keeps what it is given."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, ItemState | None]] = []
        self.rejected: list[tuple[Record, Exception]] = []

    def produce(self, topic: Topic, key: str, message: Any, partition: int | None = None) -> None:
        self.sent.append((key, message))

    def reject(self, record: Record, error: Exception) -> None:
        self.rejected.append((record, error))

    def newest(self, item: str) -> ItemState | None:
        """The last state that was sent of an item (None: a tombstone)."""
        return next(state for key, state in reversed(self.sent) if key == item)


def record(partition: int, offset: int, event: Interaction, append_time_ms: int = 0) -> Record:
    value = event.SerializeToString()
    appended = append_time_ms or event.occurred_at_ms
    return Record(INTERACTIONS.name, partition, offset, event.user_id.encode(), event, appended, [], value)


def events_of(log: Iterable[Logged]) -> list[Event]:
    return [read_interaction(record(*logged)) for logged in log]


def connected(url: str, empty: bool = True) -> CrashingStore:
    """A store, on an emptied Redis unless told otherwise."""
    store = CrashingStore(RedisSettings(url=url))
    store.connect()
    if empty:
        store.ask_every("FLUSHDB")
    return store


def load_user(store: FeatureStore, user: str) -> UserState | None:
    return decode_user(store.ask("HMGET", f"u:{user}", *USER_FIELDS))


def load_item(store: FeatureStore, item: str, settings: FeatureSettings) -> ItemState | None:
    statistics = store.ask("HMGET", f"i:{item}", *ITEM_FIELDS)
    return decode_item(item, statistics, store.ask("HMGET", f"c:{item}", *CATALOGUE_FIELDS), settings)


def everything(store: FeatureStore) -> dict[bytes, dict[bytes, Any]]:
    """Every hash in Redis, without the versions and the times of writing."""
    found = {}
    for key in chain.from_iterable(store.ask_every("KEYS", "[uic]:*")):
        values = store.ask("HGETALL", key)
        fields = dict(zip(values[::2], values[1::2], strict=True))
        if key.startswith(b"i:"):
            fields[b"state"] = fields[b"state"][8:]
        elif key.startswith(b"u:"):
            state = fields[b"state"]
            *numbers, _, engagements, types = user_state.STATE.unpack_from(state)
            fields[b"state"] = (*numbers, engagements, types, state[user_state.STATE.size :])
        fields.pop(b"version", None)
        found[key] = fields
    return found


def assert_equals_ledger(store: FeatureStore, ledger: Ledger, settings: FeatureSettings) -> None:
    """Every user and item in Redis is what the ledger says: counts to the unit, sums to 1e-9."""
    keys = set(chain.from_iterable(store.ask_every("KEYS", "[ui]:*")))
    assert keys == {f"u:{user}".encode() for user in ledger.users} | {f"i:{item}".encode() for item in ledger.items}
    for name, user in ledger.users.items():
        _assert_user(load_user(store, name), user.accepted, user.engagements, user.known, settings)
    for name, item in ledger.items.items():
        state = load_item(store, name, settings)
        assert state is not None
        counts = {kind: count for kind, count in zip(range(1, 9), _counts(state), strict=True) if count}
        assert counts == dict(item.counts())
        for popularity, half_life_ms in (
            (state.popularity_short, settings.half_life_short_ms),
            (state.popularity_long, settings.half_life_long_ms),
        ):
            assert popularity.value == close(item.popularity(half_life_ms, popularity.as_of_ms))
        assert state.rating_sum == close(item.value(7))
        assert state.purchase_value == close(item.value(4))
        assert state.first_seen_ms == min(event.occurred_at_ms for event in item.events)
        assert state.last_seen_ms == max(event.occurred_at_ms for event in item.events)
        found = dict(zip(state.neighbours.item_ids, state.neighbours.weights, strict=True))
        assert found == close(item.neighbours(settings.neighbour_half_life_ms, state.neighbours.as_of_ms))
        assert list(state.neighbours.weights) == sorted(state.neighbours.weights, reverse=True)


def _assert_user(
    state: UserState | None,
    accepted: Sequence[Interaction],
    engagements: Sequence[Interaction],
    known: tuple[int, int],
    settings: FeatureSettings,
) -> None:
    if not accepted:
        assert state is None
        return
    assert state is not None
    assert state.known == known
    assert sum(state.counts.values()) == len(accepted)
    for kind, count in state.counts.items():
        times = [event.occurred_at_ms for event in accepted if event.type == kind]
        assert count == len(times)
        assert state.decayed[kind].as_of_ms == max(times)
        assert state.decayed[kind].value == close(
            sum(exp2((time - max(times)) / settings.user_half_life_ms) for time in times)
        )
    assert state.first_seen_ms == min(event.occurred_at_ms for event in accepted)
    assert state.last_seen_ms == max(event.occurred_at_ms for event in accepted)
    assert state.purchase_value == close(sum(event.value for event in accepted if event.type == 4))
    assert state.disliked == {event.item_id for event in accepted if event.type == 6}
    assert [(entry.item_id, entry.type, entry.at_ms) for entry in state.recent] == [
        (event.item_id, event.type, event.occurred_at_ms) for event in reversed(engagements[-settings.recent_kept :])
    ]


def _counts(state: ItemState) -> list[int]:
    counts = state.counts
    return [
        counts.views,
        counts.clicks,
        counts.add_to_carts,
        counts.purchases,
        counts.likes,
        counts.dislikes,
        counts.ratings,
        counts.customs,
    ]


def clicks(store: FeatureStore, user: str) -> int:
    """Accepted clicks of a user."""
    state = load_user(store, user)
    return state.counts.get(CLICK, 0) if state else 0


def close(expected: Any) -> Any:
    """Equal to rounding."""
    return pytest.approx(expected, rel=1e-9, abs=1e-12)


class RedisServer:
    """A Redis that can be restarted at its address; what it wrote stays."""

    def __init__(self, folder: Path) -> None:
        self._member = a_redis(folder)
        self._running = ExitStack()
        self.start()

    @property
    def url(self) -> str:
        return self._member.address

    def start(self) -> None:
        self._running.enter_context(running(self._member))

    def stop(self) -> None:
        self._running.close()

    def restart(self) -> None:
        self.stop()
        self.start()
