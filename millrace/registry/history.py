"""What happened to each version, event by event: the ledger's fold, and what it was folded from."""

from __future__ import annotations

from dataclasses import dataclass, field

from millrace.registry.journal import read_ledger
from millrace.registry.ledger import Ledger
from millrace.stream.reader import TopicReader
from millrace.v1.model_pb2 import ModelEvent, ModelEventType


@dataclass(slots=True)
class History(Ledger):
    """A ledger that keeps the events, without checkpoints, in their order."""

    events: list[ModelEvent] = field(default_factory=list)

    def apply(self, event: ModelEvent) -> None:
        """Take the next event of the topic; those of other models and those taken before change nothing."""
        new = event.model_name == self.model_name and not self.took(event.event_id)
        Ledger.apply(self, event)
        if new and event.type != ModelEventType.MODEL_EVENT_TYPE_CHECKPOINTED:
            self.events.append(event)

    def of(self, version: str) -> list[ModelEvent]:
        """Events about a version, the oldest first; refused commands change nothing and are left out."""
        refused = ModelEventType.MODEL_EVENT_TYPE_COMMAND_REFUSED
        return [event for event in self.events if event.model_version == version and event.type != refused]


def read_history(model_name: str, reader: TopicReader, timeout_s: float) -> History:
    """The history of everything that stood in ``model-events``. Raises InfrastructureError as ``read_ledger``."""
    history = History(model_name)
    read_ledger(model_name, reader, timeout_s, history)
    return history
