"""``python -m workers.retrain_orchestrator``: runs until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Sequence

import click
import structlog

from millrace.errors import InfrastructureError
from millrace.registry.asking import CommandSender
from millrace.registry.controller import Controller
from millrace.registry.decisions import Decisions
from millrace.registry.drift_signals import HoldingSignals
from millrace.registry.journal import Journal
from millrace.registry.registry import Registry
from millrace.settings import Settings, settings
from millrace.stream import logs
from millrace.stream.admin import topic_ids
from millrace.stream.backoff import Backoff
from millrace.stream.http import serve_health
from millrace.stream.shutdown import Shutdown
from millrace.stream.window import find_ends
from millrace.topics import COMMANDS, MODEL_EVENTS, OUTCOMES
from workers.retrain_orchestrator.app import build
from workers.retrain_orchestrator.contest import Surroundings
from workers.retrain_orchestrator.retrainer import TRAIN, Retrainer
from workers.retrain_orchestrator.turns import NAME, Turns, in_thread

log = structlog.stdlib.get_logger(__name__)

# A broker that is there takes a command in milliseconds; one that is not is tried again at the next look.
SEND_TIMEOUT_S = 5.0


@click.command()
def main() -> None:
    """Look after a model: versions, aliases, commands, decisions of experiments, retraining for drift and by time."""
    sys.exit(serve(settings()))


def serve(values: Settings, train: Sequence[str] = TRAIN) -> int:
    """Serve until a signal comes; the exit status. ``train``: how the interpreter starts a training job."""
    logs.configure(values.observability, NAME)
    quiet_libraries()
    return asyncio.run(run(values, train))


async def run(values: Settings, train: Sequence[str]) -> int:
    """See :func:`serve`."""
    model, kafka, stream = values.orchestrator.model_name, values.kafka, values.stream
    decisions, signals = Decisions(kafka, stream, model), HoldingSignals(kafka, stream, model)
    controller = Controller(
        model,
        Journal(kafka, stream, model),
        Registry(values.mlflow),
        experiments=decisions,
        cool_down_ms=values.orchestrator.cool_down_ms,
        signals=signals,
        retraining=values.retrain,
    )
    sender = CommandSender(kafka)
    surroundings = Surroundings(
        experiments=decisions,
        send=lambda key, command: sender.send(key, command, SEND_TIMEOUT_S),
        ends=lambda: find_ends(kafka, OUTCOMES),
    )
    cool_down_ms = values.orchestrator.cool_down_ms
    retrainer = Retrainer(values.retrain, controller, surroundings, signals, cool_down_ms, train)
    turns = Turns(controller, retrainer, values.orchestrator.reconcile_interval_ms / 1_000)
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    with (
        serve_health(values.observability, NAME, turns.readiness),
        Shutdown(lambda: _ask(loop, stop), values.stream.drain_timeout_ms / 1_000),
    ):
        waiting = asyncio.create_task(wait_for_topics(values, turns))
        if not await first(waiting, stop):
            return 0
        app = build(values, turns, decisions)
        starting = asyncio.create_task(app.start())
        if await first(starting, stop):
            await app.wait(stop.wait())  # returns early if Faust crashes
        await app.stop()
        return 1 if app.crashed else 0


def _ask(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Wakes the loop too: signal handlers run outside of it."""
    loop.call_soon_threadsafe(stop.set)


async def first(task: asyncio.Task[None], stop: asyncio.Event) -> bool:
    """Wait for the task, or for the signal to stop; whether the task came first (otherwise it is cancelled)."""
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if task.done():
        task.result()
        return True
    task.cancel()
    return False


async def wait_for_topics(values: Settings, turns: Turns) -> None:
    """Return when the topics are there: Faust passes over those that are missing when it starts."""
    backoff = Backoff(values.stream.backoff_max_ms / 1_000)
    while True:
        try:
            await in_thread(topic_ids, values.kafka, [COMMANDS.name, COMMANDS.dlq, MODEL_EVENTS.name])
            return
        except InfrastructureError as error:
            log.warning("waiting", problem=str(error))
            turns.waits_for(str(error))
            await asyncio.sleep(backoff.next())


def quiet_libraries() -> None:
    """Faust tells every step of its services; aiokafka and urllib3 every failed request while a server is away."""
    for name in ("faust", "mode", "aiokafka"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # its retries; the failure itself is ours to tell
    for name in ("aiokafka", "aiokafka.conn", "aiokafka.consumer.fetcher", "aiokafka.consumer.group_coordinator"):
        logging.getLogger(name).addFilter(logs.OncePerKind())


if __name__ == "__main__":
    main()
