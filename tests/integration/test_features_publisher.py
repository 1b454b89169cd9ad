"""What goes to item-state, and when: coalesced, bounded, with the end of expired items."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY

from millrace.errors import InfrastructureError
from millrace.features.publisher import EXPIRY_KEY, SLICE, ItemStatePublisher
from millrace.features.store import FeatureStore
from millrace.features.writer import FeatureWriter
from millrace.settings import FeatureSettings
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.item_pb2 import Item
from tests.feature_ledger import CLICK, Logged
from tests.feature_support import T0, Outbox, connected, events_of

FEATURES = FeatureSettings(publish_interval_ms=250, publish_interval_behind_ms=1_000, pending_items_max=150)
NOW_S = 1_700_000_000.0


@pytest.fixture
def store(redis_url: str) -> Iterator[FeatureStore]:
    store = connected(redis_url)
    yield store
    store.close()


@pytest.fixture
def publisher(store: FeatureStore) -> ItemStatePublisher:
    return ItemStatePublisher(store, FEATURES, wall=lambda: NOW_S)


def click(store: FeatureStore, item: str, offset: int) -> None:
    event = Interaction(event_id=f"e{offset}", user_id=f"u{offset}", item_id=item, type=CLICK, occurred_at_ms=T0)
    FeatureWriter(store, FEATURES).take(events_of([Logged(0, offset, event)]))


def test_changes_of_an_interval_are_published_once(store: FeatureStore, publisher: ItemStatePublisher) -> None:
    out = Outbox()
    click(store, "a", 0)
    publisher.mark({b"a"}, now=10.0)
    click(store, "a", 1)
    publisher.mark({b"a", b"b"}, now=10.1)
    assert publisher.pending_since == 10.0
    publisher.publish_due(10.2, out, behind=False)
    assert out.sent == []
    publisher.publish_due(10.26, out, behind=False)
    assert [key for key, _ in out.sent] == ["a"]
    state = out.newest("a")
    assert state is not None
    assert state.counts.clicks == 2
    assert publisher.pending_since == 10.1
    publisher.publish_due(10.36, out, behind=False)
    assert out.newest("b") is None, "nothing is known of it: a tombstone"
    assert publisher.pending_since is None


def test_rounds_while_behind(store: FeatureStore, publisher: ItemStatePublisher) -> None:
    """Everything at once, at longer intervals."""
    out = Outbox()
    publisher.mark((b"i%d" % n for n in range(SLICE + 20)), now=10.0)
    publisher.publish_due(10.0, out, behind=True)
    assert len(out.sent) == SLICE + 20
    publisher.mark({b"j"}, now=10.1)
    publisher.publish_due(10.9, out, behind=True)
    assert len(out.sent) == SLICE + 20
    publisher.publish_due(11.0, out, behind=True)
    assert len(out.sent) == SLICE + 21
    publisher.mark((b"k%d" % n for n in range(FEATURES.pending_items_max + 1)), now=11.1)
    publisher.publish_due(11.1, out, behind=True)
    assert publisher.pending_since is None, "the bound holds while behind as well"


def test_one_slice_at_a_time_when_clicks_may_wait(store: FeatureStore, publisher: ItemStatePublisher) -> None:
    out = Outbox()
    publisher.mark((b"i%d" % n for n in range(SLICE + 20)), now=0.0)
    publisher.publish_due(10.0, out, behind=False)
    assert len(out.sent) == SLICE
    publisher.publish_due(10.0, out, behind=False)
    assert len(out.sent) == SLICE + 20


def test_pending_items_are_bounded(store: FeatureStore, publisher: ItemStatePublisher) -> None:
    """Beyond the bound the oldest are published although their interval is not over."""
    out = Outbox()
    publisher.mark((b"i%d" % n for n in range(400)), now=10.0)
    publisher.publish_due(10.0, out, behind=False)
    assert [key for key, _ in out.sent] == [f"i{n}" for n in range(250)]
    assert REGISTRY.get_sample_value("millrace_features_pending_items") == FEATURES.pending_items_max
    assert REGISTRY.get_sample_value("millrace_features_pending_max_items") == FEATURES.pending_items_max


def test_what_could_not_be_published_stays_pending(store: FeatureStore, publisher: ItemStatePublisher) -> None:
    out = Outbox()
    click(store, "a", 0)
    publisher.mark({b"a"}, now=10.0)
    store.close()
    with pytest.raises(InfrastructureError):
        publisher.publish_all(out)
    assert publisher.pending_since == 10.0
    store.connect()
    publisher.publish_all(out)
    assert [key for key, _ in out.sent] == ["a"]


def test_expired_items_get_a_tombstone_or_their_catalogue_entry(
    store: FeatureStore, publisher: ItemStatePublisher
) -> None:
    out = Outbox()
    for offset, item in enumerate(("gone", "listed", "alive")):
        click(store, item, offset)
    store.ask("HSET", "c:listed", "item", Item(item_id="listed", title="T").SerializeToString(), "version", 1)
    publisher.mark({b"gone", b"listed", b"alive"}, now=0.0)
    publisher.publish_all(out)
    assert store.ask("ZCARD", EXPIRY_KEY) == 3
    publisher.sweep(1.0, out)
    assert len(out.sent) == 3, "nothing is due"

    later = ItemStatePublisher(store, FEATURES, wall=lambda: NOW_S + FEATURES.item_ttl_ms / 1000)
    store.ask("DEL", "i:gone", "i:listed")
    out.sent.clear()
    later.sweep(1.0, out)
    assert sorted(key for key, _ in out.sent) == ["gone", "listed"]
    assert out.newest("gone") is None
    listed = out.newest("listed")
    assert listed is not None
    assert listed.catalogue.title == "T"
    assert not listed.HasField("counts")

    # It is looked at once more: what came back meanwhile is published, what did not is forgotten.
    click(store, "gone", 7)
    out.sent.clear()
    later.publish_all(out)
    again = out.newest("gone")
    assert again is not None
    assert again.counts.clicks == 1
    assert sorted(store.ask("ZRANGE", EXPIRY_KEY, 0, -1)) == [b"alive", b"gone"]
    out.sent.clear()
    later.sweep(2.0, out)
    later.publish_all(out)
    assert out.sent == [], "at most one sweep in an interval"


def test_an_entry_deleted_after_the_sweep_still_gets_its_tombstone(
    store: FeatureStore, publisher: ItemStatePublisher
) -> None:
    out = Outbox()
    store.ask("ZADD", EXPIRY_KEY, 0, "listed")
    store.ask("HSET", "c:listed", "item", Item(item_id="listed").SerializeToString(), "version", 1)
    publisher.sweep(1.0, out)
    assert out.newest("listed") is not None
    store.ask("HDEL", "c:listed", "item")
    publisher.mark({b"listed"}, now=1.0)
    publisher.publish_all(out)
    assert out.newest("listed") is None
    assert store.ask("ZCARD", EXPIRY_KEY) == 0
