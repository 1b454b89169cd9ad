"""One user's features as they stand in Redis, and as values.

A user is a hash ``u:<user_id>`` of few, packed fields (a text field for each number doubled the writer's time), written
by ``lua/users.lua`` only:

=================== ==============================================================================================
field               content
=================== ==============================================================================================
state               ``STATE``; for each type that occurred ``TYPE_COUNT``; guards: the newest position taken from each
                    partition of the topic ``interactions``, the newest of all first
recent              engagements, newest first: each ``ENTRY``, the item's UTF-8, and its length once more, so that the
                    oldest can be dropped from the end
disliked            disliked items, newest first, separated by the unit separator 0x1f (ids hold no control character)
seen                accepted events for the duplicate check, newest first: hash of the event_id (8 bytes), position
=================== ==============================================================================================

A position is a u64, offset << 16 | partition. All numbers are little-endian. FORGET leaves ``state`` with nothing but
the time of erasure and the guards.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from zlib import crc32

from millrace.features.decay import DecayedSum
from millrace.v1.interaction_pb2 import InteractionType

_VIEW = InteractionType.INTERACTION_TYPE_VIEW
_DISLIKE = InteractionType.INTERACTION_TYPE_DISLIKE
_FORGET = InteractionType.INTERACTION_TYPE_FORGET

COUNTED_TYPES: tuple[int, ...] = tuple(value for value in InteractionType.values() if 0 < value < _FORGET)
"""Every type that is counted (FORGET erases instead)."""
ENGAGEMENT_TYPES: frozenset[int] = frozenset(COUNTED_TYPES) - {_VIEW, _DISLIKE}
"""The user turned to the item: what sessions, popularity and neighbours are made of."""

STATE = struct.Struct("<dddddHB")
"""Event times of the earliest and the latest interaction (ms; 0: none), money paid, time of the last erasure (ms;
0: never), Redis' time of the last write (ms), number of engagements in ``recent``, number of types that follow."""
TYPE_COUNT = struct.Struct("<Bddd")
"""Type, accepted interactions of it, the same decayed with the user half-life, and the time of that sum (ms)."""
ENTRY = struct.Struct("<QqBIH")
"""An engagement: position, time (ms), type, session (CRC-32 of its id; 0: no id), length of the item."""
EVENT = struct.Struct("<8s" + ENTRY.format.removeprefix("<"))
"""An event for the script: hash of the event_id, then as ``ENTRY``; item, its length again and the value follow."""
LENGTH = struct.Struct("<H")
POSITION = struct.Struct("<Q")
SEPARATOR = "\x1f"

USER_FIELDS: tuple[str, ...] = ("state", "recent", "disliked")
"""Fields that ``decode_user`` takes, in its order."""


def session_number(session_id: str) -> int:
    """What is kept of a session's id: its CRC-32; 0 if none was given."""
    return (crc32(session_id.encode()) or 1) if session_id else 0


class Engagement(NamedTuple):
    """Something that the user turned to.

    Attributes
    ----------
    item_id
        The item.
    type
        ``InteractionType``, any but VIEW, DISLIKE and FORGET.
    at_ms
        Event time, Unix milliseconds.
    partition, offset
        Where the event stands in the topic ``interactions``.
    session
        CRC-32 of the session_id; 0 if none was given.
    """

    item_id: str
    type: int
    at_ms: int
    partition: int
    offset: int
    session: int


NOTHING_KNOWN = -1 << 16
"""Position of a user of whose topic (made anew) nothing is known."""


class KnownPosition(NamedTuple):
    """The newest event that the state includes, in the topic ``interactions`` (offset -1: none of this topic)."""

    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class UserState:
    """What is known of one user.

    Attributes
    ----------
    counts
        Accepted interactions by ``InteractionType``; types that never occurred are absent.
    decayed
        The same, decayed with the user half-life.
    first_seen_ms, last_seen_ms
        Event times of the earliest and the latest interaction, Unix milliseconds.
    purchase_value
        Money paid, in the shop's one currency.
    recent
        Engagements, the one that arrived last first.
    disliked
        Items that the user does not want (the newest ones, bounded).
    known
        Newest event that is included.
    """

    counts: Mapping[int, int]
    decayed: Mapping[int, DecayedSum]
    first_seen_ms: int
    last_seen_ms: int
    purchase_value: float
    recent: tuple[Engagement, ...]
    disliked: frozenset[str]
    known: KnownPosition

    def engagements(self, now_ms: int, half_life_ms: float) -> float:
        """Engagements decayed to ``now_ms``; the half-life is the user half-life of the settings."""
        return engagements(self.decayed, now_ms, half_life_ms)

    def engagements_before(self, at_ms: int) -> int | None:
        """How many came before a time (Unix ms); None if there were more since then than are remembered one by one."""
        since = sum(one.at_ms >= at_ms for one in self.recent)
        if since and since == len(self.recent) and self._total() > since:
            return None
        return self._total() - since

    def _total(self) -> int:
        return sum(count for kind, count in self.counts.items() if kind in ENGAGEMENT_TYPES)


