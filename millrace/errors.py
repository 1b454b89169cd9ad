"""Errors that cross the border between a part of Millrace and its caller."""

from __future__ import annotations


class MillraceError(Exception):
    """Something that the user can act on. The message says what was wrong and what to do."""


class InvalidField(MillraceError, ValueError):
    """A field of an event, item or request breaks its rule.

    Attributes
    ----------
    field
        Path of the field as the contract names it, for example ``items[3].price``.
    problem
        What is wrong, with the value where it helps.
    allowed
        What the rule allows.
    """

    def __init__(self, field: str, problem: str, allowed: str) -> None:
        super().__init__(f"{field}: {problem}; allowed: {allowed}")
        self.field = field
        self.problem = problem
        self.allowed = allowed


class InfrastructureError(MillraceError):
    """Kafka, Redis or MLflow could not do its part. Never a reason to drop, skip or dead-letter an event.

    Attributes
    ----------
    system
        Which one: ``"kafka"``, ``"redis"`` or ``"mlflow"``.
    """

    def __init__(self, system: str, problem: str) -> None:
        super().__init__(f"{system}: {problem}")
        self.system = system
