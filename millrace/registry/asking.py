"""Ask the orchestrator for something and wait for its answer in ``model-events``."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from typing import TypeVar

from confluent_kafka import KafkaException, Producer

from millrace.errors import InfrastructureError, MillraceError
from millrace.events.rules import check_command
from millrace.registry.ledger import Ledger
from millrace.settings import KafkaSettings, StreamSettings
from millrace.stream import logs
from millrace.stream.clients import producer_config
from millrace.stream.codec import encode
from millrace.stream.reader import TopicReader
from millrace.stream.worker import Record
from millrace.topics import COMMANDS, MODEL_EVENTS, Topic
from millrace.v1.command_pb2 import Command
from millrace.v1.model_pb2 import ModelEvent, ModelEventType

SEND_AGAIN_S = 1.0
"""A command may get lost until its answer appears; the same id is acted on once."""

Answer = TypeVar("Answer")


class Refused(MillraceError):
    """The orchestrator refused a command; the message is its reason."""


def promote(model_name: str, version: str, issued_by: str, reason: str) -> Command:
    """A command that makes a version the champion."""
    command = new_command(issued_by, reason)
    command.promote.model_name, command.promote.model_version = model_name, version
    return command


def roll_back(model_name: str, version: str, issued_by: str, reason: str, checkpoint_id: str = "") -> Command:
    """A command that goes back to an earlier champion (empty version: the one before the present), or a checkpoint."""
    command = new_command(issued_by, reason)
    command.roll_back.model_name, command.roll_back.model_version = model_name, version
    command.roll_back.checkpoint_id = checkpoint_id
    return command


def retrain(model_name: str, issued_by: str, reason: str) -> Command:
    """A command that has a new version trained now."""
    command = new_command(issued_by, reason)
    command.retrain.model_name = model_name
    return command


def cancel_retrain(model_name: str, issued_by: str, reason: str) -> Command:
    """A command that ends the retraining under way, with its job or its experiment."""
    command = new_command(issued_by, reason)
    command.cancel_retrain.model_name = model_name
    return command


def trigger_update(model_name: str, issued_by: str, reason: str) -> Command:
    """A command that has the learner learn what is in its buffer now."""
    command = new_command(issued_by, reason)
    command.trigger_update.model_name = model_name
    return command


def send(kafka: KafkaSettings, model_name: str, command: Command, timeout_s: float) -> None:
    """Put a command into the topic, once.

    Raises
    ------
    InvalidField
        The command breaks a rule; nothing was sent.
    InfrastructureError
        The broker did not take it.
    """
    CommandSender(kafka).send(model_name, command, timeout_s)


def ask(
    kafka: KafkaSettings,
    stream: StreamSettings,
    model_name: str,
    command: Command,
    timeout_s: float,
    clock: Callable[[], float] = time.monotonic,
) -> ModelEvent:
    """Send a command, again every second, until the orchestrator has accepted or refused it.

    Returns
    -------
    The event that the command led to: a promotion, a rollback, the start or the end of a retraining.

    Raises
    ------
    Refused
        With the orchestrator's reason.
    MillraceError
        No answer in ``timeout_s`` seconds.
    InvalidField, InfrastructureError
        As in :func:`send`.
    """
    ledger = Ledger(model_name)

    def settled(record: Record) -> ModelEvent | None:
        if isinstance(record.message, ModelEvent):
            ledger.apply(record.message)
        return ledger.settled.get(command.command_id)

    answer = exchange(kafka, stream, model_name, command, [MODEL_EVENTS], settled, timeout_s, clock)
    if answer is None:
        raise MillraceError(
            f"no answer from the orchestrator of model {model_name!r} within {timeout_s:g} s; is it running "
            "(python -m workers.retrain_orchestrator), and for this model (MILLRACE_ORCHESTRATOR_MODEL_NAME)?"
        )
    if answer.type == ModelEventType.MODEL_EVENT_TYPE_COMMAND_REFUSED:
        raise Refused(answer.reason)
    return answer


def exchange(
    kafka: KafkaSettings,
    stream: StreamSettings,
    model_name: str,
    command: Command,
    topics: Sequence[Topic],
    answer: Callable[[Record], Answer | None],
    timeout_s: float,
    clock: Callable[[], float] = time.monotonic,
) -> Answer | None:
    """Send a command, again every second, until something that comes on some topics answers it.

    Parameters
    ----------
    model_name
        Key of the command: the target model, or experiment.
    topics
        Where the answer comes.
    answer
        Takes each record; returns the answer once it is there.

    Returns
    -------
    The answer; None if there is none in ``timeout_s`` seconds.

    Raises
    ------
    InvalidField, InfrastructureError
        As in :func:`send`.
    """
    give_up = clock() + timeout_s
    check_command(command)
    sender = CommandSender(kafka)
    with TopicReader(kafka, topics, "end", stream) as reader:
        while not reader.caught_up:
            reader.poll()
            if clock() > give_up:
                names = ", ".join(topic.name for topic in topics)
                problem = f"no answer from {kafka.bootstrap_servers} about {names} within {timeout_s:g} s"
                raise InfrastructureError("kafka", f"{problem}; is it up (`millrace doctor`)?")
        send_at = clock()
        while clock() < give_up:
            if clock() >= send_at:
                sender.send(model_name, command, give_up - clock())
                send_at = clock() + SEND_AGAIN_S
            for record in reader.poll(timeout_s=0.1):
                found = answer(record)
                if found is not None:
                    return found
    return None


class CommandSender:
    """Puts commands into the topic, each any number of times."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._where = kafka.bootstrap_servers
        self._producer = Producer(producer_config(kafka), logger=logs.kafka_logger())

    def send(self, key: str, command: Command, timeout_s: float) -> None:
        """Send a command and wait until the broker has it; errors as in :func:`send`.

        Parameters
        ----------
        key
            The target model, or experiment.
        """
        check_command(command)
        value, headers = encode(command)
        failed: list[str] = []
        try:
            self._producer.produce(
                COMMANDS.name,
                value,
                key.encode(),
                headers=[*headers],
                on_delivery=lambda error, _: failed.append(str(error)) if error else None,
            )
            waiting = self._producer.flush(max(timeout_s, 0.1))
        except KafkaException as error:
            raise InfrastructureError("kafka", f"the command could not be sent to {self._where} ({error})") from error
        if failed or waiting:
            reason = failed[0] if failed else f"no broker took it within {timeout_s:.0f} s"
            raise InfrastructureError("kafka", f"the command could not be sent to {self._where}: {reason}")


def new_command(issued_by: str, reason: str) -> Command:
    """A command with an id and a time of its own, and no action yet."""
    now_ms = time.time_ns() // 1_000_000
    return Command(command_id=str(uuid.uuid4()), issued_at_ms=now_ms, issued_by=issued_by, reason=reason)
