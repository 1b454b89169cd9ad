"""What freshness is worth in a shop of one's own: the same made-up month, once for each way to fill its pages.

Each arm has the shop to itself, with the same visitors and the same coins: what an arm's shoppers click teaches that
arm and no other, as if it had been deployed alone. Nothing leaks between arms, and differences are paired by shopper.

What it measured: ``docs/freshness-in-simulation.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count

import numpy as np

from millrace.evaluation.lag import parse_lag
from millrace.evaluation.late import LateRecommender
from millrace.events import build
from millrace.ranking.labels import labels_of
from millrace.settings import Settings
from millrace.simulation.catalogue import Change
from millrace.simulation.days import DAY_S, Days, Front, Visit
from millrace.simulation.sessions import Ask, Deed, Page
from millrace.simulation.world import World
from millrace.simulation.worlds import EPOCH_MS, WorldKind, make_month_world


@dataclass(frozen=True, slots=True)
class Way:
    """A way to fill pages.

    Attributes
    ----------
    lag
        How late features and parameters are, as ``parse_lag`` reads it; None: the most clicked items, at once.
    knows_user
        Whether a user's own clicks are known at once in any case.
    """

    lag: str | None
    knows_user: bool = False


WAYS: Mapping[str, Way] = {
    "live": Way("0"),
    "hourly": Way("1h"),
    "nightly": Way("24h"),
    "nightly_session_known": Way("24h", knows_user=True),
    "weekly": Way("7d"),
    "popularity": Way(None),
}


class RecommendedPages:
    """A ``Front`` that asks a recommender and tells it everything."""

    def __init__(self, world: World, recommender: LateRecommender, k: int) -> None:
        self._world = world
        self._recommender = recommender
        self._k = k
        self._numbers = count()
        for row in range(len(world.catalogue)):
            entry = world.catalogue.entry(row)
            recommender.memory.offer(entry.item_id, entry.published_at_ms, labels_of(entry))

    def page(self, visit: Visit, ask: Ask, now_s: float) -> Page:
        """Ask for a page."""
        user_id, session_id = _ids(visit)
        request_id = f"{session_id}-{ask.number}"
        return Page(self._recommender.recommend(user_id, self._k, request_id, session_id, _at_ms(now_s)), request_id)

    def did(self, visit: Visit, deed: Deed, now_s: float) -> None:
        """Log an event."""
        user_id, session_id = _ids(visit)
        event = build.interaction(
            user_id,
            deed.item_id,
            deed.type,
            occurred_at=_at_ms(now_s - deed.ago_s),
            event_id=str(next(self._numbers)),
            session_id=session_id,
            request_id=deed.request_id,
            value=deed.value,
        )
        self._recommender.take(event, _at_ms(now_s))

    def changed(self, change: Change) -> None:
        """An item went, another came."""
        self._recommender.memory.withdraw(change.gone.item_id)
        self._recommender.memory.offer(change.came.item_id, change.came.published_at_ms, labels_of(change.came))


class PopularPages:
    """A ``Front`` that shows what is clicked most."""

    def __init__(self, world: World, k: int) -> None:
        self._world = world
        self._k = k

    def page(self, visit: Visit, ask: Ask, now_s: float) -> Page:
        """The most clicked items."""
        del visit, ask
        return Page(self._world.shelves.popular(self._k, now_s))

    def did(self, visit: Visit, deed: Deed, now_s: float) -> None:
        """The shelves count clicks by themselves."""

    def changed(self, change: Change) -> None:
        """The shelves see the catalogue."""


def month(way: Way, kind: WorldKind, seed: int, settings: Settings) -> Days:
    """One arm's shop, ready to run."""
    world = make_month_world(seed, kind)
    return Days(world, make_front(way, world, kind, settings), kind.plan)


def make_front(way: Way, world: World, kind: WorldKind, settings: Settings) -> Front:
    """Who fills the pages of an arm's shop."""
    if way.lag is None:
        return PopularPages(world, kind.k)
    # Items on sale at first, and twice as many as come on average.
    items_max = round(kind.items * (1 + 2 * kind.plan.days * DAY_S / kind.lifetime_s)) + 1_000
    random = np.random.default_rng(world.seed)
    recommender = LateRecommender(settings, parse_lag(way.lag), items_max, random, way.knows_user)
    return RecommendedPages(world, recommender, kind.k)


def _ids(visit: Visit) -> tuple[str, str]:
    return f"shopper-{visit.shopper:06d}", f"{visit.shopper}-{visit.number}"


def _at_ms(now_s: float) -> int:
    return EPOCH_MS + int(now_s * 1000)
