"""The made-up worlds whose month is simulated: one click model, other settings.

``news`` has the clock of a news site, set by the Globo.com clicks: an item is gone after a day. In ``shop`` items stay
for months and visitors come again every day, so that there is something to know about both when tastes shift. Which
settings are measured and which are chosen, and how: see ``docs/freshness-in-simulation.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from millrace.settings import DAY_MS
from millrace.simulation.catalogue import Catalogue
from millrace.simulation.days import DAY_S, DaysPlan
from millrace.simulation.people import Habits, People
from millrace.simulation.world import World

EPOCH_MS = 2_924 * 7 * DAY_MS
"""When the world begins: a day and week boundary of UTC, in January 2026."""
DRIFT_PERIOD_S = 120 * DAY_S
"""A taste is another one after a month, and nearly the same after a day. The clicks do not tell: a choice."""


@dataclass(frozen=True, slots=True)
class WorldKind:
    """How worlds of a kind are made, and how long they are watched.

    Attributes
    ----------
    plan
        Its days, warm-up included, and their visits.
    warm_up_days
        The first days, which are no part of the figures.
    shoppers, items
        How many there are; items are those on sale at a time.
    lifetime_s
        Of an item, on average.
    k
        Slots of a page.
    """

    plan: DaysPlan
    warm_up_days: int
    shoppers: int
    items: int
    lifetime_s: float
    habits: Habits
    k: int = 10


def _days(warm_up: int, visits: float) -> DaysPlan:
    """30 days and a warm-up of whole weeks. Tastes shift three days after a weekly boundary, four before the next.

    That is the middle of what may happen to weekly learning.
    """
    return DaysPlan(warm_up + 30, visits, shift_on=warm_up + 17)


NEWS = WorldKind(
    _days(7, 200.0),
    warm_up_days=7,
    # A visitor comes 2.7 times in ten days (2.6 on Globo.com).
    shoppers=750,
    items=100,
    # The median age at a click on Globo.com is 21 hours: so is that of an exponential of 30.
    lifetime_s=30 * 3600.0,
    # Quality counts more than in ``millrace simulate``, and what was opened before less: few read an article twice.
    habits=Habits(need=4.0, quality=1.0, novelty=0.5, familiarity=-8.0),
)
SHOP = WorldKind(
    # Two weeks of warm-up: weekly learning goes on getting better in the second.
    _days(14, 200.0),
    warm_up_days=14,
    # A visitor comes once a day, on average.
    shoppers=200,
    items=300,
    # Half of a year: of ten items nine are still there a fortnight later.
    lifetime_s=180 * DAY_S,
    habits=Habits(),
)
WORLDS: Mapping[str, WorldKind] = {"news": NEWS, "shop": SHOP}


def make_month_world(seed: int, kind: WorldKind) -> World:
    """The world of every arm; the same for the same arguments."""
    people = People(kind.shoppers, seed, DRIFT_PERIOD_S)
    people.habits = kind.habits
    return World(seed, Catalogue(kind.items, seed, EPOCH_MS, kind.lifetime_s), people)