def engagements(decayed: Mapping[int, DecayedSum], now_ms: int, half_life_ms: float) -> float:
    """Engagements among decayed counters by type, as of ``now_ms``."""
    return sum(total.at(now_ms, half_life_ms) for kind, total in decayed.items() if kind in ENGAGEMENT_TYPES)


def user_key(user_id: str) -> str:
    """Key of the user's hash."""
    return f"u:{user_id}"


def decode_user(values: Sequence[bytes | None]) -> UserState | None:
    """The state from the values of ``USER_FIELDS`` (HMGET, not decoded to text).

    None: nothing is known of this user (never seen, expired, or erased and not seen since).
    """
    state, recent, disliked = values
    if state is None:
        return None
    first_seen_ms, last_seen_ms, purchase_value, _, _, _, types = STATE.unpack_from(state)
    if not types:
        return None
    guards_at = STATE.size + types * TYPE_COUNT.size
    counts, decayed = {}, {}
    for kind, count, total, as_of_ms in TYPE_COUNT.iter_unpack(state[STATE.size : guards_at]):
        counts[kind] = int(count)
        decayed[kind] = DecayedSum(total, int(as_of_ms))
    position: int = POSITION.unpack_from(state, guards_at)[0] if len(state) > guards_at else NOTHING_KNOWN
    return UserState(
        counts=counts,
        decayed=decayed,
        first_seen_ms=int(first_seen_ms),
        last_seen_ms=int(last_seen_ms),
        purchase_value=purchase_value,
        recent=_decode_recent(recent) if recent else (),
        disliked=frozenset(disliked.decode().split(SEPARATOR)) if disliked else frozenset(),
        known=KnownPosition(position & 0xFFFF, position >> 16),
    )


def encode_user(state: UserState) -> dict[str, bytes]:
    """The fields that ``decode_user`` turns into this state: for tests and made-up users, who need no stream."""
    recent = []
    for item_id, kind, at_ms, partition, offset, session in state.recent:
        item = item_id.encode()
        recent += [
            ENTRY.pack(offset << 16 | partition, at_ms, kind, session, len(item)),
            item,
            LENGTH.pack(len(item)),
        ]
    times = state.first_seen_ms, state.last_seen_ms
    parts = [
        STATE.pack(*times, state.purchase_value, 0, 0, len(state.recent), len(state.counts)),
        *(
            TYPE_COUNT.pack(kind, count, state.decayed[kind].value, state.decayed[kind].as_of_ms)
            for kind, count in state.counts.items()
        ),
        POSITION.pack(state.known.offset << 16 | state.known.partition),
    ]
    return {
        "state": b"".join(parts),
        "recent": b"".join(recent),
        "disliked": SEPARATOR.join(sorted(state.disliked)).encode(),
    }


def without_guards(state: bytes) -> bytes:
    """The field ``state`` without what it says about positions."""
    return state[: STATE.size + STATE.unpack_from(state)[-1] * TYPE_COUNT.size]


def _decode_recent(packed: bytes) -> tuple[Engagement, ...]:
    """The engagements in the field ``recent``, newest first."""
    entries = []
    unpack, size, tail = ENTRY.unpack_from, ENTRY.size, LENGTH.size
    start, stop = 0, len(packed)
    while start < stop:
        position, at_ms, kind, session, length = unpack(packed, start)
        end = start + size + length
        entries.append(
            Engagement(packed[start + size : end].decode(), kind, at_ms, position & 0xFFFF, position >> 16, session)
        )
        start = end + tail
    return tuple(entries)
