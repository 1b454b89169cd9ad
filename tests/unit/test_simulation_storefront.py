"""The shop in time: open loop, what fails, and how it closes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from millrace.client import DeliveryFailed, Recommendation, RecommendedItem, RecommenderUnavailable
from millrace.simulation.arms import Arm
from millrace.simulation.figures import Count
from millrace.simulation.storefront import Plan, Storefront
from millrace.simulation.truth import read_truths
from millrace.simulation.world import World, make_world
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.item_pb2 import Item


class Service:
    """Recommends any items; or fails, or waits for ``open``."""

    def __init__(self, world: World, error: Exception | None = None, arms: tuple[str, ...] = ()) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.answered: dict[str, tuple[str, ...]] = {}
        self._world = world
        self._error = error
        self._arms = arms

    async def recommend(self, user_id: str, k: int = 10, **fields: Any) -> Recommendation:
        await self.open.wait()
        if self._error is not None:
            raise self._error
        request_id = f"r{len(self.answered)}"
        items = tuple(RecommendedItem(item, 0.5, ()) for item in self._world.catalogue.item_ids[:k])
        self.answered[request_id] = tuple(item.item_id for item in items)
        arm = self._arms[len(self.answered) % len(self._arms)] if self._arms else ""
        return Recommendation(request_id, items, "", "", "", (), None, "ok", "none", 0, "trial" if arm else "", arm, 1)


class Log:
    """Takes events; refuses every ``refused``-th."""

    def __init__(self, refused: int = 0) -> None:
        self.events: list[Interaction] = []
        self.items: list[Item] = []
        self._refused = refused
        self._count = 0

    def send(self, event: Interaction | Item) -> None:
        self._count += 1
        if self._refused and self._count % self._refused == 0:
            raise DeliveryFailed("the broker is away")
        if isinstance(event, Item):
            self.items.append(event)
        else:
            self.events.append(event)


# A world a hundred times as fast: a session takes a fifth of a second.
FAST = Plan(rate=300, speed=100, ago_s=10_000)
ARM = Arm("only", "recommended")


async def run_until(
    shop: Storefront, condition: Callable[[], object], close: Callable[[], None] = lambda: None
) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(shop.run(stop))
    while not condition() and not running.done():  # noqa: ASYNC110  (nothing announces it)
        await asyncio.sleep(0.005)
    stop.set()
    close()
    await running


async def test_counts_are_what_was_sent() -> None:
    world, log = make_world(7, 100, 50), Log()
    service = Service(world)
    shop = Storefront(world, [ARM], {"only": service}, log, FAST)
    await run_until(shop, lambda: shop.traffic.events["purchase"] > 3)

    sums = shop.figures.sums(0)
    assert len(log.events) == shop.traffic.events.total()
    assert sum(not event.request_id for event in log.events) == shop.traffic.organic
    for event in log.events:
        assert not event.request_id or event.item_id in service.answered[event.request_id]
    assert len({event.event_id for event in log.events}) == len(log.events)
    assert sums[Count.SLOTS] == 10 * sums[Count.PAGES] > 0
    assert sums[Count.PURCHASES] == shop.traffic.events["purchase"]
    assert shop.figures.asked[0] == len(service.answered) >= sums[Count.PAGES]
    assert shop.traffic.under_way == 0, "everyone has left"
    assert shop.traffic.lost == 0


async def test_the_truth_about_arms_of_experiments_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_HOME", str(tmp_path))
    world = make_world(7, 100, 50)
    shop = Storefront(world, [ARM], {"only": Service(world, arms=("a", "b"))}, Log(), FAST)
    await run_until(shop, lambda: shop.figures.sums(0)[Count.PAGES] > 400)
    shop.truths.save()
    truths = read_truths("trial", 0)
    pages, _, examined, clicks = shop.figures.sums(0)[Count.PAGES : Count.CLICKS + 1]
    assert sum(truth.pages for truth in truths.values()) == pages
    # Five standard errors; a page has one click at most, and ten examined slots.
    assert sum(truth.clicks for truth in truths.values()) == pytest.approx(clicks, abs=5 * clicks**0.5)
    assert sum(truth.slots for truth in truths.values()) == pytest.approx(examined, abs=5 * 3.5 * pages**0.5)

    without = Storefront(world, [ARM], {"only": Service(world)}, Log(), FAST)
    await run_until(without, lambda: without.figures.sums(0)[Count.PAGES] > 10)
    without.truths.save()
    assert read_truths("", 0) == {}


async def test_arrivals_wait_for_nobody_and_are_bounded() -> None:
    """A service that does not answer: people pile up to the bound, further ones are turned away; closing lets go."""
    world = make_world(7, 100, 50)
    service = Service(world)
    service.open.clear()
    shop = Storefront(world, [ARM], {"only": service}, Log(), Plan(rate=300, speed=100, sessions_max=20))
    await run_until(shop, lambda: shop.traffic.turned_away > 50, service.open.set)
    assert shop.figures.asked[0] == len(service.answered) <= 20
    assert shop.figures.sums(0)[Count.PAGES] == 0, "answers that came after closing were shown to nobody"


async def test_people_go_on_when_nobody_answers_and_when_events_are_lost() -> None:
    world, log = make_world(7, 100, 50), Log(refused=3)
    away = Service(world, RecommenderUnavailable("here", "UNAVAILABLE", "gone"))
    shop = Storefront(world, [ARM], {"only": away}, log, FAST)
    await run_until(shop, lambda: shop.traffic.lost > 20)
    assert shop.figures.asked == shop.figures.failed
    assert shop.figures.sums(0)[Count.SLOTS] == 0
    assert len(log.events) == shop.traffic.events.total() == shop.traffic.organic > 20


async def test_an_error_ends_the_run() -> None:
    world = make_world(7, 100, 50)
    shop = Storefront(world, [ARM], {"only": Service(world, ValueError("a bug"))}, Log(), FAST)
    with pytest.raises(ExceptionGroup) as raised:
        await shop.run(asyncio.Event())
    assert raised.group_contains(ValueError, match="a bug")


async def test_items_change_and_tastes_shift_in_time() -> None:
    """A second of the wall is three hours of this world: items go, and what comes is published."""
    world, log = make_world(7, 100, 50), Log()
    plan = Plan(rate=5, speed=10_000, ago_s=1e6, shift_at=(0.01,))
    shop = Storefront(world, [Arm("popular", "popular")], {}, log, plan)
    await run_until(shop, lambda: len(log.items) > 4 and world.people.shifts)
    gone, came = log.items[0], log.items[1]
    assert not gone.available
    assert came.available
    assert world.catalogue.row(gone.item_id) is None
    assert world.people.shifts == 1
    assert all(event.type != 1 and not event.request_id for event in log.events), "no views, no answers"


async def test_figures_without_the_warm_up() -> None:
    world = make_world(7, 100, 50)
    plan = Plan(rate=300, speed=100, ago_s=10_000, warm_up_s=0.2)
    shop = Storefront(world, [ARM], {"only": Service(world)}, Log(), plan)
    await run_until(shop, lambda: 0 < shop.figures.told(0)[Count.PAGES] < shop.figures.sums(0)[Count.PAGES])
    assert shop.figures.told(0)[Count.SLOTS] == 10 * shop.figures.told(0)[Count.PAGES]


async def test_arms_show_what_they_say() -> None:
    world, log = make_world(7, 100, 200), Log()
    arms = [Arm("popular", "popular"), Arm("random", "random")]
    shop = Storefront(world, arms, {}, log, FAST)
    await run_until(shop, lambda: min(shop.figures.sums(arm)[Count.CLICKS] for arm in (0, 1)) > 3)
    assert shop.figures.asked == [0, 0]
    assert all(shop.figures.shoppers(arm) > 0 for arm in (0, 1))
