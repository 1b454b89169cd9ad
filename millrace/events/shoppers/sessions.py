"""What generated shoppers do: sessions that hang together, many at once, at random moments of a given rate."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from millrace.events.build import EventType
from millrace.events.shoppers.catalogue import Catalogue

RELATED_SHARE = 0.6
"""How often the next product goes with the present one; enough that the last click says much about the next."""
CATEGORY_SHARE = 0.3
"""How often it is a popular one of the same category; else it is any popular one."""
LOOKS_MEAN = 6.0
"""Products that a session looks at, on average (geometric)."""
CLICK, CART, PURCHASE = 0.5, 0.15, 0.4
"""Probability of the next step after the one before: seen, clicked, put into the cart, bought."""
PAUSE_S = 5.0
"""Seconds between two actions of one shopper, on average."""
ACTIVE_MIN = 8


@dataclass(frozen=True, slots=True)
class Action:
    """Something that a shopper does.

    Attributes
    ----------
    at_s
        When, in seconds after the beginning.
    value
        Money paid; None unless bought.
    """

    at_s: float
    user_id: str
    session_id: str
    item_id: str
    type: EventType
    value: float | None = None


def actions(catalogue: Catalogue, rate: float, users: int, seed: int) -> Iterator[Action]:
    """Actions for ever, in the order of their times: a Poisson process with ``rate`` actions a second.

    As many sessions are under way at once as give each shopper ``PAUSE_S`` between two actions. The same
    arguments give the same actions.
    """
    rng = random.Random(seed)
    active = [_session(catalogue, users, rng) for _ in range(max(ACTIVE_MIN, round(rate * PAUSE_S)))]
    at_s = 0.0
    while True:
        at_s += rng.expovariate(rate)
        place = rng.randrange(len(active))
        step = next(active[place], None)
        while step is None:
            active[place] = _session(catalogue, users, rng)
            step = next(active[place], None)
        user_id, session_id, item_id, kind, value = step
        yield Action(at_s, user_id, session_id, item_id, kind, value)


Step = tuple[str, str, str, EventType, float | None]


def _session(catalogue: Catalogue, users: int, rng: random.Random) -> Iterator[Step]:
    user_id = f"shopper-{rng.randrange(users):06d}"
    session_id = f"{rng.getrandbits(64):016x}"
    place = catalogue.popular(rng)
    while True:
        product = catalogue.products[place]
        yield user_id, session_id, product.item_id, "view", None
        if rng.random() < CLICK:
            yield user_id, session_id, product.item_id, "click", None
            if rng.random() < CART:
                yield user_id, session_id, product.item_id, "add_to_cart", None
                if rng.random() < PURCHASE:
                    yield user_id, session_id, product.item_id, "purchase", product.price
        if rng.random() < 1 / LOOKS_MEAN:
            return
        choice = rng.random()
        if choice < RELATED_SHARE and product.related:
            place = rng.choice(product.related)
        elif choice < RELATED_SHARE + CATEGORY_SHARE:
            place = catalogue.popular(rng, product.category)
        else:
            place = catalogue.popular(rng)
