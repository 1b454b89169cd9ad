"""The Faust app: commands and decisions in, a reconciliation every few seconds, dead letters out.

Who leads is who owns the one partition of ``commands``: so the process that gets a command is the one that acts
on it, and Faust needs no topic of its own (its leader topic could go to another process than the commands).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import faust
import structlog
from aiokafka.errors import KafkaError
from faust.types import TP

from millrace.errors import InfrastructureError, InvalidField
from millrace.events.rules import check_command
from millrace.registry.decisions import Decisions
from millrace.settings import Settings, home
from millrace.stream import metrics
from millrace.stream.backoff import Backoff
from millrace.stream.codec import decode
from millrace.stream.dead_letters import dead_letter_headers, is_for_others
from millrace.stream.worker import Record
from millrace.topics import COMMANDS
from millrace.v1.command_pb2 import Command
from workers.retrain_orchestrator import brokers
from workers.retrain_orchestrator.turns import BUFFERED_COMMANDS, BUFFERED_COMMANDS_MAX, NAME, Turns, in_thread

log = structlog.stdlib.get_logger(__name__)

# The group's rule of thumb: three heartbeats may get lost before a member counts as dead.
HEARTBEATS_PER_SESSION = 3


def build(settings: Settings, turns: Turns, decisions: Decisions) -> faust.App:
    """The app, ready to be started; every topic it needs must exist (Faust passes over missing ones in silence)."""
    session_s = settings.orchestrator.session_timeout_ms / 1_000
    interval_s = settings.orchestrator.reconcile_interval_ms / 1_000
    app = faust.App(
        f"{NAME}-{settings.orchestrator.model_name}",
        broker=brokers.urls(settings.kafka),
        broker_credentials=brokers.credentials(settings.kafka),
        broker_session_timeout=session_s,
        broker_heartbeat_interval=session_s / HEARTBEATS_PER_SESSION,
        store="memory://",
        datadir=home() / "faust",
        autodiscover=False,
        # Every topic is made by `millrace topics apply`; nothing of Faust's own is needed.
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        stream_wait_empty=False,
        stream_buffer_maxsize=settings.orchestrator.buffered_commands_max,
    )
    commands = app.topic(COMMANDS.name, key_serializer="raw", value_serializer="raw")
    dead_letters = app.topic(COMMANDS.dlq, key_serializer="raw", value_serializer="raw")
    max_bytes = settings.stream.max_value_bytes
    # Set when there is something to look at before the interval is over.
    due = asyncio.Event()
    model_name = settings.orchestrator.model_name
    metrics.DEAD_LETTERS.labels(NAME, COMMANDS.name)
    BUFFERED_COMMANDS_MAX.labels(model_name).set(settings.orchestrator.buffered_commands_max)

    def leads() -> bool:
        return TP(COMMANDS.name, 0) in app.consumer.assignment()

    @app.agent(commands)
    async def on_command(stream: Any) -> None:
        BUFFERED_COMMANDS.labels(model_name).set_function(stream.channel.queue.qsize)
        # Faust would acknowledge an event whatever becomes of it, also when it is stopped half-way (`finally`).
        events: AsyncIterator[Any] = stream.noack().events()
        async for event in events:
            record = as_record(event)
            if is_for_others(record.headers, NAME.encode()):
                event.ack()
                continue
            try:
                command = decode(record.value or b"", record.headers, Command, max_bytes)
                check_command(command)
                if not await turns.answer(command, leads):
                    continue
                due.set()  # the registry follows
            except InvalidField as error:
                await reject(record, error)
            except Exception as error:
                log.exception("a command met a defect of ours", offset=record.offset)
                await reject(record, error)
            event.ack()

    # Not `app.timer(on_leader=True)`: its first call comes an interval late, and the leader is another (see above).
    @app.task  # type: ignore[untyped-decorator]
    async def look_after() -> None:
        while not app.should_stop:
            due.clear()
            if leads():
                await turns.reconcile()
            else:
                await turns.stand_by()
            await app.wait(due.wait(), timeout=interval_s)

    @app.task  # type: ignore[untyped-decorator]
    async def act_on_decisions() -> None:
        # A winner is served, and a harmful arm gone, within a second of the decision: it is acted on as it comes.
        while not app.should_stop:
            await in_thread(decisions.wait, interval_s)
            if leads() and await turns.act_on_decisions():
                due.set()  # the registry follows

    def on_revoked(_app: Any, *_: Any, **__: Any) -> None:
        turns.over()

    def on_assigned(_app: Any, *_: Any, **__: Any) -> None:
        due.set()

    # The type that mode declares for a handler (both *args and a keyword) is one that mypy matches to no function.
    app.on_partitions_revoked.connect(on_revoked)  # type: ignore[arg-type]
    app.on_partitions_assigned.connect(on_assigned)  # type: ignore[arg-type]

    async def reject(record: Record, error: Exception) -> None:
        """Put the record where people look; it is not passed over until it stands there."""
        log.warning("dead letter", topic=record.topic, offset=record.offset, reason=str(error))
        headers = dead_letter_headers(record, error, NAME, attempts=1)
        backoff = Backoff(settings.stream.backoff_max_ms / 1_000)
        while True:
            try:
                await (await dead_letters.send(key=record.key, value=record.value, headers=headers))
                break
            except KafkaError as failure:
                turns.waits_for(str(InfrastructureError("kafka", f"{COMMANDS.dlq}: {failure!r}")))
                await app.sleep(backoff.next())
        metrics.DEAD_LETTERS.labels(NAME, COMMANDS.name).inc()

    return app


def as_record(event: Any) -> Record:
    """A Faust event in the runtime's words."""
    raw = event.message
    return Record(
        topic=raw.topic,
        partition=raw.partition,
        offset=raw.offset,
        key=raw.key,
        message=None,
        append_time_ms=round(raw.timestamp * 1_000),
        headers=list(raw.headers or ()),
        value=raw.value,
    )
