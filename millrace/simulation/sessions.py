"""One visit to the shop: a shopper with a need goes from page to page."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from millrace.events.build import EventType
from millrace.simulation.catalogue import STYLES, Floats
from millrace.simulation.chance import Purpose, chance
from millrace.simulation.clicks import (
    BOUGHT,
    PURCHASE,
    TIRED,
    Looked,
    Need,
    cart_probability,
    fitting,
    liking,
    look,
    probabilities,
)
from millrace.simulation.people import Taste
from millrace.simulation.world import World

STEPS_MEAN = 5.0
"""Pages and searches of a session, on average (geometric)."""
ORGANIC_SHARE = 0.1
"""How often a shopper searches in place of looking at the page."""
PAGES_MEAN = STEPS_MEAN * (1 - ORGANIC_SHARE)
"""Pages asked for in a session, on average."""
LOOK_S, READ_S, SEARCH_S, PAY_S = 0.5, 4.0, 3.0, 8.0
"""Median seconds for a slot, an opened item, a search, and from the cart to the purchase. Brisk people: a run of a
minute shows whole sessions, and clicks come well within the 20 s that the outcome joiner of `millrace run` waits."""
PACE_SPREAD = 0.4
"""Spread (of the logarithm) of the time that a step takes."""
STEP_S = 4.5
"""About what a step takes, to tell how far those are who came before the simulation began."""
SIMILAR, COMPLEMENT = 0.55, 0.35
"""After a click: more of the same, something that goes with it, else something new."""
RESUMED = 0.5
"""How often a session begins with what the shopper's last one was about."""
KEEP_LOOKING = 0.85
"""After a page without a click: the same need, else something new."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A page is wanted; answered with ``Page``, or None if there is none."""

    number: int


@dataclass(frozen=True, slots=True)
class Page:
    """What is shown, the id of the answer behind it (empty: none), and the arm of the experiment that it is of."""

    item_ids: Sequence[str]
    request_id: str = ""
    experiment_id: str = ""
    arm: str = ""


@dataclass(frozen=True, slots=True)
class Pause:
    """Time passes, in seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Deed:
    """Something that the shopper did just now, or ``ago_s`` before.

    Attributes
    ----------
    value
        Money paid; None unless bought.
    """

    type: EventType
    item_id: str
    request_id: str = ""
    value: float | None = None
    ago_s: float = 0.0


Step: TypeAlias = Ask | Pause | Deed | Looked
Session: TypeAlias = Generator[Step, Page | None, None]


def length(world: World, shopper: int, number: int) -> int:
    """How many steps a shopper's n-th session has."""
    return int(chance(world.seed, Purpose.SESSIONS, shopper, number).geometric(1 / STEPS_MEAN))


def session(world: World, shopper: int, number: int, begin: int = 0) -> Session:
    """The shopper's n-th session, from its step ``begin`` on.

    Who drives it sends a ``Page`` (or None) for each ``Ask``, and nothing for the rest. Draws depend on the seed,
    the shopper, the session and the step only, and a coin belongs to an item wherever it is shown: given the same
    answers the same happens.
    """
    steps = length(world, shopper, number)
    opened: set[str] = set()
    need: Need | None = None
    if chance(world.seed, Purpose.NEEDS, shopper, number).random() < RESUMED:
        need = world.wanted.get(shopper)
    for place in range(begin, steps):
        rng = chance(world.seed, Purpose.SESSIONS, shopper, number, place + 1)
        organic, patience, cart, purchase, turn, category, choice = rng.random(7)
        style = rng.standard_normal(len(STYLES))
        pace = float(np.exp(PACE_SPREAD * rng.standard_normal()))
        taste = world.people.taste(shopper, world.now_s)
        if need is None:
            need = _new_need(taste, category, style)
        world.wanted[shopper] = need
        found, request_id = "", ""
        page = None if organic < ORGANIC_SHARE else (yield Ask(place))
        if page is not None and page.item_ids:
            request_id = page.request_id
            rows = world.catalogue.rows(page.item_ids)
            chances = probabilities(
                world.catalogue,
                rows,
                taste,
                need,
                world.people.habits,
                _memory(world, shopper, opened, page.item_ids),
                world.now_s,
            )
            looked = look(chances, patience, rng.random(len(world.catalogue))[rows])
            yield Pause(LOOK_S * pace * max(1, looked.examined))
            if looked.clicked is not None and world.catalogue.row(page.item_ids[looked.clicked]) is None:
                # Sold out while it was read about.
                looked = replace(looked, clicked=None)
            for rank in range(looked.examined):
                ago_s = LOOK_S * pace * (looked.examined - 1 - rank)
                yield Deed("view", page.item_ids[rank], request_id, ago_s=ago_s)
            yield looked
            if looked.clicked is not None:
                found = page.item_ids[looked.clicked]
        else:
            yield Pause(SEARCH_S * pace)
            found = _search(world, taste, need, choice)
        row = world.catalogue.row(found)
        if row is None:
            # Nothing was clicked, or what was found is sold out since.
            if turn >= KEEP_LOOKING:
                need = None
            continue
        liked = float(liking(world.catalogue, np.array([row]), taste)[0])
        price, item_category = float(world.catalogue.price[row]), int(world.catalogue.category[row])
        item_style = world.catalogue.style[row].copy()
        yield Deed("click", found, request_id)
        opened.add(found)
        world.remember(shopper, found)
        yield Pause(READ_S * pace)
        if cart < cart_probability(liked):
            yield Deed("add_to_cart", found, request_id)
            if purchase < PURCHASE:
                yield Pause(PAY_S * pace)
                yield Deed("purchase", found, request_id, value=price)
                world.remember(shopper, found, bought=True)
        if turn < SIMILAR:
            need = Need(item_category, item_style)
        elif turn < SIMILAR + COMPLEMENT:
            complements = world.complements[item_category]
            need = Need(int(complements[int(category * len(complements))]), _length_one(taste.style + style))
        else:
            need = None


def _new_need(taste: Taste, share: float, style: Floats) -> Need:
    """Something that the shopper likes: a category by the softmax of the taste, a style near their own."""
    weights = np.exp(taste.category - taste.category.max()).cumsum()
    category = int(np.searchsorted(weights, share * weights[-1], side="right"))
    return Need(min(category, len(weights) - 1), _length_one(taste.style + style))


def _search(world: World, taste: Taste, need: Need, share: float) -> str:
    """What a search finds: something in the needed category, popular and fitting ones more often."""
    rows = world.catalogue.rows_of(need.category)
    if not rows.size:
        rows = np.arange(len(world.catalogue))
    fit = fitting(world.catalogue, rows, need)
    odds = world.catalogue.quality[rows] + world.people.habits.need * fit + liking(world.catalogue, rows, taste)
    weights = np.exp(odds - odds.max()).cumsum()
    place = min(int(np.searchsorted(weights, share * weights[-1], side="right")), len(rows) - 1)
    return world.catalogue.item_ids[int(rows[place])]


def _memory(world: World, shopper: int, opened: set[str], item_ids: Sequence[str]) -> Floats:
    remembered = world.remembered.get(shopper, {})
    odds = np.zeros(len(item_ids))
    for place, item_id in enumerate(item_ids):
        if item_id in remembered:
            odds[place] = world.people.habits.familiarity + (BOUGHT if remembered[item_id] else 0.0)
            if item_id in opened:
                odds[place] += TIRED
    return odds


def _length_one(vector: Floats) -> Floats:
    unit: Floats = vector / np.linalg.norm(vector)
    return unit
