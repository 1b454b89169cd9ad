"""Ask the learner to learn what is in its buffer now, and wait for the update that says so."""

from __future__ import annotations

from millrace.errors import MillraceError
from millrace.registry.asking import exchange
from millrace.settings import KafkaSettings, StreamSettings
from millrace.stream.worker import Record
from millrace.topics import MODEL_UPDATES
from millrace.v1.command_pb2 import Command
from millrace.v1.model_pb2 import ModelUpdate, ParameterUpdate


def ask_update(
    kafka: KafkaSettings, stream: StreamSettings, model_name: str, command: Command, timeout_s: float
) -> ParameterUpdate:
    """Send a command to learn now, again every second, until an update on ``model-updates`` answers it.

    Returns
    -------
    That update; it changes no parameter where the buffer was empty.

    Raises
    ------
    MillraceError
        No answer in ``timeout_s`` seconds.
    InvalidField, InfrastructureError
        As in :func:`millrace.registry.asking.send`.
    """

    def answering(record: Record) -> ParameterUpdate | None:
        message = record.message
        if isinstance(message, ModelUpdate) and command.command_id in message.update.command_ids:
            return message.update
        return None

    update = exchange(kafka, stream, model_name, command, [MODEL_UPDATES], answering, timeout_s)
    if update is None:
        raise MillraceError(
            f"no answer from the learner of model {model_name!r} within {timeout_s:g} s; is it running "
            "(python -m workers.online_learner), and for this model (ONLINE_LEARNING_MODEL_NAME)?"
        )
    return update
