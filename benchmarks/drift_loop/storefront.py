"""A made-up shop whose shoppers' tastes change at a known moment, with and without online learning and retraining.

Up to the change there is one shop, which learns online; there it becomes four, as copies of the process: with online
learning or without (then the champion stays what it was at that moment), with retraining or without. Who comes when
depends on the seed alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np

from benchmarks.drift_loop.control import Control
from benchmarks.drift_loop.serving import Serving
from millrace.events import build
from millrace.registry.retraining import CHALLENGER, PROMOTED, REGISTERED, REJECTED, STARTED
from millrace.settings import DAY_MS, HOUR_MS, MINUTE_MS, RetrainSettings, Settings, TrainingSettings
from millrace.simulation.catalogue import Change, Floats
from millrace.simulation.days import DAY_S, Days, DaysPlan, Visit
from millrace.simulation.people import Habits
from millrace.simulation.sessions import Ask, Deed, Page
from millrace.simulation.world import World
from millrace.simulation.worlds import EPOCH_MS, WorldKind, make_month_world
from millrace.v1.drift_pb2 import DriftChannel
from millrace.v1.model_pb2 import ModelEventType as Kind
from millrace.v1.outcome_pb2 import Label

SHOP = WorldKind(DaysPlan(9, 3000.0), warm_up_days=0, shoppers=3000, items=300, lifetime_s=180 * DAY_S, habits=Habits())
STEPS: Mapping[str, Kind.ValueType] = {
    "retraining begins": STARTED,
    "version trained": REGISTERED,
    "version rejected": REJECTED,
    "challenger": CHALLENGER,
    "promoted": PROMOTED,
}
PERFORMANCE = DriftChannel.DRIFT_CHANNEL_PERFORMANCE
T = TypeVar("T")

_SEEN = (Label.LABEL_POSITIVE, Label.LABEL_NEGATIVE)


@dataclass(frozen=True)
class Course:
    """When what happens, in days of the world.

    Attributes
    ----------
    known_on
        What came before is a warm-up: a version is trained on what came since, at ``watched_on``, promoted and watched.
    flip_on, days
        When tastes change, and when it is over.
    """

    known_on: int = 1
    watched_on: int = 3
    flip_on: int = 4
    days: int = 9
    kind: WorldKind = SHOP


COURSE = Course()


@dataclass(frozen=True)
class Way:
    """What goes on after the flip."""

    learns: bool
    retrains: bool


WAYS: Mapping[str, Way] = {
    "online learning and retraining": Way(True, True),
    "online learning": Way(True, False),
    "retraining": Way(False, True),
    "neither": Way(False, False),
}


@dataclass
class Went:
    """How one way went.

    Attributes
    ----------
    shown, clicked
        Slots shown and clicks, by hour: float64[hours].
    steps
        Name of a step -> hours and outcomes (slots seen) from the flip to it; steps that were not taken are missing.
    early
        Signals of labels before the flip.
    ends
        Every event of the model since the flip, for people.
    """

    shown: Floats
    clicked: Floats
    steps: dict[str, tuple[float, int]] = field(default_factory=dict)
    early: int = 0
    ends: list[str] = field(default_factory=list)


class Shop:
    """A ``Front`` that asks, and looks after the model at every minute."""

    def __init__(self, world: World, serving: Serving, control: Control, k: int, hours: int) -> None:
        self.serving, self.control = serving, control
        self.shown: Floats = np.zeros(hours)
        self.clicked: Floats = np.zeros(hours)
        # When outcomes were served, of slots that were seen: what a step took is counted in them.
        self.seen_ms: list[int] = []
        self._world, self._k = world, k
        self._numbers = count()
        self._look_at = 0
        for row in range(len(world.catalogue)):
            entry = world.catalogue.entry(row)
            serving.memory.offer(entry.item_id, entry.published_at_ms)

    def page(self, visit: Visit, ask: Ask, now_s: float) -> Page:
        """Ask for a page."""
        self._pass(now_s)
        user_id, session_id = _ids(visit)
        request_id = f"{session_id}-{ask.number}"
        items = self.serving.recommend(user_id, self._k, request_id, session_id, at_ms(now_s))
        self.shown[int(now_s // 3600)] += len(items)
        return Page(items, request_id)

    def did(self, visit: Visit, deed: Deed, now_s: float) -> None:
        """Log an event."""
        user_id, session_id = _ids(visit)
        if deed.type == "click" and deed.request_id:
            self.clicked[int(now_s // 3600)] += 1
        event = build.interaction(
            user_id,
            deed.item_id,
            deed.type,
            occurred_at=at_ms(now_s - deed.ago_s),
            event_id=str(next(self._numbers)),
            session_id=session_id,
            request_id=deed.request_id,
            value=deed.value,
        )
        self.serving.take(event, at_ms(now_s))

    def changed(self, change: Change) -> None:
        """An item went, another came."""
        self.serving.memory.withdraw(change.gone.item_id)
        self.serving.memory.offer(change.came.item_id, change.came.published_at_ms)

    def _pass(self, now_s: float) -> None:
        """Let the minutes go by that have."""
        now_ms = at_ms(now_s)
        if now_ms < self._look_at:
            return
        self._look_at = now_ms - now_ms % MINUTE_MS + MINUTE_MS
        outcomes, self.serving.outcomes = self.serving.outcomes, []
        for outcome in outcomes:
            self.seen_ms += [outcome.impression.served_at_ms] * sum(one.label in _SEEN for one in outcome.slots)
        self.control.take(outcomes, now_ms)
        self.control.look(now_ms)


def at_ms(now_s: float) -> int:
    """A moment of the world, Unix milliseconds."""
    return EPOCH_MS + int(now_s * 1000)


def _ids(visit: Visit) -> tuple[str, str]:
    return f"shopper-{visit.shopper:06d}", f"{visit.shopper}-{visit.number}"


def settings_of(course: Course) -> Settings:
    """Production's, but for what a world of days asks for."""
    settings = Settings()
    settings.retrain = RetrainSettings(challenged_share=0.5, interval_hours=0)
    settings.training = TrainingSettings(window_ms=(course.watched_on - course.known_on) * DAY_MS)
    return settings


