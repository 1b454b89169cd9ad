"""Pure parts of the features: decay, states and their packed forms, segments, how a batch is cut, what is refused."""

from __future__ import annotations

import doctest
from dataclasses import replace
from itertools import pairwise
from math import exp2
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.errors import InvalidField, MillraceError
from millrace.features import decay
from millrace.features.decay import DecayedSum
from millrace.features.intake import Event, read_entry, read_interaction
from millrace.features.item_state import decode_item
from millrace.features.limits import check_ttls
from millrace.features.segments import SEGMENTS, segment
from millrace.features.user_state import (
    COUNTED_TYPES,
    ENGAGEMENT_TYPES,
    USER_FIELDS,
    Engagement,
    KnownPosition,
    UserState,
    decode_user,
    encode_user,
)
from millrace.features.writer import parts
from millrace.settings import DAY_MS, HOUR_MS, FeatureSettings
from millrace.stream.worker import Record
from millrace.topics import ITEMS
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.item_pb2 import Item
from tests.feature_ledger import CLICK, DISLIKE, FORGET, PURCHASE, VIEW
from tests.feature_support import T0, record

IDS = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=40)
TIMES = st.integers(T0, T0 + 30 * DAY_MS)


@given(st.lists(st.tuples(st.integers(0, 40 * HOUR_MS), st.floats(0.01, 100)), min_size=1, max_size=30), st.randoms())
def test_a_decayed_sum_does_not_depend_on_order(events: list[tuple[int, float]], chance: Any) -> None:
    """Forward decay: the sum by definition, whatever the order of arrival."""

    def total(order: list[tuple[int, float]]) -> DecayedSum:
        at_ms, weight = order[0]
        result = DecayedSum(weight, at_ms)
        for at_ms, weight in order[1:]:
            result = result.plus(weight, at_ms, HOUR_MS)
        return result

    expected = total(events)
    chance.shuffle(events)
    assert total(events).as_of_ms == expected.as_of_ms == max(at_ms for at_ms, _ in events)
    assert total(events).value == pytest.approx(expected.value, rel=1e-9)
    by_definition = sum(weight * exp2((at_ms - expected.as_of_ms) / HOUR_MS) for at_ms, weight in events)
    assert expected.value == pytest.approx(by_definition, rel=1e-9)


def test_a_decayed_sum_halves_and_never_grows_by_itself() -> None:
    assert DecayedSum(8.0, T0).at(T0 + 3 * HOUR_MS, HOUR_MS) == 1.0
    assert DecayedSum(8.0, T0).at(T0 - HOUR_MS, HOUR_MS) == 8.0
    assert DecayedSum(8.0, T0).at(T0 + 100_000 * HOUR_MS, HOUR_MS) == 0.0
    assert doctest.testmod(decay).failed == 0


@st.composite
def states(draw: st.DrawFn) -> UserState:
    counts = draw(st.dictionaries(st.sampled_from(COUNTED_TYPES), st.integers(1, 2**40), min_size=1))
    engagements = st.builds(
        Engagement,
        IDS,
        st.sampled_from(sorted(ENGAGEMENT_TYPES)),
        TIMES,
        st.integers(0, 65_535),
        st.integers(0, 2**48 - 1),
        st.integers(0, 2**32 - 1),
    )
    return UserState(
        counts=counts,
        decayed={kind: DecayedSum(draw(st.floats(0, 1e9)), draw(TIMES)) for kind in counts},
        first_seen_ms=draw(TIMES),
        last_seen_ms=draw(TIMES),
        purchase_value=draw(st.floats(0, 1e12)),
        recent=tuple(draw(st.lists(engagements, max_size=5))),
        disliked=draw(st.frozensets(IDS, max_size=3)),
        known=KnownPosition(draw(st.integers(0, 65_535)), draw(st.integers(0, 2**48 - 1))),
    )


@given(states())
def test_a_user_is_decoded_as_encoded(state: UserState) -> None:
    fields = encode_user(state)
    assert decode_user([fields[name] for name in USER_FIELDS]) == state


def test_nothing_known_of_a_user() -> None:
    assert decode_user([None] * len(USER_FIELDS)) is None


def test_nothing_known_of_an_item() -> None:
    settings = FeatureSettings()
    assert decode_item("a", (None, None, None), (None, b"5"), settings) is None
    listed = decode_item("a", (None, None, None), (Item(item_id="a", title="T").SerializeToString(), b"5"), settings)
    assert listed is not None
    assert (listed.version, listed.catalogue.title, listed.HasField("counts")) == (5, "T", False)


def test_engagements_before_a_time_are_all_but_those_remembered_since() -> None:
    recent = tuple(Engagement("i", CLICK, T0 + place, 0, place, 0) for place in (3, 1, 0, -1))
    known = replace(user(clicks=9, purchases=1, views=50), recent=recent)
    assert known.engagements_before(T0) == 7
    assert known.engagements_before(T0 + 4) == 10
    assert known.engagements_before(T0 - 1) is None, "some before may be since then, too"
    assert replace(user(clicks=4), recent=recent).engagements_before(T0 - 1) == 0
    assert user(views=3).engagements_before(T0) == 0


