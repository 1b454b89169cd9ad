"""Fields of messages by the path that a person writes: what there is, what it may be compared with, what it holds."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from millrace.errors import InvalidField

Value = str | int | float | bool

_WHOLE = frozenset(
    {
        FieldDescriptor.CPPTYPE_INT32,
        FieldDescriptor.CPPTYPE_INT64,
        FieldDescriptor.CPPTYPE_UINT32,
        FieldDescriptor.CPPTYPE_UINT64,
    }
)
_FLOAT32 = struct.Struct("f")
_BOOLS = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Path:
    """A field of a message, or of a message in it.

    Attributes
    ----------
    text
        As it was written, for example ``slots.item_id``.
    steps
        Fields from the outermost to the one that is meant, each with the key if it is a map that is gone into.
    """

    text: str
    steps: Sequence[tuple[FieldDescriptor, str | None]]

    @property
    def last(self) -> FieldDescriptor:
        """The field that is meant; of a map that was gone into, its values."""
        field, key = self.steps[-1]
        return field if key is None else map_value(field)

    def values(self, message: Message) -> Iterator[Any]:
        """What the field holds: nothing where it is not set, several of a list or through one.

        A field without presence always holds something: what is not set there is 0 or empty.
        """
        return _values(message, self.steps)


def find_path(text: str, message: Descriptor) -> Path:
    """The field that is written as ``text``.

    Raises
    ------
    InvalidField
        There is none; the error names it and says which there are.
    """
    steps: list[tuple[FieldDescriptor, str | None]] = []
    within: Descriptor | None = message
    rest = text
    while rest:
        name, _, rest = rest.partition(".")
        field = None if within is None else within.fields_by_name.get(name)
        if field is None:
            raise _unknown(text, name, steps, within)
        if is_map(field) and rest:
            # All of the rest: keys are texts that may hold dots.
            return Path(text, (*steps, (field, rest)))
        steps.append((field, None))
        within = None if is_map(field) else field.message_type
    if not steps or text.endswith("."):
        raise InvalidField(text or "where", "no field", names(message))
    return Path(text, tuple(steps))


def is_map(field: FieldDescriptor) -> bool:
    """Whether a field is a map."""
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def map_value(field: FieldDescriptor) -> FieldDescriptor:
    """What a map holds under its keys."""
    return cast("Descriptor", field.message_type).fields_by_name["value"]


def enum_of(field: FieldDescriptor) -> EnumDescriptor:
    """The enum whose values a field takes."""
    return cast("EnumDescriptor", field.enum_type)


def names(message: Descriptor) -> str:
    """The fields of a message, for people."""
    return ", ".join(field.name for field in message.fields)


def short_names(kind: EnumDescriptor) -> dict[str, int]:
    """Names of an enum's values as the outside writes them (``add_to_cart``), with their numbers."""
    prefix = kind.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return {value.name.removeprefix(prefix).lower(): value.number for value in kind.values}


def reader_of(path: Path) -> Callable[[str], Value]:
    """What makes a value of this field out of its text; the function raises InvalidField."""
    field = path.last
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_MESSAGE:
        inside = (
            f"a key of it: {path.text}.KEY"
            if is_map(field)
            else f"its fields: {names(cast('Descriptor', field.message_type))}"
        )
        raise InvalidField(path.text, "has no value of its own", inside)
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return lambda text: _enum_value(path, text)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return lambda text: _of(path, "true or false", _BOOLS.__getitem__, text.lower())
    if kind in _WHOLE:
        return lambda text: _of(path, "a number", _number, text)
    if kind == FieldDescriptor.CPPTYPE_DOUBLE:
        return lambda text: _of(path, "a number", float, text)
    if kind == FieldDescriptor.CPPTYPE_FLOAT:
        return lambda text: _of(path, "a number", _float32, text)
    return str


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        # A bound may lie between two numbers: rank < 2.5.
        return float(text)


def _float32(text: str) -> float:
    """The value that a field of this type has when the same number was put in: 0.1 is another one in 32 bits."""
    try:
        return float(_FLOAT32.unpack(_FLOAT32.pack(float(text)))[0])
    except OverflowError as error:
        raise ValueError(text) from error


def _of(path: Path, what: str, read: Callable[[str], Value], text: str) -> Value:
    try:
        return read(text)
    except (KeyError, ValueError) as error:
        raise InvalidField(path.text, f"{text!r} is no value of it", what) from error


def _enum_value(path: Path, text: str) -> int:
    kind = enum_of(path.last)
    known = short_names(kind)
    named = known.get(text.lower())
    if named is None and text in kind.values_by_name:
        named = kind.values_by_name[text].number
    if named is None and text.isdecimal():
        # Newer writers may use a value whose name is not known here.
        named = int(text)
    if named is None:
        raise InvalidField(path.text, f"{text!r} is no value of it", ", ".join(known))
    return named


def _values(message: Message, steps: Sequence[tuple[FieldDescriptor, str | None]]) -> Iterator[Any]:
    (field, key), rest = steps[0], steps[1:]
    if field.has_presence and not message.HasField(field.name):
        return
    value = getattr(message, field.name)
    if key is not None:
        if key in value:
            yield value[key]
    elif is_map(field):
        yield from value
    elif not rest:
        if field.is_repeated:
            yield from value
        else:
            yield value
    elif field.is_repeated:
        for one in value:
            yield from _values(one, rest)
    else:
        yield from _values(value, rest)


def _unknown(
    text: str, name: str, steps: Sequence[tuple[FieldDescriptor, str | None]], within: Descriptor | None
) -> InvalidField:
    if within is None:
        last = steps[-1][0].name
        return InvalidField(text, f"{last} is a value and has no fields", last)
    return InvalidField(text, f"{within.name} has no field {name or 'without a name'}", names(within))