def run(seed: int, course: Course = COURSE) -> Mapping[str, Went]:
    """A world, once for each of ``WAYS``."""
    with tempfile.TemporaryDirectory() as folder:
        kind = replace(course.kind, plan=DaysPlan(course.days, course.kind.plan.sessions_per_day))
        world, settings = make_month_world(seed, kind), settings_of(course)
        items_max = round(kind.items * (1 + 2 * course.days * DAY_S / kind.lifetime_s)) + 1_000
        serving = Serving(settings, items_max, np.random.default_rng(seed), learns=True)
        control = Control(settings, serving, Path(folder), acts=False)
        shop = Shop(world, serving, control, kind.k, course.days * 24)
        control.begin(EPOCH_MS)
        days = Days(world, shop, kind.plan).run()
        for day in days:
            if day + 1 == course.watched_on:
                control.retrain_now(at_ms((day + 1) * DAY_S))
            if day + 1 == course.flip_on:
                break
        world.people.shift()
        control.note_champion(at_ms(course.flip_on * DAY_S))
        settings.training = TrainingSettings()

        def go_on(way: Way) -> Went:
            control.folder = Path(folder) / f"{way.learns}-{way.retrains}"
            control.folder.mkdir()
            serving.learns = way.learns
            control.acts = way.retrains
            for _ in days:
                pass
            return _went(shop, course)

        return {name: _in_a_child(partial(go_on, way)) for name, way in WAYS.items()}


def _went(shop: Shop, course: Course) -> Went:
    flip_ms, control = at_ms(course.flip_on * DAY_S), shop.control
    went = Went(shop.shown, shop.clicked)
    heard = [at for at, signal in control.heard if signal.channel == PERFORMANCE]
    went.early = sum(at < flip_ms for at in heard)
    moments = {"signal": [at for at in heard if at >= flip_ms]}
    since = [event for event in control.events if event.at_ms >= flip_ms]
    for name, kind in STEPS.items():
        moments[name] = [event.at_ms for event in since if event.type == kind]
    seen = np.array(shop.seen_ms)
    for name, times in moments.items():
        if times:
            outcomes = int(((seen >= flip_ms) & (seen < times[0])).sum())
            went.steps[name] = (times[0] - flip_ms) / HOUR_MS, outcomes
    went.ends = [f"{Kind.Name(event.type).rpartition('TYPE_')[2].lower()}: {event.reason}" for event in since]
    return went


def _in_a_child(work: Callable[[], T]) -> T:
    """What ``work`` gives in a copy of this process, which goes on from the same state."""
    context = get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=lambda: theirs.send(work()))
    child.start()
    theirs.close()
    try:
        given: T = ours.recv()
    except EOFError as error:
        raise RuntimeError("the copy of this process ended without a result") from error
    finally:
        child.join()
    return given
