"""The contracts of other releases: the messages that an older process writes, and those that a newer one will."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import Message

from millrace.topics import ALL
from millrace.v1 import recommendation_service_pb2

OLD = Path(__file__).parent / "data" / "contracts-372a108.binpb"
"""Those of the first commit that had any."""

NEW_FIELD, NEW_TEXT = "from_the_future", "of a later release"
_NEW_NUMBER = 1_000
NEW_VALUE = 99
"""A value that each enum of a later release has, and today's does not."""

Contract = Mapping[str, type[Message]]
"""Message classes by full name."""


@cache
def old_contract() -> Contract:
    """What a process of the first release reads and writes."""
    return _classes(FileDescriptorSet.FromString(OLD.read_bytes()).file)


@cache
def new_contract() -> Contract:
    """What a process of a later release may read and write: each message has a field more, each enum a value."""
    files = [
        _proto(file)
        for file in _in_order(
            [topic.message.DESCRIPTOR.file for topic in ALL] + [recommendation_service_pb2.DESCRIPTOR]
        )
    ]
    for file in files:
        for message in file.message_type:
            _extend(message)
        for enum in file.enum_type:
            _extend_enum(enum)
    return _classes(files)


def written_by(contract: Contract, message: Message, known: bool = True) -> bytes:
    """The message as a process of another release writes it.

    Parameters
    ----------
    known
        False: with every enum that is set at the value that today's release does not know.
    """
    other = contract[message.DESCRIPTOR.full_name].FromString(message.SerializeToString())
    # What today's message says and an old process does not know, it does not write.
    other.DiscardUnknownFields()
    _fill(other, known)
    return other.SerializeToString()


def by_any_release(message: Message, chance: random.Random) -> bytes:
    """The message as a process of the first release, of this or of a later one writes it."""
    contract = chance.choice((old_contract(), None, new_contract()))
    return message.SerializeToString() if contract is None else written_by(contract, message)


def _fill(message: Message, known: bool) -> None:
    for field, value in message.ListFields():
        several = value if field.is_repeated else [value]
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for one in several:
                _fill(one, known)
        elif field.enum_type is not None and not known:
            if field.is_repeated:
                value[:] = [NEW_VALUE] * len(several)
            else:
                setattr(message, field.name, NEW_VALUE)
    if NEW_FIELD in message.DESCRIPTOR.fields_by_name:
        setattr(message, NEW_FIELD, NEW_TEXT)


def every_field(kind: type[Message]) -> Message:
    """A message in which everything is set that can be set at once, all enums at their last value."""
    message = kind()
    _set_all(message)
    return message


def _set_all(message: Message) -> None:
    for field in message.DESCRIPTOR.fields:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            getattr(message, field.name)["name"] = _value(field.message_type.fields_by_name["value"])
        elif field.message_type is not None:
            child = getattr(message, field.name)
            inner = child.add() if field.is_repeated else child
            inner.SetInParent()
            _set_all(inner)
        elif field.is_repeated:
            getattr(message, field.name).append(_value(field))
        else:
            setattr(message, field.name, _value(field))


def _value(field: Any) -> object:
    if field.enum_type is not None:
        return field.enum_type.values[-1].number
    return _VALUES.get(field.type, 7)


_VALUES: Mapping[int, object] = {
    FieldDescriptor.TYPE_STRING: "text",
    FieldDescriptor.TYPE_BYTES: b"bytes",
    FieldDescriptor.TYPE_BOOL: True,
}


def _classes(files: Iterable[FileDescriptorProto]) -> Contract:
    pool = descriptor_pool.DescriptorPool()
    for file in files:
        pool.Add(file)
    return message_factory.GetMessageClassesForFiles([file.name for file in files], pool)


def _in_order(files: Iterable[Any]) -> list[Any]:
    """Files with everything that they import, which comes before them."""
    found: dict[str, Any] = {}

    def add(file: Any) -> None:
        for needed in file.dependencies:
            add(needed)
        found.setdefault(file.name, file)

    for file in files:
        add(file)
    return list(found.values())


def _proto(file: Any) -> FileDescriptorProto:
    proto = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(proto)
    return proto


def _extend(message: DescriptorProto) -> None:
    if message.options.map_entry:
        return
    field = message.field.add(name=NEW_FIELD, number=_NEW_NUMBER, json_name=NEW_FIELD)
    field.type, field.label = field.TYPE_STRING, field.LABEL_OPTIONAL
    for inner in message.nested_type:
        _extend(inner)
    for enum in message.enum_type:
        _extend_enum(enum)


def _extend_enum(enum: EnumDescriptorProto) -> None:
    enum.value.add(name=f"{enum.name.upper()}_OF_A_LATER_RELEASE", number=NEW_VALUE)
