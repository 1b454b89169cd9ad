"""Protocols: before which events is asked, among which items, and how an answer is judged.

================ =====================================================================================================
protocol         asked before
================ =====================================================================================================
next-in-session  each event that has an earlier one in its session
next-item        each event of a user who had an earlier one
flurs            ratings of 5 (events without a value count): the last 70 %, among the items seen so far without the
                 user's own (stream-recommender notebooks, takuti)
ader             from the second period on, each event whose item was in an earlier period and whose session holds an
                 earlier such event (ADER, RecSys 2020); figures are the means of the periods' figures
serenade         in the last period, each event that has an earlier one in its session; NDCG and recall of all that is
                 left of the session (bolcom/serenade)
================ =====================================================================================================

Events before the first that is asked for are learned in the same way and not counted.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from millrace.errors import MillraceError
from millrace.evaluation.questions import MISS
from millrace.evaluation.stream import Event, EventStream, Happened
from millrace.features.user_state import ENGAGEMENT_TYPES

ProtocolName: TypeAlias = Literal["next-in-session", "next-item", "flurs", "ader", "serenade"]
PROTOCOLS: tuple[str, ...] = get_args(ProtocolName)

# Of the flurs protocol: the rating that counts as positive, and the share that is there to begin with.
FLURS_VALUE, FLURS_TRAINS = 5.0, 0.3


@dataclass(frozen=True, slots=True)
class Asked:
    """What a protocol wants to know before an event.

    Attributes
    ----------
    counted
        Whether the answer is part of the figures.
    without
        Items that are no candidates.
    """

    counted: bool
    without: Collection[str] = ()


class Protocol:
    """Next in session, and what the others change about it.

    Parameters
    ----------
    stream
        All that will come. What it says of the future is used to judge answers only.
    warm_up
        As many events at the beginning are not counted.
    """

    #: Whether each period weighs the same in the figures.
    by_period = False

    def __init__(self, stream: EventStream, warm_up: int) -> None:
        self._warm_up = self.counted_from(stream, warm_up)

    @classmethod
    def counted_from(cls, stream: EventStream, warm_up: int) -> int:
        """Place of the first event that may be counted; what comes before is the past that settings may follow from."""
        return max(warm_up, stream.tested_from)

    def asks(self, place: int, event: Event, period: int, continues: bool) -> Asked | None:
        """Whether to ask before an event, called once for each; ``continues``: its session has an earlier one."""
        del event, period
        return Asked(place >= self._warm_up) if continues else None

    def judge(self, place: int, rank: int, top: Sequence[str], k: int) -> tuple[float, float]:
        """Recall and NDCG of an answer, its first k items, with the item at ``rank`` (from 1)."""
        del place, top
        hit = rank != MISS and rank <= k
        return float(hit), 1.0 / math.log2(rank + 1) if hit else 0.0


class _NextItem(Protocol):
    def __init__(self, stream: EventStream, warm_up: int) -> None:
        super().__init__(stream, warm_up)
        self._users: set[str] = set()

    def asks(self, place: int, event: Event, period: int, continues: bool) -> Asked | None:
        del continues
        known = event.user_id in self._users
        self._users.add(event.user_id)
        return super().asks(place, event, period, known)


class _Flurs(Protocol):
    def __init__(self, stream: EventStream, warm_up: int) -> None:
        super().__init__(stream, warm_up)
        self._own: dict[str, set[str]] = defaultdict(set)

    @classmethod
    def counted_from(cls, stream: EventStream, warm_up: int) -> int:
        return max(super().counted_from(stream, warm_up), int(len(stream.events) * FLURS_TRAINS))

    def asks(self, place: int, event: Event, period: int, continues: bool) -> Asked | None:
        del period, continues
        own = self._own[event.user_id]
        without = own - {event.item_id}
        own.add(event.item_id)
        return Asked(place >= self._warm_up, without)


class _Ader(Protocol):
    by_period = True

    def __init__(self, stream: EventStream, warm_up: int) -> None:
        super().__init__(stream, warm_up)
        self._period = 0
        self._trained: set[str] = set()
        self._items: set[str] = set()
        self._sessions: set[tuple[str, str]] = set()

    @classmethod
    def counted_from(cls, stream: EventStream, warm_up: int) -> int:
        if len(stream.starts) < 2:
            raise MillraceError("protocol ader needs periods: --format sessions, or --train and --test")
        return max(super().counted_from(stream, warm_up), stream.starts[1])

    def asks(self, place: int, event: Event, period: int, continues: bool) -> Asked | None:
        del continues
        if period != self._period:
            self._period = period
            self._trained |= self._items
            self._items.clear()
            self._sessions.clear()
        self._items.add(event.item_id)
        if period and event.item_id not in self._trained:
            return None
        session = event.user_id, event.session_id
        known = session in self._sessions
        self._sessions.add(session)
        return super().asks(place, event, period, known)


class _Serenade(Protocol):
    def __init__(self, stream: EventStream, warm_up: int) -> None:
        super().__init__(stream, warm_up)
        self._left: dict[int, frozenset[str]] = {}
        last: dict[tuple[str, str], frozenset[str]] = {}
        for place in range(len(stream.events) - 1, self._warm_up - 1, -1):
            event = stream.events[place]
            session = event.user_id, event.session_id
            self._left[place] = last[session] = last.get(session, frozenset()) | {event.item_id}

    @classmethod
    def counted_from(cls, stream: EventStream, warm_up: int) -> int:
        if len(stream.starts) < 2:
            raise MillraceError("protocol serenade needs --train and --test")
        return max(super().counted_from(stream, warm_up), stream.starts[-1])

    def judge(self, place: int, rank: int, top: Sequence[str], k: int) -> tuple[float, float]:
        del rank
        left = self._left.get(place, frozenset())
        found = [item in left for item in top[:k]]
        best = sum(map(_serenade_discount, range(min(len(left), k))))
        gain = sum(_serenade_discount(at) for at, hit in enumerate(found) if hit)
        return sum(found) / max(len(left), 1), gain / best if best else 0.0


def _serenade_discount(place: int) -> float:
    """Of a place from 0: 1, 1, 1/log2(3), ... as in that project, where the usual one is 1/log2(place + 2)."""
    return 1.0 if place == 0 else 1.0 / math.log2(place + 1)


_KINDS: dict[str, type[Protocol]] = {
    "next-in-session": Protocol,
    "next-item": _NextItem,
    "flurs": _Flurs,
    "ader": _Ader,
    "serenade": _Serenade,
}


def protocol(name: str, stream: EventStream, warm_up: int = 0) -> Protocol:
    """A fresh protocol for one pass over a stream."""
    return _KINDS[name](stream, warm_up)


def counted_from(name: str, stream: EventStream, warm_up: int = 0) -> int:
    """Place of the first event that a protocol may count."""
    return _KINDS[name].counted_from(stream, warm_up)


def kept(name: str, event: Happened) -> bool:
    """Whether a protocol takes an event at all; what it does not take is not learned either."""
    if event.type not in ENGAGEMENT_TYPES:
        return name != "flurs"
    return name != "flurs" or event.value in (0.0, FLURS_VALUE)
