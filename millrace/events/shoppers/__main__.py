"""Sends generated shoppers to the broker until SIGTERM."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterable, Iterator

import click
import structlog

from millrace.client import DeliveryFailed, EventProducer
from millrace.events import build
from millrace.events.shoppers.catalogue import Catalogue
from millrace.events.shoppers.sessions import Action, actions
from millrace.settings import settings
from millrace.stream import logs
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.item_pb2 import Item

RETRY_S = 1.0
"""Pause after the broker did not take something."""
DELIVERY_TIMEOUT_S = 10.0

log = structlog.get_logger()


@click.command()
@click.option("--rate", default=20.0, show_default=True, type=click.FloatRange(min=0, min_open=True), help="Events/s.")
@click.option("--items", default=1_000, show_default=True, type=click.IntRange(min=1), help="Size of the catalogue.")
@click.option(
    "--users", default=2_000, show_default=True, type=click.IntRange(min=1), help="How many people there are."
)
@click.option("--seed", default=1, show_default=True, help="The same seed: the same catalogue and the same choices.")
@click.option("--duration", type=click.FloatRange(min=0), help="Seconds; default: until SIGTERM or Ctrl-C.")
def main(rate: float, items: int, users: int, seed: int, duration: float | None) -> None:
    """Shoppers who look at things, click, and sometimes buy, at a rate that waits for nobody (open loop)."""
    logs.configure(settings().observability, "shoppers")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    catalogue = Catalogue(items, seed)
    # Lost events are counted and logged: shoppers go on when the broker is away, as people would.
    events = EventProducer(settings().kafka, delivery_timeout_s=DELIVERY_TIMEOUT_S)
    publish_catalogue([product.item() for product in catalogue.products], events, stop)
    log.info("shoppers come", rate=rate, items=items, users=users, seed=seed)
    sent = lost = 0
    for event in _in_time(actions(catalogue, rate, users, seed), duration, stop):
        try:
            events.send(event)
            sent += 1
        except DeliveryFailed as error:
            lost += 1 + len(error.undelivered)
            log.warning("events lost", lost=lost, reason=str(error))
            stop.wait(RETRY_S)
    try:
        events.close()
    except DeliveryFailed as error:
        lost += len(error.undelivered)
        log.warning("events lost", lost=lost, reason=str(error))
    log.info("shoppers left", sent=sent, lost=lost)


def publish_catalogue(items: Iterable[Item], events: EventProducer, stop: threading.Event) -> None:
    """Publish all entries, again and again until the broker has them."""
    items = list(items)
    while not stop.is_set():
        try:
            for item in items:
                events.send(item)
            events.flush()
        except DeliveryFailed as error:
            log.warning("the catalogue waits for the broker", reason=str(error))
            stop.wait(RETRY_S)
        else:
            return


def _in_time(doings: Iterator[Action], duration: float | None, stop: threading.Event) -> Iterator[Interaction]:
    """Each action as an event when its moment has come; late ones at once, so that the rate holds."""
    began = time.monotonic()
    for action in doings:
        if duration is not None and action.at_s > duration:
            stop.wait(began + duration - time.monotonic())
            return
        wait_s = began + action.at_s - time.monotonic()
        if wait_s > 0:
            stop.wait(wait_s)
        if stop.is_set():
            return
        yield build.interaction(
            action.user_id, action.item_id, action.type, value=action.value, session_id=action.session_id
        )


if __name__ == "__main__":
    main()
