"""What the learner follows beside outcomes: whose reign it is, commands to learn now, checkpoints that are compared."""

from __future__ import annotations

from millrace.errors import InfrastructureError
from millrace.registry.journal import read_into, read_ledger
from millrace.registry.ledger import Ledger
from millrace.settings import KafkaSettings, StreamSettings
from millrace.stream.fenced import TIMEOUT_S
from millrace.stream.reader import TopicReader
from millrace.topics import COMMANDS, EXPERIMENTS, MODEL_EVENTS
from millrace.v1.command_pb2 import Command
from millrace.v1.experiment_pb2 import Experiment, ExperimentState
from millrace.v1.model_pb2 import ModelEvent

# A look costs 10 µs; a rollback is noticed this soon.
_LOOK_S = 0.05
# Commands are sent again until they are answered: those already answered are remembered.
_ANSWERED_MAX = 1_000


class Following:
    """Reads ``model-events``, ``commands`` and ``experiments`` for one model, from the learner's own thread."""

    def __init__(self, kafka: KafkaSettings, stream: StreamSettings, model_name: str) -> None:
        self._kafka, self._stream, self._model_name = kafka, stream, model_name
        self._ledger = Ledger(model_name)
        self._events: TopicReader | None = None
        self._commands: TopicReader | None = None
        self._experiments: TopicReader | None = None
        # Experiment -> checkpoints that its arms stand still at, while it runs.
        self._compared: dict[str, list[str]] = {}
        self._look_at = 0.0
        self._asked: list[str] = []
        self._answered: dict[str, None] = {}

    def open(self) -> None:
        """Read all events. Raises InfrastructureError."""
        self.close()
        self._events = TopicReader(self._kafka, [MODEL_EVENTS], "beginning", self._stream)
        self._ledger = read_ledger(self._model_name, self._events, TIMEOUT_S)
        self._commands = TopicReader(self._kafka, [COMMANDS], "end", self._stream)
        self._compared = {}
        self._experiments = TopicReader(self._kafka, [EXPERIMENTS], "beginning", self._stream)

    def close(self) -> None:
        """Let go."""
        for reader in (self._events, self._commands, self._experiments):
            if reader is not None:
                reader.close()
        self._events = self._commands = self._experiments = None

    def poll(self, now: float) -> None:
        """Look for news (``now``: monotonic time, seconds)."""
        if self._events is None or self._commands is None or self._experiments is None or now < self._look_at:
            return
        self._look_at = now + _LOOK_S
        read_into(self._ledger, self._events)
        for record in self._commands.poll(timeout_s=0):
            command = record.message
            if isinstance(command, Command) and command.WhichOneof("action") == "trigger_update":
                asked = command.command_id
                if command.trigger_update.model_name == self._model_name and asked not in self._answered:
                    self._asked.append(asked)
        for record in self._experiments.poll(timeout_s=0):
            if isinstance(record.message, Experiment):
                self._compare(record.message)

    @property
    def ledger(self) -> Ledger:
        """What has happened to the model, as far as it was read."""
        return self._ledger

    @property
    def compared(self) -> list[str]:
        """Checkpoints at which arms of running experiments stand still: MLflow has to keep them."""
        return sorted({name for names in self._compared.values() for name in names})

    def _compare(self, experiment: Experiment) -> None:
        definition = experiment.definition
        self._compared.pop(definition.experiment_id, None)
        if experiment.state == ExperimentState.EXPERIMENT_STATE_RUNNING and definition.model_name == self._model_name:
            names = [arm.settings["checkpoint"] for arm in definition.arms if "checkpoint" in arm.settings]
            self._compared[definition.experiment_id] = names

    def reign(self) -> ModelEvent:
        """The promotion or rollback that made the champion. Raises InfrastructureError if there is none yet."""
        if self._ledger.reign is None:
            raise InfrastructureError("registry", f"model {self._model_name!r} has no champion yet")
        return self._ledger.reign

    def triggers(self) -> list[str]:
        """Ids of the commands to learn now that came since the last call."""
        asked, self._asked = list(dict.fromkeys(self._asked)), []
        self._answered.update(dict.fromkeys(asked))
        while len(self._answered) > _ANSWERED_MAX:
            del self._answered[next(iter(self._answered))]
        return asked
