"""Ask the tracker for something, read the records that it writes, and recompute them from the log."""

from __future__ import annotations

import time

from millrace.errors import InfrastructureError, MillraceError
from millrace.experiments.life import target
from millrace.experiments.recount import Recount, counted_anew
from millrace.registry.asking import Refused, exchange
from millrace.settings import DAY_MS, KafkaSettings, StreamSettings
from millrace.stream.dead_letters import PREFIX
from millrace.stream.reader import TopicReader
from millrace.stream.worker import Record
from millrace.topics import COMMANDS, EXPERIMENTS, OUTCOMES, Topic
from millrace.v1.command_pb2 import Command
from millrace.v1.experiment_pb2 import Experiment
from millrace.v1.outcome_pb2 import Outcome

# What was refused stands there with the reason.
REFUSALS = Topic(COMMANDS.dlq, Command, COMMANDS.key)


def ask_tracker(kafka: KafkaSettings, stream: StreamSettings, command: Command, timeout_s: float) -> Experiment:
    """Send a command about an experiment, again every second, until the tracker has accepted or refused it.

    Returns
    -------
    The record that the command led to.

    Raises
    ------
    Refused
        With the tracker's reason.
    MillraceError
        No answer in ``timeout_s`` seconds.
    InvalidField, InfrastructureError
        As in :func:`millrace.registry.asking.send`.
    """

    def answering(record: Record) -> Record | None:
        message = record.message
        if isinstance(message, Experiment):
            return record if command.command_id in message.accepted_command_ids else None
        return record if isinstance(message, Command) and message.command_id == command.command_id else None

    topics = [EXPERIMENTS, REFUSALS]
    answer = exchange(kafka, stream, target(command), command, topics, answering, timeout_s)
    if answer is None:
        raise MillraceError(
            f"no answer from the experiment tracker within {timeout_s:g} s; is it running "
            "(python -m workers.experiment_tracker)?"
        )
    if isinstance(answer.message, Experiment):
        return answer.message
    raise Refused(dict(answer.headers).get(f"{PREFIX}reason", b"no reason given").decode())


def read_experiments(kafka: KafkaSettings, stream: StreamSettings, timeout_s: float) -> dict[str, Experiment]:
    """The record of every experiment, by id. Raises InfrastructureError."""
    found: dict[str, Experiment] = {}
    give_up = time.monotonic() + timeout_s
    with TopicReader(kafka, [EXPERIMENTS], "beginning", stream) as reader:
        while not reader.caught_up:
            in_time(give_up, EXPERIMENTS, timeout_s)
            for record in reader.poll():
                if isinstance(record.message, Experiment):
                    found[record.message.definition.experiment_id] = record.message
    return found


def recount(kafka: KafkaSettings, stream: StreamSettings, experiment: Experiment, timeout_s: float) -> Experiment:
    """The record with users, answers, clicks and all sums counted anew from ``outcomes``, to the positions in it.

    So is what was known when each period of Thompson sampling began. Purchases are left as they stand: they come from
    another topic.

    Raises
    ------
    MillraceError
        The topic does not hold all of it any more.
    InfrastructureError
        The broker did not deliver in time.
    """
    if time.time() * 1_000 - experiment.started_at_ms > OUTCOMES.retention_ms:
        days = OUTCOMES.retention_ms / DAY_MS
        raise MillraceError(f"{OUTCOMES.name} is kept for {days:g} days, and the experiment started before that")
    last = {at.partition: at.offset for at in experiment.included if at.topic == OUTCOMES.name}
    counts = {number: Recount(experiment, number) for number in sorted(last)}
    missing = set(last)
    give_up = time.monotonic() + timeout_s
    with TopicReader(kafka, [OUTCOMES], experiment.started_at_ms, stream, partitions=last) as reader:
        while missing and not reader.caught_up:
            in_time(give_up, OUTCOMES, timeout_s)
            for record in reader.poll(5_000):
                number, outcome = record.partition, record.message
                if record.offset >= last[number]:
                    missing.discard(number)
                if record.offset <= last[number] and isinstance(outcome, Outcome):
                    counts[number].take(outcome, record.offset, record.append_time_ms)
    return counted_anew(experiment, list(counts.values()))


def in_time(give_up: float, topic: Topic, timeout_s: float) -> None:
    """Go on reading a topic until ``give_up`` (monotonic seconds). Raises InfrastructureError."""
    if time.monotonic() > give_up:
        problem = f"{topic.name} could not be read within {timeout_s:g} s"
        raise InfrastructureError("kafka", f"{problem}; is it up (`millrace doctor`)?")