def user(clicks: int = 0, purchases: int = 0, views: int = 0, days_ago: int = 0) -> UserState:
    counts: dict[int, int] = {kind: n for kind, n in ((CLICK, clicks), (PURCHASE, purchases), (VIEW, views)) if n}
    seen = T0 - days_ago * DAY_MS
    decayed: dict[int, DecayedSum] = {kind: DecayedSum(float(n), seen) for kind, n in counts.items()}
    return UserState(counts, decayed, seen, seen, 0.0, (), frozenset(), KnownPosition(0, 0))


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (None, "unknown"),
        (user(clicks=2, views=50), "new"),
        (user(clicks=3), "casual"),
        (user(clicks=20), "frequent"),
        (user(clicks=40, days_ago=7), "frequent"),
        (user(clicks=20, days_ago=7), "casual"),
        (user(clicks=30, purchases=1), "buyer"),
        (user(clicks=3, purchases=1, days_ago=7), "casual"),
        (user(clicks=99, purchases=9, days_ago=14), "lapsed"),
    ],
)
def test_segments(state: UserState | None, expected: str) -> None:
    assert segment(state, T0) == expected
    assert expected in SEGMENTS


def event(name: str, kind: int = CLICK) -> Event:
    return Event(name.encode(), b"" if kind == FORGET else b"item", kind, 0, T0, 0.0, b"")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from((CLICK, CLICK, CLICK, FORGET))), max_size=60))
def test_parts_hold_everything_in_order_within_their_bounds(drawn: list[tuple[str, int]]) -> None:
    events = [event(name, kind) for name, kind in drawn]
    cut = [list(part) for part in parts(events, user_batch_max=4)]
    assert [one for part in cut for one in part] == events
    for part in cut:
        for name in {one.user for one in part}:
            mine = [one for one in part if one.user == name]
            assert 1 <= len(mine) <= 4
            assert all(one.type != FORGET for one in mine[1:]), "nothing of its user in front of a FORGET"
    for before, after in pairwise(cut):
        # No part could have been longer.
        same = [one for one in before if one.user == after[0].user]
        assert len(same) == 4 or (after[0].type == FORGET and same)


def test_settings_that_outlive_their_events_are_refused() -> None:
    check_ttls(FeatureSettings())
    with pytest.raises(MillraceError, match="USER_TTL_MS"):
        check_ttls(FeatureSettings(user_ttl_ms=14 * DAY_MS))
    with pytest.raises(MillraceError, match="ITEM_TTL_MS"):
        check_ttls(FeatureSettings(item_ttl_ms=14 * DAY_MS))


def interaction(**fields: Any) -> Interaction:
    given: dict[str, Any] = {"event_id": "e", "user_id": "u", "item_id": "i", "type": CLICK, "occurred_at_ms": T0}
    return Interaction(**{**given, **fields})


def test_what_an_event_carries() -> None:
    read = read_interaction(record(3, 7, interaction(type=PURCHASE, value=2.5, session_id="s")))
    assert (read.user, read.item, read.type, read.position) == (b"u:u", b"i", PURCHASE, 7 << 16 | 3)
    assert (read.at_ms, read.value) == (T0, 2.5)
    forget = read_interaction(record(0, 0, interaction(type=FORGET, item_id=""), append_time_ms=T0 + 9))
    assert forget.at_ms == T0 + 9, "erased when the broker had it, whatever the producer's clock says"


def test_events_from_the_future_are_judged_by_the_append_time() -> None:
    late = interaction(occurred_at_ms=T0 + HOUR_MS)
    read_interaction(record(0, 0, late, append_time_ms=T0 + HOUR_MS))
    with pytest.raises(InvalidField, match="occurred_at_ms"):
        read_interaction(record(0, 0, late, append_time_ms=T0))


def entry(key: bytes | None, item: Item | None) -> Record:
    return Record(ITEMS.name, 1, 2, key, item, T0, [], item.SerializeToString() if item else None)


def test_what_a_catalogue_entry_carries() -> None:
    item = Item(item_id="a", title="T")
    packed = (2 << 16 | 1).to_bytes(8, "little")
    assert read_entry(entry(b"a", item)) == (b"a", packed + item.SerializeToString())
    assert read_entry(entry(b"a", None)) == (b"a", packed)


@pytest.mark.parametrize(
    ("key", "item"),
    [(b"b", Item(item_id="a")), (None, Item(item_id="a")), (b"\xff", None), (b"", None), (b"a\n", None)],
)
def test_keys_that_are_no_item_are_refused(key: bytes | None, item: Item | None) -> None:
    with pytest.raises(InvalidField, match="key"):
        read_entry(entry(key, item))


def test_dislikes_are_no_engagement() -> None:
    assert {VIEW, DISLIKE, FORGET}.isdisjoint(ENGAGEMENT_TYPES)
    assert len(ENGAGEMENT_TYPES) == len(COUNTED_TYPES) - 2
