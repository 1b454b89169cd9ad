"""A shop over many days without a clock: the sessions of a world in the order of their moments, as fast as they go.

Who comes, and when, depends on the seed alone, so that shops with different fronts have the same visitors with the
same coins (common random numbers): a difference between two of them is what the front did.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Protocol

import numpy as np

from millrace.simulation.catalogue import Change, Floats
from millrace.simulation.chance import Purpose, chance
from millrace.simulation.clicks import Looked
from millrace.simulation.figures import Count
from millrace.simulation.sessions import Ask, Deed, Page, Pause, Session, session
from millrace.simulation.world import World

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Visit:
    """A shopper's n-th session."""

    shopper: int
    number: int
    steps: Session


class Front(Protocol):
    """Who fills pages, and hears what became of them; moments are seconds of the world."""

    def page(self, visit: Visit, ask: Ask, now_s: float) -> Page: ...
    def did(self, visit: Visit, deed: Deed, now_s: float) -> None: ...
    def changed(self, change: Change) -> None: ...


@dataclass(frozen=True, slots=True)
class DaysPlan:
    """How long, and how many come.

    Attributes
    ----------
    days
        Length of the run.
    sessions_per_day
        On average (a Poisson process).
    shift_on
        The day, from 0, as of whose beginning all tastes are others; None: they only drift. Habits stay, so that
        what can be reached after the shift is about what could be before.
    """

    days: int
    sessions_per_day: float
    shift_on: int | None = None


class Days:
    """Runs a world.

    Attributes
    ----------
    counts
        float64[days, shoppers, len(Count)], what happened on each day.
    """

    def __init__(self, world: World, front: Front, plan: DaysPlan) -> None:
        self.counts: Floats = np.zeros((plan.days, len(world.people), len(Count)))
        self._world = world
        self._front = front
        self._plan = plan
        self._day = 0

    def run(self) -> Iterator[int]:
        """Go through the days; gives each day's number when it is over. Visits under way at the end are cut off."""
        world = self._world
        arrivals = self._arrivals()
        # Equal moments: who came first.
        order = count()
        at_s, visit = next(arrivals)
        due = [(at_s, next(order), visit, True)]
        while True:
            at_s, _, visit, arrives = heapq.heappop(due)
            while at_s >= (self._day + 1) * DAY_S:
                yield self._day
                self._day += 1
                if self._day == self._plan.days:
                    return
                if self._day == self._plan.shift_on:
                    habits = world.people.habits
                    world.people.shift()
                    world.people.habits = habits
            for change in world.advance(at_s):
                self._front.changed(change)
            if arrives:
                self._add(visit, Count.SESSIONS)
                next_s, following = next(arrivals)
                heapq.heappush(due, (next_s, next(order), following, True))
            pause_s = self._until_pause(visit, at_s)
            if pause_s is not None:
                heapq.heappush(due, (at_s + pause_s, next(order), visit, False))

    def _arrivals(self) -> Iterator[tuple[float, Visit]]:
        world, numbers = self._world, Counter[int]()
        rng = chance(world.seed, Purpose.ARRIVALS)
        at_s = 0.0
        while True:
            at_s += float(rng.exponential(DAY_S / self._plan.sessions_per_day))
            shopper = world.people.who(float(rng.random()))
            number = numbers[shopper]
            numbers[shopper] += 1
            yield at_s, Visit(shopper, number, session(world, shopper, number))

    def _until_pause(self, visit: Visit, now_s: float) -> float | None:
        """Let a visit go on; returns the seconds of its next pause, None at its end."""
        page: Page | None = None
        while True:
            try:
                step = visit.steps.send(page)
            except StopIteration:
                return None
            page = None
            if isinstance(step, Pause):
                return step.seconds
            if isinstance(step, Ask):
                page = self._front.page(visit, step, now_s)
            elif isinstance(step, Looked):
                self._looked(visit, step)
            else:
                self._did(visit, step, now_s)

    def _looked(self, visit: Visit, looked: Looked) -> None:
        self._add(visit, Count.PAGES)
        self._add(visit, Count.SLOTS, looked.shown)
        self._add(visit, Count.EXAMINED, looked.examined)
        if looked.clicked is not None:
            self._add(visit, Count.CLICKS)

    def _did(self, visit: Visit, deed: Deed, now_s: float) -> None:
        if deed.type == "click":
            self._world.shelves.clicked(deed.item_id, now_s)
        elif deed.type == "purchase":
            self._add(visit, Count.PURCHASES)
            self._add(visit, Count.REVENUE, deed.value or 0.0)
        self._front.did(visit, deed, now_s)

    def _add(self, visit: Visit, what: Count, amount: float = 1.0) -> None:
        self.counts[self._day, visit.shopper, what] += amount
