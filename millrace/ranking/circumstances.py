"""The circumstances of a request or event (device, region, referrer, ...), small enough to be kept for millions."""

from __future__ import annotations

from typing import TypeAlias
from zlib import crc32

from millrace.v1.common_pb2 import Context

Circumstances: TypeAlias = tuple[tuple[int, int], ...]
"""What is known, each as the place of its field in ``FIELDS`` and a 32-bit hash of what it says."""

FIELDS = ("device", "os", "country", "region", "referrer", "placement", "other")
"""The contract's fields; all attributes share the last place."""
ATTRIBUTES_MAX = 8
"""Attributes beyond, in the order of their names, are passed over."""

_NAMED = tuple(enumerate(FIELDS[:-1]))
_OTHER = len(FIELDS) - 1


def circumstances(context: Context) -> Circumstances:
    """What a context says; empty fields are unknown."""
    found = [(place, crc32(f"{name}={text}".encode())) for place, name in _NAMED if (text := getattr(context, name))]
    if context.attributes:
        names = sorted(name for name, text in context.attributes.items() if text)[:ATTRIBUTES_MAX]
        found += [(_OTHER, crc32(f"attributes.{name}={context.attributes[name]}".encode())) for name in names]
    return tuple(found)
