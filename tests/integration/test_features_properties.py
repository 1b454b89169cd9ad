"""Laws of the features, on a real Redis: whatever is delivered again, however it is cut, the state is the same."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.features.writer import FeatureWriter
from millrace.settings import HOUR_MS, MINUTE_MS, FeatureSettings
from tests.feature_ledger import Ledger, Logged
from tests.feature_logs import PROPERTY, logs
from tests.feature_support import CrashingStore, assert_equals_ledger, connected, events_of, everything

# Small bounds, so that a few dozen events go over each of them: the window of duplicates, the engagements kept, the
# events of a user in one write.
FEATURES = FeatureSettings(
    backward_weight=0.2,
    dedup_window=10,
    recent_kept=12,
    user_batch_max=5,
    session_context=4,
    half_life_short_ms=10 * MINUTE_MS,
    neighbour_half_life_ms=HOUR_MS,
    neighbours_kept=1_000,
)


@pytest.fixture(scope="module")
def store(redis_url: str) -> Iterator[CrashingStore]:
    store = connected(redis_url)
    yield store
    store.close()


def deliver(writer: FeatureWriter, log: Sequence[Logged], cuts: Sequence[int]) -> None:
    """Write the log in batches that end at the cuts."""
    for start, end in itertools.pairwise([0, *cuts, len(log)]):
        writer.take(events_of(log[start:end]))


def cuts_of(log: Sequence[Logged]) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, len(log)), max_size=6).map(sorted)


@PROPERTY
@given(data=st.data())
def test_state_equals_the_ledger(store: CrashingStore, data: st.DataObject) -> None:
    """Counters, sessions, neighbours, popularity, duplicates and erasure are what the naive model says."""
    log = data.draw(logs())
    store.ask("FLUSHDB")
    deliver(FeatureWriter(store, FEATURES), log, data.draw(cuts_of(log)))
    assert_equals_ledger(store, Ledger(FEATURES, log), FEATURES)


@PROPERTY
@given(data=st.data())
def test_any_replay_and_any_split_give_the_same_state(store: CrashingStore, data: st.DataObject) -> None:
    """Bit for bit: one batch, against any batches with any suffixes of what was taken delivered again."""
    log = data.draw(logs())
    writer = FeatureWriter(store, FEATURES)
    store.ask("FLUSHDB")
    deliver(writer, log, [])
    expected = everything(store)

    store.ask("FLUSHDB")
    chance = data.draw(st.randoms())
    taken = 0
    for _ in range(data.draw(st.integers(1, 8))):
        start = chance.randint(0, taken)
        end = chance.randint(start, len(log))
        writer.take(events_of(log[start:end]))
        taken = max(taken, end)
    writer.take(events_of(log[chance.randint(0, taken) :]))
    assert everything(store) == expected


@PROPERTY
@given(data=st.data())
def test_crashes_between_the_two_steps_lose_and_double_nothing(store: CrashingStore, data: st.DataObject) -> None:
    """The process dies before or after any round trip; what was not finished comes again."""
    log = data.draw(logs())
    writer = FeatureWriter(store, FEATURES)
    store.ask("FLUSHDB")
    deliver(writer, log, [])
    expected = everything(store)

    store.ask("FLUSHDB")
    chance = data.draw(st.randoms())
    committed = 0
    for _ in range(data.draw(st.integers(1, 8))):
        end = chance.randint(committed, len(log))
        with store.crashing(chance.randint(0, 5), after=chance.random() < 0.5):
            writer.take(events_of(log[committed:end]))
            committed = chance.randint(committed, end)
    with store.crashing(0, after=True):
        writer.take(events_of(log[committed:]))
    writer.take(events_of(log[committed:]))
    assert everything(store) == expected


@PROPERTY
@given(data=st.data())
def test_interleaving_of_partitions_does_not_matter(store: CrashingStore, data: st.DataObject) -> None:
    """Users are equal bit for bit, items to rounding: sums in another order."""
    log = data.draw(logs())
    order = data.draw(st.permutations([logged.partition for logged in log]))
    lanes = {partition: iter([logged for logged in log if logged.partition == partition]) for partition in set(order)}
    other = [next(lanes[partition]) for partition in order]
    writer = FeatureWriter(store, FEATURES)
    store.ask("FLUSHDB")
    deliver(writer, log, [])
    users = {key: fields for key, fields in everything(store).items() if key.startswith(b"u:")}

    store.ask("FLUSHDB")
    deliver(writer, other, data.draw(cuts_of(other)))
    assert {key: fields for key, fields in everything(store).items() if key.startswith(b"u:")} == users
    assert_equals_ledger(store, Ledger(FEATURES, log), FEATURES)
