"""Values of the contracts' enums in words, also those of a later release."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.protobuf.descriptor import EnumDescriptor


def name_of(kind: EnumDescriptor, value: int) -> str:
    """The name of a value without that of its enum, for example ``add_to_cart``.

    A value that this release does not know, from a process that was upgraded before this one, is given as its number.
    """
    names = kind.values_by_number
    if value not in names:
        return str(value)
    return str(names[value].name).removeprefix(names[0].name.removesuffix("UNSPECIFIED")).lower()
