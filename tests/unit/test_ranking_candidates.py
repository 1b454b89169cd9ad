"""Candidates: every generator, every filter, every limit."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.ranking.candidates import CandidateLimits, CandidateRequest, generate
from millrace.ranking.context_counts import ContextCounts
from millrace.ranking.corpus import Corpus
from millrace.ranking.features import Candidates, HalfLives, UserActivity
from millrace.ranking.first import first_ranker
from millrace.ranking.first_stage import first_scores
from millrace.ranking.item_table import ItemTable
from millrace.ranking.popular import PopularItems
from millrace.ranking.rank import rank
from millrace.ranking.session_index import SessionIndex
from millrace.ranking.sources import (
    FRESH,
    NEIGHBOURS,
    REPEAT,
    REQUESTED,
    TRENDING_LONG,
    TRENDING_SHORT,
    sources_of,
)
from millrace.settings import HOUR_MS, MINUTE_MS
from millrace.v1.impression_pb2 import CandidateSource
from millrace.v1.item_pb2 import ItemState

NOW = 1_700_000_000_000
LIMITS = CandidateLimits(candidates_max=300, context_items=2, session_items=3, trending_items=2, fresh_items=1)


class Click(NamedTuple):
    item_id: str
    at_ms: int
    session: int = 0


def item(item_id: str, popularity: float = 0.0, available: bool | None = None, **neighbours: float) -> ItemState:
    state = ItemState(item_id=item_id, version=1)
    for total in (state.popularity_short, state.popularity_long):
        total.value, total.as_of_ms = popularity, NOW
    state.neighbours.item_ids.extend(neighbours)
    state.neighbours.weights.extend(neighbours.values())
    if available is not None:
        state.catalogue.available = available
    return state


class Shop:
    def __init__(self, *states: ItemState, limits: CandidateLimits = LIMITS) -> None:
        self.limits = limits
        self.table = ItemTable(100, 5, HalfLives(10 * MINUTE_MS, 6 * HOUR_MS))
        for state in states:
            self.table.apply(state, NOW)
        self.corpus = Corpus(
            self.table,
            PopularItems(self.table),
            SessionIndex(self.table, 100, 30 * MINUTE_MS),
            ContextCounts(2 * HOUR_MS),
        )
        self.corpus.popular.refresh()

    def generate(self, request: CandidateRequest) -> dict[str, int]:
        """Item -> bits of its sources, in the order of the first stage."""
        found = self.candidates(request)
        found = found.take(np.argsort(-first_scores(found, self.table, request.now_ms), kind="stable"))
        names = [self.table.id_of(row) for row in found.rows.tolist()]
        return dict(zip(names, found.sources.tolist(), strict=True))

    def candidates(self, request: CandidateRequest) -> Candidates:
        return generate(self.corpus, request, self.limits, np.random.default_rng(1))

    def one(self, request: CandidateRequest, item_id: str) -> dict[str, float]:
        found = self.candidates(request)
        place = found.rows.tolist().index(self.table.rows[item_id])
        names = ("covisit", "covisit_last", "covisit_support")
        return dict(zip(names, found.signals[place, :3].tolist(), strict=True))


def clicks(*items: str) -> list[Click]:
    """Newest first."""
    return [Click(name, NOW - place * 1_000) for place, name in enumerate(items)]


SHOP = Shop(
    item("a", 1.0, x=3.0, y=6.0),
    item("b", 2.0, x=1.0, gone=1.0),
    item("c", 3.0, z=1.0),
    item("x", 0.1),
    item("y", 0.2),
    item("z", 0.3),
    item("gone", 9.0, available=False),
    item("fresh", available=True),
)


def test_generators() -> None:
    found = SHOP.generate(CandidateRequest(k=1, recent=clicks("a", "b")))
    assert found == {
        "y": NEIGHBOURS,
        "x": NEIGHBOURS,
        "c": TRENDING_SHORT | TRENDING_LONG,
        "b": TRENDING_SHORT | TRENDING_LONG | REPEAT,
        "a": REPEAT,
        "fresh": FRESH,
    }
    assert next(iter(found)) == "y", "the most probable follow-up comes first"


def test_covisitation_is_weighted_by_place() -> None:
    request = CandidateRequest(k=1, recent=clicks("a", "b"))
    # a: x 3 and y 6 of 9, and 1 of doubt; b: x 1 and gone 1 of 2, and 1 of doubt.
    assert SHOP.one(request, "x") == pytest.approx(
        {"covisit": 0.3 + (1 / 3) / 2, "covisit_last": 0.3, "covisit_support": 1.0}
    )
    assert SHOP.one(request, "y") == pytest.approx({"covisit": 0.6, "covisit_last": 0.6, "covisit_support": 0.5})
    turned = CandidateRequest(k=1, recent=clicks("b", "a"))
    assert SHOP.one(turned, "y") == pytest.approx({"covisit": 0.3, "covisit_last": 0.0, "covisit_support": 0.5})


def test_only_the_last_items_count_and_each_once() -> None:
    request = CandidateRequest(k=1, recent=clicks("c", "c", "b", "c", "a"))
    found = SHOP.generate(request)
    assert "y" not in found, "a is the third item, and two are the context"
    assert found["a"] == REPEAT
    assert SHOP.one(request, "z")["covisit_last"] == pytest.approx(0.5)
    candidates = SHOP.candidates(request)
    place = candidates.rows.tolist().index(SHOP.table.rows["c"])
    assert candidates.signals[place, 3:5].tolist() == [NOW, 3]


def test_an_unknown_user_gets_trending_and_fresh() -> None:
    assert SHOP.generate(CandidateRequest(k=1)) == {
        "c": TRENDING_SHORT | TRENDING_LONG,
        "b": TRENDING_SHORT | TRENDING_LONG,
        "fresh": FRESH,
    }
    assert SHOP.generate(CandidateRequest(k=1, recent=clicks("never heard of"))).keys() == {"c", "b", "fresh"}


@pytest.mark.parametrize("recent", [clicks("b"), clicks("gone"), []])
def test_unavailable_items_are_never_candidates(recent: list[Click]) -> None:
    for restricted in ([], ["gone", "a"]):
        assert "gone" not in SHOP.generate(CandidateRequest(k=10, recent=recent, restricted_to=restricted))


def test_blocked_items() -> None:
    request = CandidateRequest(k=1, recent=clicks("a"), blocked=["y", "a", "never heard of"])
    assert not {"a", "y"} & SHOP.generate(request).keys()
    assert "x" in SHOP.generate(request)


def test_without_repeats_known_items_are_left_out() -> None:
    request = CandidateRequest(k=10, recent=clicks("b", "a"), repeats=False)
    assert not {"a", "b"} & SHOP.generate(request).keys()


def test_nothing_but_a_restriction_is_ranked() -> None:
    limits = CandidateLimits(candidates_max=10, context_items=2, session_items=3, trending_items=0, fresh_items=0)
    shop = Shop(*(item(f"i{number}", number) for number in range(20)), limits=limits)
    wanted = [f"i{number}" for number in range(5, 15)]
    found = shop.generate(CandidateRequest(k=2, restricted_to=[*wanted, "never heard of"]))
    assert list(found) == wanted[::-1]
    assert set(found.values()) == {REQUESTED}
    shop.limits = replace(limits, candidates_max=1)
    most = shop.generate(CandidateRequest(k=2, restricted_to=wanted))
    assert list(most) == wanted[:-3:-1], "of many, the best of the first stage"
    assert shop.generate(CandidateRequest(k=2, restricted_to=wanted, blocked=wanted)) == {}
    assert shop.generate(CandidateRequest(k=2, restricted_to=["never heard of"])) == {}


def test_trending_fills_up_to_k() -> None:
    shop = Shop(*(item(f"i{number}", 100 - number) for number in range(50)))
    assert len(shop.generate(CandidateRequest(k=2))) == 2
    everything = [f"i{number}" for number in range(30)]
    assert list(shop.generate(CandidateRequest(k=15, blocked=everything)))[:15] == [
        f"i{number}" for number in range(30, 45)
    ]


def test_the_first_stage_keeps_the_most_probable_and_new_ones() -> None:
    limits = CandidateLimits(candidates_max=4, context_items=5, session_items=3, trending_items=10, fresh_items=1)
    shop = Shop(
        item("a", 0.001, n1=5.0, n2=4.0, n3=3.0),
        *(item(f"n{number}", 1.0) for number in (1, 2, 3)),
        *(item(f"t{number}", 1.0) for number in range(8)),
        item("fresh", available=True),
        limits=limits,
    )
    assert list(shop.generate(CandidateRequest(k=3, recent=clicks("a")))) == ["n1", "n2", "n3", "fresh"]
    assert len(shop.generate(CandidateRequest(k=9, recent=clicks("a")))) == 9, "never fewer than asked for"


def test_an_empty_table_has_no_candidates() -> None:
    assert Shop().generate(CandidateRequest(k=5, recent=clicks("a"), blocked=["b"], restricted_to=["c"])) == {}


names = st.sampled_from("abcxyz") | st.just("gone") | st.just("fresh") | st.just("?")


@given(
    st.builds(
        CandidateRequest,
        k=st.integers(1, 10),
        recent=st.lists(names, max_size=6).map(lambda items: clicks(*items)),
        blocked=st.lists(names, max_size=3),
        restricted_to=st.lists(names, max_size=4),
        repeats=st.booleans(),
    )
)
def test_filters_hold_for_every_request(request: CandidateRequest) -> None:
    found = SHOP.generate(request)
    assert not set(request.blocked) & found.keys()
    assert not {"gone", "?"} & found.keys()
    if request.restricted_to:
        assert found.keys() <= set(request.restricted_to)
    if not request.repeats:
        assert not {click.item_id for click in request.recent} & found.keys()
    ranked = rank(SHOP.corpus, request, UserActivity(), first_ranker(), NOW, LIMITS, np.random.default_rng(1))
    assert len(ranked.item_ids) == min(request.k, len(found))
    assert set(ranked.item_ids) <= found.keys()
    assert (np.diff(ranked.scores) <= 0).all()
    np.testing.assert_array_equal(first_ranker().score(ranked.features), ranked.scores)


def test_without_a_model_the_candidates_own_order_counts() -> None:
    request = CandidateRequest(k=3, recent=clicks("a"))
    ranked = rank(SHOP.corpus, request, UserActivity(), None, NOW, LIMITS, np.random.default_rng(1))
    assert ranked.item_ids == list(SHOP.generate(request))[:3]
    assert not ranked.scores.any()
    assert ranked.sources[0] == (CandidateSource.CANDIDATE_SOURCE_NEIGHBOURS,)


def test_sources_are_named_the_most_telling_first() -> None:
    assert sources_of(TRENDING_LONG | NEIGHBOURS | REPEAT) == (
        CandidateSource.CANDIDATE_SOURCE_NEIGHBOURS,
        CandidateSource.CANDIDATE_SOURCE_REPEAT,
        CandidateSource.CANDIDATE_SOURCE_TRENDING_LONG,
    )
    assert sources_of(0) == ()
