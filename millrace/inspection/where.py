"""``--where``: a small language over the fields of a message. It reads fields and compares them, and can do no more.

    expression := both ("or" both)*
    both       := one ("and" one)*
    one        := "not" one | "(" expression ")" | FIELD | FIELD operator VALUE | FIELD "in" "(" VALUE ("," VALUE)* ")"
    operator   := "==" | "!=" | "<" | "<=" | ">" | ">=" | "~"

A FIELD is a path: ``item_id``, ``context.device``, ``slots.item_id``, ``attributes.plan`` (a key of a map). A VALUE is
a word or quoted; enums go by their short names (``type == click``). ``~`` asks whether a text holds another. A field
alone asks whether it is set, and not 0, false or empty. A comparison through a list holds if it holds for one of its
members: ``not slots.item_id == x`` says that no slot shows x. What is not set compares with nothing.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from millrace.errors import InvalidField
from millrace.inspection.fields import Path, Value, find_path, reader_of
from millrace.inspection.words import FIELD, OPERATORS, Kind, Word, words

Condition = Callable[[Message], bool]

DEPTH_MAX = 50
"""Deepest nesting of brackets and nots: below what Python's own stack bears."""

_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "~": operator.contains,
}
_ORDER = frozenset({"<", "<=", ">", ">="})
_UNORDERED = frozenset({FieldDescriptor.CPPTYPE_BOOL, FieldDescriptor.CPPTYPE_ENUM})


def parse(expression: str, message: type[Message]) -> Condition:
    """The condition that an expression states about messages of one type.

    >>> from millrace.v1.interaction_pb2 import Interaction, InteractionType
    >>> condition = parse("item_id == boots and not type in (view, click)", Interaction)
    >>> condition(Interaction(item_id="boots", type=InteractionType.INTERACTION_TYPE_PURCHASE))
    True

    Raises
    ------
    InvalidField
        It is no expression, or speaks of what such messages do not have: the error names it and what is allowed.
    """
    return _Parser(expression, cast("Descriptor", message.DESCRIPTOR)).whole()


class _Parser:
    """Reads an expression from left to right, one word ahead."""

    def __init__(self, expression: str, message: Descriptor) -> None:
        self._words = words(expression)
        self._word = next(self._words)
        self._message = message
        self._depth = 0

    def whole(self) -> Condition:
        condition = self._either()
        if self._word.kind != "end":
            raise self._unexpected("and, or, or the end")
        return condition

    def _either(self) -> Condition:
        parts = [self._both()]
        while self._takes_word("or"):
            parts.append(self._both())
        return parts[0] if len(parts) == 1 else lambda message: any(part(message) for part in parts)

    def _both(self) -> Condition:
        parts = [self._one()]
        while self._takes_word("and"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else lambda message: all(part(message) for part in parts)

    def _one(self) -> Condition:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise InvalidField(FIELD, "brackets and nots in each other", f"at most {DEPTH_MAX}")
        try:
            if self._takes_word("not"):
                negated = self._one()
                return lambda message: not negated(message)
            if self._takes("("):
                inner = self._either()
                self._must(")")
                return inner
            return self._comparison()
        finally:
            self._depth -= 1

    def _comparison(self) -> Condition:
        path = find_path(self._must("text", "a field, not, or (").text, self._message)
        if self._word.kind == "operator":
            sign = self._next().text
            return _compared(path, sign, self._value(reader_of(path)))
        if self._takes_word("in"):
            read = reader_of(path)
            self._must("(")
            allowed = [self._value(read)]
            while self._takes(","):
                allowed.append(self._value(read))
            self._must(")")
            return lambda message: any(value in allowed for value in path.values(message))
        return lambda message: any(map(_says_something, path.values(message)))

    def _value(self, read: Callable[[str], Value]) -> Value:
        if self._word.kind not in ("text", "quoted"):
            raise self._unexpected("a value")
        return read(self._next().text)

    def _next(self) -> Word:
        word = self._word
        if word.kind != "end":
            self._word = next(self._words)
        return word

    def _takes(self, kind: Kind) -> bool:
        found = self._word.kind == kind
        if found:
            self._next()
        return found

    def _takes_word(self, text: str) -> bool:
        found = self._word.kind == "text" and self._word.text.lower() == text
        if found:
            self._next()
        return found

    def _must(self, kind: Kind, wanted: str = "") -> Word:
        if self._word.kind != kind:
            raise self._unexpected(wanted or kind)
        return self._next()

    def _unexpected(self, wanted: str) -> InvalidField:
        word = self._word
        found = "the end" if word.kind == "end" else f"{word.text!r} at character {word.at}"
        more = f" (operators: {', '.join(OPERATORS)}, in)" if wanted.startswith("and") else ""
        return InvalidField(FIELD, found, wanted + more)


def _compared(path: Path, sign: str, wanted: Value) -> Condition:
    kind = path.last.cpp_type
    if sign == "~" and kind != FieldDescriptor.CPPTYPE_STRING:
        raise InvalidField(path.text, "no text, so it holds no other", "==, !=, <, <=, >, >=, in")
    if sign in _ORDER and kind in _UNORDERED:
        raise InvalidField(path.text, f"{sign} compares numbers and texts", "==, !=, in")
    compare = _COMPARE[sign]
    if path.last.type == FieldDescriptor.TYPE_BYTES:
        wanted_bytes = str(wanted).encode()
        return lambda message: any(compare(value, wanted_bytes) for value in path.values(message))
    return lambda message: any(compare(value, wanted) for value in path.values(message))


def _says_something(value: object) -> bool:
    return value.ByteSize() > 0 if isinstance(value, Message) else bool(value)
