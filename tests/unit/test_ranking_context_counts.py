"""Lifts by circumstances against exact counts, and the bounds of the table."""

from __future__ import annotations

import math
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.ranking.circumstances import ATTRIBUTES_MAX, FIELDS, Circumstances, circumstances
from millrace.ranking.context_counts import LIFT_PRIOR, ContextCounts, Keys
from millrace.ranking.features import Floats
from millrace.settings import DAY_MS, HOUR_MS
from millrace.v1.common_pb2 import Context

T0 = 1_700_000_000_000
HALF_LIFE_MS = 2 * HOUR_MS
ITEMS = "abcd"
KEYS = np.array([crc32(item.encode()) for item in ITEMS], dtype=np.uint32)

Log = list[tuple[str, Context, int]]


def known(device: str = "", os: str = "", region: str = "") -> Circumstances:
    return circumstances(Context(device=device, os=os, region=region))


def filled(log: Log) -> ContextCounts:
    counts = ContextCounts(HALF_LIFE_MS)
    for item, context, at_ms in log:
        counts.add(circumstances(context), crc32(item.encode()), at_ms)
    return counts


def lifts(counts: ContextCounts, known: Circumstances, keys: Keys, now_ms: int) -> Floats:
    """Float64[n, len(FIELDS)]."""
    found = np.zeros((len(keys), len(FIELDS)))
    counts.add_lifts(known, np.arange(len(keys), dtype=np.int32), keys, now_ms, found)
    return found


def by_counting(log: Log, field: str, value: str, item: str, now_ms: int) -> float:
    """The lift of an item under one circumstance."""
    weighed = [(one, context, 2 ** (-(now_ms - at_ms) / HALF_LIFE_MS)) for one, context, at_ms in log]
    everything = sum(weight for _, _, weight in weighed)
    of_item = sum(weight for one, _, weight in weighed if one == item)
    under = sum(weight for _, context, weight in weighed if getattr(context, field) == value)
    both = sum(weight for one, context, weight in weighed if one == item and getattr(context, field) == value)
    return math.log((both + LIFT_PRIOR) / (of_item / everything * under + LIFT_PRIOR))


def test_what_a_region_prefers_is_lifted_there_and_lowered_elsewhere() -> None:
    counts = ContextCounts(HALF_LIFE_MS)
    for _ in range(50):
        counts.add(known(region="north"), int(KEYS[0]), T0)
        counts.add(known(region="south"), int(KEYS[1]), T0)
    found = lifts(counts, known(region="north", device="mobile"), KEYS, T0)
    assert found[:, FIELDS.index("region")] == pytest.approx([math.log(51 / 26), math.log(1 / 26), 0, 0], abs=1e-6)
    # Nobody was seen with this device, and the fields that are not known say nothing.
    assert not np.delete(found, FIELDS.index("region"), axis=1).any()


def test_nothing_known_says_nothing() -> None:
    assert not lifts(ContextCounts(HALF_LIFE_MS), known(region="north"), KEYS, T0).any()
    assert not lifts(filled([("a", Context(region="north"), T0)]), (), KEYS, T0).any()


contexts = st.builds(
    Context, region=st.sampled_from(["", "north", "south"]), device=st.sampled_from(["", "mobile", "desktop"])
)


@given(
    st.lists(st.tuples(st.sampled_from(ITEMS), contexts, st.integers(0, 300 * DAY_MS).map(lambda ms: T0 + ms))),
    st.sampled_from(["north", "south"]),
)
def test_equal_to_counting(log: Log, region: str) -> None:
    """Also across the rescaling of weights, which 300 days bring about."""
    log.sort(key=lambda entry: entry[2])
    now_ms = max((at_ms for _, _, at_ms in log), default=T0) + HOUR_MS
    found = lifts(filled(log), known(region=region), KEYS, now_ms)[:, FIELDS.index("region")]
    if log:
        expected = [by_counting(log, "region", region, item, now_ms) for item in ITEMS]
        assert found == pytest.approx(expected, abs=1e-4)
    else:
        assert not found.any()


def test_an_event_taken_back_leaves_what_was_there() -> None:
    log = [("a", Context(region="north"), T0), ("b", Context(region="south"), T0 + HOUR_MS)]
    counts = filled(log)
    before = lifts(counts, known(region="north"), KEYS, T0 + HOUR_MS)
    for times in (1.0, -1.0):
        counts.add(known(region="north"), int(KEYS[2]), T0 + HOUR_MS, times)
    assert lifts(counts, known(region="north"), KEYS, T0 + HOUR_MS) == pytest.approx(before, abs=1e-6)


def test_single_clicks_count_beside_a_great_many() -> None:
    counts, many, single = ContextCounts(HALF_LIFE_MS), 2.0**25, 20_000
    counts.add(known(region="north"), int(KEYS[0]), T0, many)
    for _ in range(single):
        counts.add((), int(KEYS[1]), T0)
    lift = lifts(counts, known(region="north"), KEYS, T0)[0, FIELDS.index("region")]
    assert lift == pytest.approx(math.log1p(single / many), rel=1e-3)


def test_many_pairs_in_the_table_move_few_lifts_and_those_little() -> None:
    """Forty thousand pairs of region and item, each once: nothing is preferred anywhere."""
    counts, random = ContextCounts(HALF_LIFE_MS), np.random.default_rng(5)
    keys = random.integers(0, 2**32, 2_000, dtype=np.uint32)
    regions = [known(region=f"region {number}") for number in range(20)]
    for region in regions:
        for key in keys.tolist():
            counts.add(region, key, T0)
    found = np.concatenate([lifts(counts, region, keys, T0)[:, FIELDS.index("region")] for region in regions])
    assert np.mean(np.abs(found) > 0.1) < 0.1
    assert np.abs(found).mean() < 0.05


def test_circumstances_are_the_fields_that_say_something() -> None:
    attributes = {f"name {number}": "x" for number in range(ATTRIBUTES_MAX + 5)}
    assert known(device="mobile") == ((0, crc32(b"device=mobile")),)
    assert known(os="mobile") != known(device="mobile")
    found = circumstances(Context(referrer="search", attributes=attributes | {"empty": ""}))
    assert [FIELDS[place] for place, _ in found] == ["referrer", *["other"] * ATTRIBUTES_MAX]
    assert not circumstances(Context())
