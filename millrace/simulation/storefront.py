"""A shop that is open: sessions in time, each asks for its pages and publishes what its shopper does.

Arrivals are a Poisson process that waits for nobody (open loop): a recommender that is slow or away changes what is
shown, never who comes. A page whose request fails is no page: the shopper searches instead.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Unpack

import structlog

from millrace.client import DeliveryFailed, Recommendation, RecommenderUnavailable
from millrace.events import build
from millrace.events.build import RequestFields
from millrace.simulation.arms import Arm, assign
from millrace.simulation.chance import Purpose, chance
from millrace.simulation.clicks import Looked
from millrace.simulation.figures import Count, Figures
from millrace.simulation.sessions import PAGES_MEAN, STEP_S, Ask, Deed, Page, Pause, length, session
from millrace.simulation.truth import Truths
from millrace.simulation.world import World
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.item_pb2 import Item

BEFORE_S = 60.0
"""Who came so long before the beginning is in the middle of their visit: the rate of pages holds from the start."""
LATE_S = 0.1
"""An arrival that begins this much after its time is counted as late: the machine does not keep up."""
CHURN_S = 1.0
"""Time between two looks at what goes out of the catalogue, seconds of the wall."""
SOLD_OUT = 1 / 3
"""Share of the items that go at once when the stock changes: so many that nobody can overlook it."""

log = structlog.stdlib.get_logger(__name__)


class Recommender(Protocol):
    """The part of ``AsyncRecommenderClient`` that a shop needs."""

    async def recommend(self, user_id: str, k: int = 10, **fields: Unpack[RequestFields]) -> Recommendation: ...


class Publisher(Protocol):
    """The part of ``EventProducer`` that a shop needs."""

    def send(self, event: Interaction | Item) -> None: ...


@dataclass(frozen=True, slots=True)
class Plan:
    """How a shop is run.

    Attributes
    ----------
    rate
        Pages per second of the wall.
    k
        Slots of a page.
    speed
        How many times as fast as the wall the world goes.
    ago_s
        How long before the wall's time the world begins, seconds: a fast one must not reach the future.
    sessions_max
        Most sessions under way; who comes beyond is turned away and counted.
    shift_at
        When tastes shift, seconds of the wall after the beginning.
    warm_up_s
        What the first so many seconds of the wall bring is left out of the figures.
    """

    rate: float
    k: int = 10
    speed: float = 1.0
    ago_s: float = 0.0
    sessions_max: int = 20_000
    shift_at: Sequence[float] = ()
    warm_up_s: float = 0.0


@dataclass
class Traffic:
    """What went over the wire, and what did not.

    Attributes
    ----------
    events
        Interactions handed to the broker, by type.
    organic
        How many of them name no answer.
    lost
        Records that the broker did not take.
    late, turned_away
        Arrivals that began late, and those beyond the bound.
    under_way
        Sessions now.
    """

    events: Counter[str] = field(default_factory=Counter)
    organic: int = 0
    lost: int = 0
    late: int = 0
    turned_away: int = 0
    under_way: int = 0


class Storefront:
    """Runs the sessions of a world.

    Parameters
    ----------
    recommenders
        For each arm that recommends, by its name: whom to ask.

    Attributes
    ----------
    figures
        The truth about each arm.
    traffic
        What went over the wire.
    truths
        The truth about the arms of experiments that the recommender's answers are of.
    """

    def __init__(
        self,
        world: World,
        arms: Sequence[Arm],
        recommenders: Mapping[str, Recommender],
        events: Publisher,
        plan: Plan,
    ) -> None:
        self.world = world
        self.arms = arms
        self.plan = plan
        self.figures = Figures(assign(arms, len(world.people), world.seed), len(arms))
        self.traffic = Traffic()
        self.truths = Truths()
        self._recommenders = recommenders
        self._events = events
        self._began = 0.0
        self._epoch_ms = 0
        self._numbers: Counter[int] = Counter()
        self._pausing: set[asyncio.Task[None]] = set()
        self._closed = False

    async def run(self, stop: asyncio.Event) -> None:
        """Let people come until ``stop`` is set; then everyone leaves, and requests under way are waited for.

        An error in a session ends the run and is raised.
        """
        loop = asyncio.get_running_loop()
        self._began = loop.time()
        self._epoch_ms = build.now_ms() - round(self.plan.ago_s * 1000)
        async with asyncio.TaskGroup() as people:
            work = self._arrivals(people), self._churn(), self._shifts(), self._warm_up()
            keepers = [people.create_task(one) for one in work]
            await stop.wait()
            self._closed = True
            for task in (*keepers, *self._pausing):
                task.cancel()

    def shift(self) -> None:
        """Everyone's tastes change, from this moment on."""
        self.world.people.shift()
        log.info("tastes shift", shifts=self.world.people.shifts)

    def sell_out(self) -> None:
        """A good part of the catalogue is sold out, and replaced, at this moment."""
        self._now_s()
        changes = self.world.sell_out(SOLD_OUT)
        for change in changes:
            self._publish(change.gone)
            self._publish(change.came)
        log.info("sold out", items=len(changes))

    def _now_s(self) -> float:
        """The world's time; also tells the world."""
        now_s = (asyncio.get_running_loop().time() - self._began) * self.plan.speed
        self.world.now_s = max(self.world.now_s, now_s)
        return now_s

    def _at_ms(self, now_s: float) -> int:
        # A fast world that runs on past its end must not write of the future.
        return min(self._epoch_ms + int(now_s * 1000), build.now_ms())

    async def _arrivals(self, people: asyncio.TaskGroup) -> None:
        rng = chance(self.world.seed, Purpose.ARRIVALS)
        gap_s = PAGES_MEAN / self.plan.rate * self.plan.speed
        at_s = -BEFORE_S
        while True:
            at_s += float(rng.exponential(gap_s))
            shopper = self.world.people.who(float(rng.random()))
            number = self._numbers[shopper]
            self._numbers[shopper] += 1
            begin, wait_s = 0, 0.0
            if at_s < 0:
                # Some of those who came before have left by now; the others are in the middle of a step.
                begin = int(-at_s / STEP_S) + 1
                wait_s = at_s + begin * STEP_S
                if begin >= length(self.world, shopper, number):
                    continue
            else:
                await self._until(at_s)
            if self.traffic.under_way >= self.plan.sessions_max:
                self.traffic.turned_away += 1
                continue
            self.traffic.under_way += 1
            people.create_task(self._session(shopper, number, begin, wait_s))

    async def _until(self, at_s: float) -> None:
        """Wait for a moment of the world; counts how often it is late."""
        due = self._began + at_s / self.plan.speed
        now = asyncio.get_running_loop().time()
        if now - due > LATE_S:
            self.traffic.late += 1
        # Also lets the sessions go on when arrivals are behind.
        await asyncio.sleep(max(0.0, due - now))

    async def _churn(self) -> None:
        while True:
            await asyncio.sleep(CHURN_S)
            for change in self.world.advance(self._now_s()):
                self._publish(change.gone)
                self._publish(change.came)

    async def _shifts(self) -> None:
        for at in sorted(self.plan.shift_at):
            await asyncio.sleep(max(0.0, self._began + at - asyncio.get_running_loop().time()))
            self.shift()

    async def _warm_up(self) -> None:
        if self.plan.warm_up_s:
            await asyncio.sleep(self.plan.warm_up_s)
            self.figures.warmed_up()

    async def _session(self, shopper: int, number: int, begin: int, wait_s: float) -> None:
        try:
            if not wait_s or await self._pause(wait_s):
                await self._visit(shopper, number, begin)
        finally:
            self.traffic.under_way -= 1

    async def _visit(self, shopper: int, number: int, begin: int) -> None:
        user_id = f"s{self.world.seed}-shopper-{shopper:06d}"
        session_id = f"{self._epoch_ms:x}-{shopper}-{number}"
        self.figures.add(shopper, Count.SESSIONS)
        self._now_s()
        steps = session(self.world, shopper, number, begin)
        step = next(steps, None)
        shown: Page | None = None
        while step is not None and not self._closed:
            page = None
            if isinstance(step, Pause):
                if not await self._pause(step.seconds):
                    return
            elif isinstance(step, Ask):
                shown = page = await self._page(shopper, user_id, session_id, number, step)
            elif isinstance(step, Looked):
                self._count_page(shopper, step)
                if shown is not None and shown.experiment_id:
                    self.truths.add(shown.experiment_id, shown.arm, step)
            else:
                self._do(shopper, user_id, session_id, step)
            self._now_s()
            try:
                step = steps.send(page)
            except StopIteration:
                return

    async def _pause(self, seconds: float) -> bool:
        """Let time pass; False if the shop closed meanwhile."""
        task = asyncio.current_task()
        assert task is not None
        self._pausing.add(task)
        try:
            await asyncio.sleep(seconds / self.plan.speed)
        finally:
            self._pausing.discard(task)
        return not self._closed

    async def _page(self, shopper: int, user_id: str, session_id: str, number: int, ask: Ask) -> Page | None:
        place = int(self.figures.arm_of[shopper])
        arm = self.arms[place]
        if arm.policy == "popular":
            return Page(self.world.shelves.popular(self.plan.k, self.world.now_s))
        if arm.policy == "random":
            rng = chance(self.world.seed, Purpose.SHELVES, shopper, number, ask.number)
            return Page(self.world.shelves.random(self.plan.k, rng))
        self.figures.asked[place] += 1
        as_of = None if self.plan.speed == 1 else self._at_ms(self._now_s())
        try:
            answer = await self._recommenders[arm.name].recommend(
                user_id, self.plan.k, session_id=session_id, as_of=as_of, viewport=self.plan.k
            )
        except RecommenderUnavailable as error:
            if not self.figures.failed[place]:
                log.warning("no answer: shoppers search instead; later ones are counted only", reason=str(error))
            self.figures.failed[place] += 1
            return None
        return Page(answer.item_ids, answer.request_id, answer.experiment_id, answer.arm)

    def _count_page(self, shopper: int, looked: Looked) -> None:
        self.figures.add(shopper, Count.PAGES)
        self.figures.add(shopper, Count.SLOTS, looked.shown)
        self.figures.add(shopper, Count.EXAMINED, looked.examined)
        if looked.clicked is not None:
            self.figures.add(shopper, Count.CLICKS)

    def _do(self, shopper: int, user_id: str, session_id: str, deed: Deed) -> None:
        now_s = self._now_s()
        if deed.type == "click":
            self.world.shelves.clicked(deed.item_id, now_s)
        elif deed.type == "purchase":
            self.figures.add(shopper, Count.PURCHASES)
            self.figures.add(shopper, Count.REVENUE, deed.value or 0.0)
        elif deed.type == "view" and not deed.request_id:
            # A shop without a recommender has nobody to tell what was seen.
            return
        sent = self._publish(
            build.interaction(
                user_id,
                deed.item_id,
                deed.type,
                occurred_at=self._at_ms(now_s - deed.ago_s),
                session_id=session_id,
                request_id=deed.request_id,
                value=deed.value,
            )
        )
        if sent:
            self.traffic.events[deed.type] += 1
            self.traffic.organic += not deed.request_id

    def _publish(self, record: Interaction | Item) -> bool:
        """Hand a record to the broker; what it did not take is counted, and people go on."""
        try:
            self._events.send(record)
        except DeliveryFailed as error:
            if not self.traffic.lost:
                log.warning("events lost; later ones are counted only", reason=str(error))
            self.traffic.lost += 1 + len(error.undelivered)
            return False
        return True
