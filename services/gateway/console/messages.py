"""What a message of a topic says, in a line and by the names that people look for. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from millrace.enums import name_of
from millrace.v1.command_pb2 import Command
from millrace.v1.drift_pb2 import DriftChannel, DriftSignal
from millrace.v1.experiment_pb2 import Experiment, ExperimentState
from millrace.v1.impression_pb2 import AnswerStatus, Fallback, Impression
from millrace.v1.interaction_pb2 import Interaction, InteractionType
from millrace.v1.item_pb2 import Item, ItemState
from millrace.v1.model_pb2 import ModelEvent, ModelEventType, ModelUpdate
from millrace.v1.outcome_pb2 import Label, Outcome

# A snapshot of a model is as long as it likes; nobody reads on.
_SHOWN_MAX_CHARS = 40_000


@dataclass(frozen=True, slots=True)
class Gist:
    """A message in short.

    Attributes
    ----------
    user, items
        Whom and what it is about; empty where it is about none.
    kind
        Its type among messages of the topic, for example ``click``.
    text
        The rest, in a line.
    request_id
        The answer that it is, or belongs to; empty if it names none.
    """

    user: str = ""
    items: Sequence[str] = ()
    kind: str = ""
    text: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which messages of a topic are looked for; what is empty is not asked."""

    user: str = ""
    item: str = ""
    kind: str = ""

    def takes(self, gist: Gist) -> bool:
        """Whether a message is looked for."""
        return (
            (not self.user or gist.user == self.user)
            and (not self.item or self.item in gist.items)
            and (not self.kind or self.kind in gist.kind.split(", "))
        )


def word(kind: EnumDescriptor, value: int) -> str:
    """The name of an enum's value as the outside writes it, for example ``add to cart``."""
    return name_of(kind, value).replace("_", " ")


def gist(message: Message | None) -> Gist:
    """A message in short; None is a tombstone."""
    if message is None:
        return Gist(kind="deleted")
    if isinstance(message, Interaction):
        return _interaction(message)
    if isinstance(message, Impression):
        return _impression(message)
    if isinstance(message, Outcome):
        return _outcome(message)
    if isinstance(message, Item):
        return Gist(items=(message.item_id,), kind="catalogue entry", text=message.title)
    if isinstance(message, ItemState):
        clicks = message.counts.clicks
        return Gist(items=(message.item_id,), kind="state", text=f"version {message.version}, {clicks:,} clicks")
    if isinstance(message, ModelUpdate):
        return _update(message)
    if isinstance(message, ModelEvent):
        kind = word(ModelEventType.DESCRIPTOR, message.type)
        return Gist(kind=kind, text=f"{message.model_name} version {message.model_version or '–'}: {message.reason}")
    if isinstance(message, Command):
        action = (message.WhichOneof("action") or "nothing").replace("_", " ")
        return Gist(kind=action, text=f"by {message.issued_by or '–'}: {message.reason or 'no reason given'}")
    if isinstance(message, Experiment):
        users = sum(one.users for one in message.figures)
        kind = word(ExperimentState.DESCRIPTOR, message.state)
        return Gist(kind=kind, text=f"{message.definition.experiment_id}: {users:,} users")
    if isinstance(message, DriftSignal):
        names = ", ".join(one.name for one in message.evidence)
        return Gist(kind=word(DriftChannel.DESCRIPTOR, message.channel), text=f"{message.model_name}: {names}")
    return Gist(kind=message.DESCRIPTOR.name)


def _interaction(event: Interaction) -> Gist:
    kind = event.custom_type or word(InteractionType.DESCRIPTOR, event.type)
    told = [f"value {event.value:g}"] if event.HasField("value") else []
    told += [f"on {event.context.device}"] if event.context.device else []
    told += ["after an answer"] if event.request_id else []
    return Gist(event.user_id, (event.item_id,), kind, ", ".join(told), event.request_id)


def _impression(answer: Impression) -> Gist:
    told = [f"{len(answer.slots)} items in {answer.serve_micros / 1_000:.1f} ms"]
    told += [f"version {answer.model_version}"] if answer.model_version else []
    told += [f"arm {answer.arm}"] if answer.arm else []
    told += ["in random order"] if answer.shuffled else []
    if answer.fallback != Fallback.FALLBACK_NONE:
        told.append(f"fallback: {word(Fallback.DESCRIPTOR, answer.fallback)}")
    items = [slot.item_id for slot in answer.slots]
    return Gist(answer.user_id, items, word(AnswerStatus.DESCRIPTOR, answer.status), ", ".join(told), answer.request_id)


def _outcome(outcome: Outcome) -> Gist:
    labels = Counter(word(Label.DESCRIPTOR, one.label) for one in outcome.slots)
    return Gist(
        outcome.user_id,
        [one.slot.item_id for one in outcome.slots],
        ", ".join(labels),
        ", ".join(f"{count} {name}" for name, count in labels.items()) + (", final" if outcome.final else ""),
        outcome.request_id,
    )


def _update(record: ModelUpdate) -> Gist:
    if record.WhichOneof("kind") == "snapshot":
        one = record.snapshot
        text = f"{one.model_name} {one.epoch}.{one.sequence}, piece {one.chunk + 1} of {one.chunks}"
        return Gist(kind="snapshot", text=text)
    update = record.update
    moved = len(update.parameters.indices)
    text = f"{update.model_name} {update.epoch}.{update.sequence}: {moved} parameters, {update.buffer_slots} slots"
    return Gist(kind="update", text=text)


def written(message: Message) -> str:
    """A message as indented JSON by the contract's names, lists of numbers in a line; cut where it is very long."""
    text = "\n".join(_lines(MessageToDict(message, preserving_proto_field_name=True), ""))
    return text if len(text) <= _SHOWN_MAX_CHARS else f"{text[:_SHOWN_MAX_CHARS]}\n… cut here"


def _lines(value: Any, indent: str) -> list[str]:
    deeper = indent + "  "
    if isinstance(value, Mapping) and value:
        parts = [
            f"{deeper}{json.dumps(str(name), ensure_ascii=False)}: {_joined(one, deeper)}"
            for name, one in value.items()
        ]
        return ["{", ",\n".join(parts), f"{indent}}}"]
    if isinstance(value, list) and any(isinstance(one, (dict, list)) for one in value):
        return ["[", ",\n".join(f"{deeper}{_joined(one, deeper)}" for one in value), f"{indent}]"]
    return [json.dumps(value, ensure_ascii=False)]


def _joined(value: Any, indent: str) -> str:
    return "\n".join(_lines(value, indent))
