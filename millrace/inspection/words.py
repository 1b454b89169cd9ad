"""The words of ``--where``: names, values, operators, brackets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from millrace.errors import InvalidField

FIELD = "where"
"""How errors name the expression as a whole."""
MAX_CHARS = 4_000
"""Longest expression: a hundred comparisons, which no one types."""

Kind = Literal["text", "quoted", "operator", "(", ")", ",", "end"]

OPERATORS = ("==", "!=", "<=", ">=", "<", ">", "~")

# A bare word goes on up to a blank or to something that means something; ids with such characters are quoted.
_WORD = re.compile(
    r"""(?P<blank>\s+)
    |(?P<operator>==|!=|<=|>=|<|>|~|=)
    |(?P<bracket>[(),])
    |"(?P<double>(?:[^"\\]|\\.)*)"
    |'(?P<single>(?:[^'\\]|\\.)*)'
    |(?P<text>[^\s()=!<>~,"']+)""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Word:
    """A word and where it stands (the first character has number 1)."""

    kind: Kind
    text: str
    at: int


def words(expression: str) -> Iterator[Word]:
    """The words of an expression, and the end.

    Raises
    ------
    InvalidField
        It is too long, or holds something that is no word.
    """
    if len(expression) > MAX_CHARS:
        raise InvalidField(FIELD, f"{len(expression)} characters", f"at most {MAX_CHARS}")
    at = 0
    while at < len(expression):
        found = _WORD.match(expression, at)
        if found is None:
            what = "a quote that is not closed" if expression[at] in "\"'" else repr(expression[at])
            raise InvalidField(
                FIELD, f"{what} at character {at + 1}", "names, values, brackets, " + ", ".join(OPERATORS)
            )
        kind, text = found.lastgroup, found[found.lastgroup or 0]
        if kind in ("double", "single"):
            yield Word("quoted", _ESCAPED.sub(r"\1", text), at + 1)
        elif kind == "operator":
            # One sign says the same as two: nothing is assigned here.
            yield Word("operator", "==" if text == "=" else text, at + 1)
        elif kind == "bracket":
            yield Word(text, text, at + 1)  # type: ignore[arg-type]
        elif kind == "text":
            yield Word("text", text, at + 1)
        at = found.end()
    yield Word("end", "", at + 1)
