"""Generated shoppers: the same for the same seed, at the rate asked for, in sessions that hang together."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest

from millrace.events import build
from millrace.events.rules import check_interaction, check_item
from millrace.events.shoppers.catalogue import Catalogue
from millrace.events.shoppers.sessions import Action, actions

ITEMS = 200


def doings(count: int, seed: int = 7, rate: float = 50.0) -> list[Action]:
    return list(islice(actions(Catalogue(ITEMS, seed), rate, users=500, seed=seed), count))


def test_the_same_seed_gives_the_same_shoppers() -> None:
    assert doings(500) == doings(500)
    assert doings(500) != doings(500, seed=8)
    assert Catalogue(ITEMS, 7).products == Catalogue(ITEMS, 7).products


def test_every_product_and_action_is_valid() -> None:
    for product in Catalogue(ITEMS, 7).products:
        check_item(product.item())
    for action in doings(500):
        check_interaction(
            build.interaction(
                action.user_id, action.item_id, action.type, value=action.value, session_id=action.session_id
            )
        )


def test_the_rate_holds() -> None:
    """5,000 events of a Poisson process at 50/s take 100 s; five standard deviations are 7 s."""
    made = doings(5_000)
    times = [action.at_s for action in made]
    assert times == sorted(times)
    assert times[-1] == pytest.approx(100, abs=7)


def test_the_steps_of_a_purchase_come_in_order() -> None:
    made = doings(20_000)
    counts = Counter(action.type for action in made)
    assert counts["view"] > counts["click"] > counts["add_to_cart"] > counts["purchase"] > 0
    seen: set[tuple[str, str, str]] = set()
    before = {"click": "view", "add_to_cart": "click", "purchase": "add_to_cart"}
    for action in made:
        if earlier := before.get(action.type):
            assert (action.session_id, action.item_id, earlier) in seen
        seen.add((action.session_id, action.item_id, action.type))
        assert (action.value is not None) == (action.type == "purchase")


def test_the_next_product_often_goes_with_the_present_one() -> None:
    """60 % are asked for; popular products repeat, which only adds to it."""
    catalogue = Catalogue(ITEMS, 7)
    related = {p.item_id: {catalogue.products[place].item_id for place in p.related} for p in catalogue.products}
    last: dict[str, str] = {}
    follows = total = 0
    for action in doings(20_000):
        if action.type == "view":
            if (previous := last.get(action.session_id)) is not None:
                total += 1
                follows += action.item_id in related[previous]
            last[action.session_id] = action.item_id
    assert total > 5_000
    assert follows / total > 0.55


def test_popularity_is_uneven() -> None:
    views = Counter(action.item_id for action in doings(20_000) if action.type == "view")
    top = sum(count for _, count in views.most_common(ITEMS // 10))
    assert top / views.total() > 0.2


def test_a_catalogue_of_one_product() -> None:
    made = list(islice(actions(Catalogue(1, 1), 10.0, users=1, seed=1), 50))
    assert {action.item_id for action in made} == {Catalogue(1, 1).products[0].item_id}
