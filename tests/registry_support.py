"""A ledger and a registry in memory, for tests of what is decided about versions."""

from __future__ import annotations

from collections.abc import Callable

from millrace.errors import InfrastructureError
from millrace.ranking.model import RankingModel
from millrace.registry.journal import Journal
from millrace.registry.ledger import Ledger
from millrace.registry.registry import Registry
from millrace.registry.view import RegisteredVersion, RegistryView
from millrace.settings import KafkaSettings, MlflowSettings, StreamSettings
from millrace.v1.model_pb2 import ModelEvent, ModelEventType

MODEL = "ranker"


class Effects:
    """What was done, in order; ``before`` is called ahead of each effect and may raise in its place."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.before: Callable[[str], None] = lambda effect: None

    def take(self, effect: str) -> None:
        self.before(effect)
        self.done.append(effect)


class MemoryJournal(Journal):
    """A topic in memory, which outlives the processes that write it."""

    def __init__(self, effects: Effects) -> None:
        super().__init__(KafkaSettings(), StreamSettings(), MODEL)
        self.effects = effects
        self.topic = Ledger(MODEL)

    def ledger(self) -> Ledger:
        return self.topic

    def append(self, event: ModelEvent) -> None:
        kind = ModelEventType.Name(event.type).removeprefix("MODEL_EVENT_TYPE_")
        self.effects.take(f"{kind} {event.model_version}")
        self.topic.apply(event)


class MemoryRegistry(Registry):
    """A registry in memory."""

    def __init__(self, effects: Effects) -> None:
        super().__init__(MlflowSettings())
        self.effects = effects
        self.held = RegistryView()
        self.away = False

    def view(self, name: str) -> RegistryView:
        if self.away:
            raise InfrastructureError("mlflow", "away")
        return self.held

    def log_version(self, name: str, model: RankingModel, step_id: str, reason: str) -> RegisteredVersion:
        version = str(len(self.held.versions) + 1)
        self.effects.take(f"stored {version}")
        made = RegisteredVersion(version, "run", "runs:/run/model", step_id, "00ff")
        self.held = RegistryView((*self.held.versions, made), self.held.aliases)
        return made

    def set_alias(self, name: str, alias: str, version: str) -> None:
        self.effects.take(f"{alias} {version}")
        self.held = RegistryView(self.held.versions, {**self.held.aliases, alias: version})

    def delete_alias(self, name: str, alias: str) -> None:
        self.effects.take(f"{alias} none")
        aliases = {one: version for one, version in self.held.aliases.items() if one != alias}
        self.held = RegistryView(self.held.versions, aliases)
