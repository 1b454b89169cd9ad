"""The click model, and sessions that follow it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from millrace.events import build
from millrace.events.rules import check_interaction
from millrace.simulation.catalogue import STYLES
from millrace.simulation.clicks import (
    EXAMINATION_EXPONENT,
    Looked,
    Need,
    expected,
    fitting,
    look,
    probabilities,
    reach,
)
from millrace.simulation.people import Habits
from millrace.simulation.sessions import ORGANIC_SHARE, PAGES_MEAN, Ask, Deed, Page, Pause, length
from millrace.simulation.world import World, make_world
from tests.simulation_support import play, random_pages

NONE = np.zeros(10)
RNG = np.random.default_rng


def world() -> World:
    return make_world(7, 300, 100)


def test_examination_falls_with_the_rank_as_documented() -> None:
    """100,000 pages without clicks: the share that reaches rank r is r^-0.6, to five standard errors (0.008)."""
    seen = np.zeros(10)
    for patience in RNG(1).random(100_000):
        seen[: look(NONE, patience, NONE).examined] += 1
    assert seen / 100_000 == pytest.approx(np.arange(1, 11) ** -EXAMINATION_EXPONENT, abs=0.008)


def test_examination_does_not_depend_on_the_items_above_but_for_a_click() -> None:
    assert reach(1e-12, 10) == 10
    assert reach(1 - 1e-12, 10) == 1
    sure = np.ones(10)
    assert look(sure, 1e-12, np.full(10, 0.5)) == Looked(10, 1, 0)
    third = np.array([0, 0, 1, 0, 1, 0, 0, 0, 0, 0.0])
    assert look(third, 1e-12, np.full(10, 0.5)) == Looked(10, 3, 2)
    assert look(third, 2**-0.5, np.full(10, 0.5)) == Looked(10, 1, None), "what is not examined is not clicked"
    assert look(np.zeros(0), 0.5, np.zeros(0)) == Looked(0, 0, None)


def test_what_is_expected_of_a_page_is_the_average_of_looking_at_it() -> None:
    """200,000 looks at one page: clicks and examined slots as computed, to five standard errors."""
    chances, rng, runs = np.array([0.1, 0.0, 0.4, 0.02, 0.2]), RNG(3), 200_000
    looks = [look(chances, patience, rng.random(5)) for patience in rng.random(runs)]
    clicks = np.array([looked.clicked is not None for looked in looks], dtype=float)
    examined = np.array([looked.examined for looked in looks], dtype=float)
    average = expected(chances)
    assert clicks.mean() == pytest.approx(average.clicks, abs=5 * clicks.std() / runs**0.5)
    assert examined.mean() == pytest.approx(average.examined, abs=5 * examined.std() / runs**0.5)
    assert expected(np.ones(3)).examined == expected(np.ones(3)).clicks == 1
    assert (expected(NONE[:0]).clicks, expected(NONE[:0]).examined) == (0, 0)


def test_clicks_follow_taste_need_quality_novelty_and_memory() -> None:
    shop = world()
    rows = np.arange(300)
    taste = shop.people.taste(0, 0.0)
    style = np.eye(len(STYLES))[0]
    need, other = Need(3, style), Need(4, style)

    def chances(
        need: Need = need, memory: float = 0.0, now_s: float = 0.0, habits: Habits = shop.people.habits
    ) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        found: np.ndarray[tuple[int], np.dtype[np.float64]] = probabilities(
            shop.catalogue, rows, taste, need, habits, np.full(300, memory), now_s
        )
        return found

    base, needed = chances(), shop.catalogue.category == 3
    assert (base > 0).all()
    assert (base < 1).all()
    assert (base[needed] > chances(other)[needed]).all()
    assert (chances(memory=-1.5) < base).all()
    assert (chances(now_s=7200.0) <= base).all(), "novelty wears off"
    better = chances(habits=Habits(quality=1.0))
    assert (better > base).all()
    assert fitting(shop.catalogue, rows, need)[~needed].max() == 0
    sold_out = probabilities(shop.catalogue, np.array([-1]), taste, need, shop.people.habits, np.zeros(1), 0.0)
    assert sold_out.tolist() == [0.0]


def test_the_same_answers_lead_to_the_same_choices() -> None:
    first, again = world(), world()
    for shopper in range(20):
        assert list(play(first, shopper, 0, random_pages(first, shopper))) == list(
            play(again, shopper, 0, random_pages(again, shopper))
        )


def first_page(shopper: int, items: list[str]) -> tuple[int, str | None]:
    """How many slots of the first page are examined, and the item that is clicked."""
    for step in play(world(), shopper, 0, lambda ask: Page(items, "r")):
        if isinstance(step, Looked):
            return step.examined, None if step.clicked is None else items[step.clicked]
    return 0, None


def test_a_coin_belongs_to_the_item_wherever_it_is_shown() -> None:
    """Common random numbers: behind something sold out an item is clicked, once examined, as it is at the top."""
    items = world().catalogue.item_ids[:20]
    clicks = examined = 0
    for shopper in range(60):
        for item in items[:4]:
            _, at_top = first_page(shopper, [item])
            seen, below = first_page(shopper, ["gone", item])
            if seen == 2:
                examined += 1
                clicks += at_top is not None
                assert below == at_top
    assert examined > 100
    assert clicks > 0


def test_every_deed_is_a_valid_event_and_names_its_answer() -> None:
    shop = world()
    kinds: Counter[str] = Counter()
    organic = answered = 0
    for shopper in range(100):
        shown: set[str] = set()
        pages = random_pages(shop, shopper)

        def show(ask: Ask, shown: set[str] = shown, pages=pages) -> Page | None:  # type: ignore[no-untyped-def]
            page: Page = pages(ask)
            shown.update(page.item_ids)
            return page

        for number in range(5):
            before = ""
            for step in play(shop, shopper, number, show):
                if isinstance(step, Deed):
                    check_interaction(build.interaction("u", step.item_id, step.type, value=step.value))
                    kinds[step.type] += 1
                    assert (step.value is not None) == (step.type == "purchase")
                    if step.request_id:
                        assert step.item_id in shown
                    if step.type == "click":
                        organic += not step.request_id
                        answered += bool(step.request_id)
                    elif step.type != "view":
                        assert step.item_id == before, "cart and purchase are of the item that was opened"
                    if step.type != "view":
                        before = step.item_id
                elif isinstance(step, Pause):
                    assert 0 < step.seconds < 120
    assert kinds["view"] > kinds["click"] > kinds["add_to_cart"] > kinds["purchase"] > 0
    assert organic > 0
    assert answered > 0


def test_who_gets_no_page_searches() -> None:
    shop = world()
    deeds = [step for shopper in range(20) for step in play(shop, shopper, 0, lambda ask: None)]
    clicks = [step for step in deeds if isinstance(step, Deed) and step.type == "click"]
    assert len(clicks) == sum(length(shop, shopper, 0) for shopper in range(20))
    assert not any(click.request_id for click in clicks)
    assert not any(isinstance(step, Looked) for step in deeds)


def test_a_page_of_sold_out_items_is_looked_at_in_vain() -> None:
    shop = world()
    steps = [step for shopper in range(20) for step in play(shop, shopper, 0, lambda ask: Page(["gone"] * 5, "r"))]
    looked = [step for step in steps if isinstance(step, Looked)]
    assert looked
    assert {one.clicked for one in looked} == {None}
    assert any(isinstance(step, Deed) and step.type == "view" and step.item_id == "gone" for step in steps)


def test_sessions_ask_for_as_many_pages_as_said() -> None:
    """2,000 sessions: the mean of the pages is within five standard errors (0.5) of what the rate is computed from."""
    shop = world()
    asked = 0

    def show(ask: Ask) -> None:
        nonlocal asked
        asked += 1

    for number in range(20):
        for shopper in range(100):
            for _ in play(shop, shopper, number, show):
                pass
    assert asked / 2_000 == pytest.approx(PAGES_MEAN, abs=0.5)
    assert 0 < ORGANIC_SHARE < 1


def test_the_need_follows_what_was_clicked() -> None:
    """After a click the search goes to the same category or one that goes with it, far more often than by chance."""
    shop = world()
    follows = total = 0
    for shopper in range(100):
        last: int | None = None
        for step in play(shop, shopper, 1, lambda ask: None):
            if isinstance(step, Deed) and step.type == "click":
                row = shop.catalogue.row(step.item_id)
                if row is None:
                    last = None
                    continue
                category = int(shop.catalogue.category[row])
                if last is not None:
                    total += 1
                    follows += category == last or category in shop.complements[last]
                last = category
    assert total > 200
    assert follows / total > 0.7
