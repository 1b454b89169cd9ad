"""Messages and records as plain values, with the contract's names."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from millrace.inspection.fields import enum_of, is_map, map_value, short_names


def plain(message: Message) -> dict[str, Any]:
    """The fields that are set, in the contract's order, as JSON takes them.

    Numbers stay numbers (int64 too), but for those that JSON has no word for; enums go by their short names, bytes as
    base64.
    """
    return {field.name: _plain_field(field, value) for field, value in message.ListFields()}


def _plain_field(field: FieldDescriptor, value: Any) -> Any:
    if is_map(field):
        convert = _converter(map_value(field))
        return {str(key): convert(value[key]) for key in sorted(value)}
    convert = _converter(field)
    return [convert(one) for one in value] if field.is_repeated else convert(value)


def _converter(field: FieldDescriptor) -> Callable[[Any], Any]:
    if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
        return plain
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        words = {number: name for name, number in short_names(enum_of(field)).items()}
        return lambda value: words.get(value, str(value))
    if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT:
        # A float32 has seven digits; as a double it would show seventeen, of which ten are chance.
        return lambda value: float(f"{value:.7g}") if math.isfinite(value) else str(value)
    if field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE:
        return lambda value: value if math.isfinite(value) else str(value)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return lambda value: base64.b64encode(value).decode()
    return lambda value: value


def readable(value: bytes | None) -> str | None:
    """Bytes for people: text where they are text, else ``base64:…``."""
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(value).decode()


def headers_plain(headers: Mapping[str, bytes]) -> dict[str, str | None]:
    """Headers for people."""
    return {name: readable(value) for name, value in headers.items()}
