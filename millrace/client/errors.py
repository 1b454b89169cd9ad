"""What a shop's own code may have to catch, beside ``InvalidField``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from millrace.errors import MillraceError
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.item_pb2 import Item


@dataclass(frozen=True, slots=True)
class Undelivered:
    """A record that the broker did not take.

    Attributes
    ----------
    event
        What was sent; None for the removal of an item.
    key
        The user's or item's id.
    reason
        The broker's or the network's word for it.
    """

    event: Interaction | Item | None
    key: str
    reason: str


class DeliveryFailed(MillraceError):
    """Records that were accepted for sending did not reach the broker.

    Raised by the next call after it became known, at the latest by ``flush`` or ``close``. Sending the events
    again is safe: an ``event_id`` counts once.

    Attributes
    ----------
    undelivered
        The records, as far as they are known one by one.
    """

    def __init__(self, message: str, undelivered: Sequence[Undelivered] = ()) -> None:
        super().__init__(message)
        self.undelivered = tuple(undelivered)


class RecommenderUnavailable(MillraceError):
    """The recommender gave no answer.

    Attributes
    ----------
    target
        Address that was asked.
    code
        Name of the gRPC status, for example ``UNAVAILABLE`` or ``DEADLINE_EXCEEDED``.
    """

    def __init__(self, target: str, code: str, problem: str) -> None:
        super().__init__(f"recommender at {target}: {problem} ({code})")
        self.target = target
        self.code = code
