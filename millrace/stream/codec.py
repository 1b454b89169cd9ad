"""Values on the topics: protobuf bytes, with a ``schema`` header that names the message."""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from millrace.errors import InvalidField
from millrace.stream.worker import Headers

SCHEMA_HEADER = "schema"

M = TypeVar("M", bound=Message)


def encode(message: Message) -> tuple[bytes, list[tuple[str, bytes]]]:
    """The value and the headers of a record that carries the message."""
    return message.SerializeToString(), [(SCHEMA_HEADER, message.DESCRIPTOR.full_name.encode())]


def decode(value: bytes, headers: Headers, message: type[M], max_bytes: int) -> M:
    """The message in a record's value.

    Raises
    ------
    InvalidField
        The value is empty or too large, another message, or no protobuf of this message.
    """
    if not value:
        raise InvalidField("value", "empty", f"a {message.DESCRIPTOR.full_name}")
    if len(value) > max_bytes:
        raise InvalidField("value", f"{len(value)} bytes", f"at most {max_bytes} bytes")
    for name, schema in headers:
        if name == SCHEMA_HEADER:
            if schema != message.DESCRIPTOR.full_name.encode():
                raise InvalidField("header schema", repr(schema), message.DESCRIPTOR.full_name)
            break
    else:
        raise InvalidField("header schema", "missing", message.DESCRIPTOR.full_name)
    decoded = message()
    try:
        decoded.ParseFromString(value)
    except DecodeError as error:
        raise InvalidField("value", f"not protobuf ({error})", f"a {message.DESCRIPTOR.full_name}") from error
    return decoded
