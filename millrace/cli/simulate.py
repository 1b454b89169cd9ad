"""``millrace simulate``: a made-up shop with people in it, on the real recommender."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import itertools
import json
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

import click
import structlog

from millrace.cli._output import quiet_logs
from millrace.client import DeliveryFailed
from millrace.errors import MillraceError
from millrace.settings import settings

if TYPE_CHECKING:
    from millrace.client import EventProducer
    from millrace.simulation.arms import Arm
    from millrace.simulation.storefront import Plan, Storefront
    from millrace.simulation.world import World
    from millrace.stream.http import Readiness

log = structlog.stdlib.get_logger(__name__)

PROCESS = "simulate"
PROGRESS_S = 5.0
RETRY_S = 1.0
"""Pause before the catalogue is sent again."""
TRUTHS_S = 1.0
"""Time between two savings of the truth about arms of experiments."""
DELIVERY_TIMEOUT_S = 10.0
"""Events that the broker did not take by then are lost and counted; bounds what waits for it as well."""


@click.command()
@click.option(
    "--arm",
    "arm_texts",
    multiple=True,
    metavar="[NAME=]POLICY[@HOST:PORT][:SHARE]",
    help="A way to fill pages: recommended (asks a service), popular (the shop's most clicked items) or random. May be "
    "given again: shoppers are split by hash, and the others are compared with the first. [default: recommended]",
)
@click.option(
    "--rate", default=10.0, show_default=True, type=click.FloatRange(min=0, min_open=True), help="Pages per second."
)
@click.option("--duration", type=click.FloatRange(min=0, min_open=True), help="Seconds [default: until Ctrl-C].")
@click.option("--shoppers", default=2_000, show_default=True, type=click.IntRange(min=1), help="How many people.")
@click.option("--items", default=1_000, show_default=True, type=click.IntRange(min=1), help="Items on sale at a time.")
@click.option("-k", "--k", default=10, show_default=True, type=click.IntRange(1, 200), help="Slots of a page.")
@click.option("--seed", default=1, show_default=True, type=click.IntRange(min=0), help="Another seed: another world.")
@click.option(
    "--speed",
    default=1.0,
    show_default=True,
    type=click.FloatRange(min=1),
    help="The world's time runs so many times as fast, and began in the past; needs --duration.",
)
@click.option(
    "--shift-at",
    multiple=True,
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="All tastes change so long after the beginning; may be given again. SIGUSR1 does it at once.",
)
@click.option(
    "--warm-up",
    default=0.0,
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Leave what the first seconds bring out of the figures at the end [default: nothing].",
)
@click.option(
    "--sessions",
    default=20_000,
    show_default=True,
    type=click.IntRange(min=1),
    help="Most sessions under way; more are turned away and counted.",
)
@click.option("--headless", is_flag=True, help="Show nothing while it runs, but for its log; the figures at the end.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures at the end as JSON.")
def command(
    arm_texts: tuple[str, ...],
    rate: float,
    duration: float | None,
    shoppers: int,
    items: int,
    k: int,
    seed: int,
    speed: float,
    shift_at: tuple[float, ...],
    warm_up: float,
    sessions: int,
    headless: bool,
    as_json: bool,
) -> None:
    """Run a made-up shop: people look at what they are recommended, click, and sometimes buy.

    Tastes and needs are known to the simulation only; the recommender sees events. The same seed gives the same
    people and choices, so that arms differ by what they show only. Pages of popular and random ask nobody: their
    clicks go out without request_id, as from a shop without recommender. At the end: the true click-through (clicks
    per shown slot), conversion (purchases per session) and revenue of each arm, with 95 % intervals by shopper.
    SIGUSR2 has a third of the items sold out at once, and others come.

    \b
    millrace simulate --rate 20 --duration 60
    millrace simulate --arm recommended:0.8 --arm popular:0.1 --arm random:0.1
    millrace simulate --arm old=recommended@localhost:50051 --arm new=recommended@localhost:50052
    """
    for package in ("numpy", "prometheus_client"):
        if importlib.util.find_spec(package) is None:
            raise MillraceError(f"the package {package} is missing: pip install 'millrace[simulate]'")
    from millrace.cli._simulate_view import print_report, report
    from millrace.client import EventProducer
    from millrace.events.build import now_ms
    from millrace.simulation.arms import parse_arms
    from millrace.simulation.storefront import Plan
    from millrace.simulation.world import make_world
    from millrace.stream import logs

    if speed > 1 and duration is None:
        raise MillraceError(f"--speed {speed:g} needs --duration: how far in the past does it begin?")
    if duration is not None and warm_up >= duration:
        raise MillraceError(f"--warm-up {warm_up:g} leaves nothing of --duration {duration:g}")
    arms = parse_arms(arm_texts)
    if headless:
        logs.configure(settings().observability, PROCESS)
    else:
        quiet_logs()
    ago_s = (speed - 1) * (duration or 0.0)
    world = make_world(seed, items, shoppers, now_ms() - round(ago_s * 1000))
    plan = Plan(rate, k, speed, ago_s, sessions, shift_at, warm_up)
    show = None if headless or as_json else partial(click.echo, err=True)
    events = EventProducer(settings().kafka, delivery_timeout_s=DELIVERY_TIMEOUT_S)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        storefront, seconds = runner.run(_run(world, arms, events, plan, duration, show))
    said = report(storefront, seconds)
    if as_json:
        click.echo(json.dumps(said))
    else:
        print_report(said)


async def _run(
    world: World,
    arms: Sequence[Arm],
    events: EventProducer,
    plan: Plan,
    duration: float | None,
    show: Callable[[str], None] | None,
) -> tuple[Storefront, float]:
    """Open the shop until the time is over or a signal comes; the storefront and the seconds that it was open."""
    from prometheus_client import REGISTRY

    from millrace.client import AsyncRecommenderClient
    from millrace.simulation.metrics import StorefrontCollector
    from millrace.simulation.storefront import Storefront
    from millrace.stream.http import serve_health

    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as until_exit:
        recommenders = {
            arm.name: await until_exit.enter_async_context(AsyncRecommenderClient(arm.target or None))
            for arm in arms
            if arm.policy == "recommended"
        }
        storefront = Storefront(world, arms, recommenders, events, plan)
        loop.add_signal_handler(signal.SIGUSR1, storefront.shift)
        loop.add_signal_handler(signal.SIGUSR2, storefront.sell_out)
        collector = StorefrontCollector(storefront)
        REGISTRY.register(collector)
        until_exit.callback(REGISTRY.unregister, collector)
        opened = asyncio.Event()
        until_exit.enter_context(serve_health(settings().observability, PROCESS, partial(_readiness, opened)))
        seconds = 0.0
        if await _publish_catalogue(world, events, stop, show):
            opened.set()
            log.info("open", rate=plan.rate, arms=[arm.name for arm in arms], seed=world.seed)
            began = loop.time()
            if duration is not None:
                loop.call_later(duration, stop.set)
            beside = [asyncio.create_task(_keep(storefront))]
            if show:
                beside.append(asyncio.create_task(_show(storefront, show)))
            await storefront.run(stop)
            seconds = loop.time() - began
            for task in beside:
                task.cancel()
            storefront.truths.save()
    try:
        await asyncio.to_thread(events.close)
    except DeliveryFailed as error:
        storefront.traffic.lost += len(error.undelivered) or 1
        log.warning("events lost", reason=str(error))
    log.info("closed", events=storefront.traffic.events.total(), lost=storefront.traffic.lost)
    return storefront, seconds


def _readiness(opened: asyncio.Event) -> Readiness:
    from millrace.stream.http import Readiness

    return Readiness(opened.is_set(), [] if opened.is_set() else ["the broker has not taken the catalogue (kafka)"])


async def _publish_catalogue(
    world: World, events: EventProducer, stop: asyncio.Event, show: Callable[[str], None] | None
) -> bool:
    """Publish everything that is on sale, again and again until the broker has it; False if stopped before."""
    entries = world.catalogue.entries()

    def publish() -> None:
        for entry in entries:
            events.send(entry)
        events.flush()

    while not stop.is_set():
        try:
            await asyncio.to_thread(publish)
        except DeliveryFailed as error:
            log.warning("the catalogue waits for the broker", reason=str(error))
            if show:
                show(f"the catalogue waits for the broker: {error}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), RETRY_S)
        else:
            return True
    return False


async def _keep(storefront: Storefront) -> None:
    """Save the truth about arms of experiments, for who looks while it goes on."""
    while True:
        await asyncio.sleep(TRUTHS_S)
        storefront.truths.save()


async def _show(storefront: Storefront, show: Callable[[str], None]) -> None:
    """A line every few seconds."""
    from millrace.cli._simulate_view import Progress

    progress = Progress(storefront)
    began = time.monotonic()
    for number in itertools.count(1):
        await asyncio.sleep(began + number * PROGRESS_S - time.monotonic())
        show(progress.line(time.monotonic() - began))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop where it is installed: half of the CPU."""
    if importlib.util.find_spec("uvloop") is None:
        return asyncio.new_event_loop
    import uvloop

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
