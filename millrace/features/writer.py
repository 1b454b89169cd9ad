"""Takes interactions into the features of users and items, each exactly once, whatever is delivered again.

First every user's script call of a batch, which says for each event whether it counts and which items the session held
before; then every item's. A crash in between is repaired by delivery: the user's key remembers
what it accepted at which position, so that a repeated event gets the same answer, and the item's guard skips what it
has. For this memory to reach, a batch is written in parts in which no user has more than ``user_batch_max`` events,
and a part begins after the items of the one before it are written.
"""

from __future__ import annotations

import struct
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from millrace.errors import InfrastructureError, MillraceError
from millrace.features.calls import batched_calls
from millrace.features.intake import Event
from millrace.features.store import FeatureStore, Pending, Script, load_script
from millrace.settings import FeatureSettings
from millrace.v1.interaction_pb2 import InteractionType

# A user's dislikes that are remembered: several screens full, and at most 64 KiB with the longest ids.
DISLIKED_KEPT = 256

# Half as many again before the lightest neighbours are dropped: sorting is then paid once in many new neighbours, and
# a new one has time to gain weight.
NEIGHBOURS_SLACK = 1.5

OWN = struct.Struct("<BQqd")
"""Something was done to an item: type, position (offset << 16 | partition), time (ms), value."""
FOLLOWED = struct.Struct("<BQqdH")
"""Another item followed in a session: 0, position, time (ms), weight, length of that item; the item follows."""

DUPLICATE = 0
"""The user script's answer for an event_id that was accepted at another position (see lua/users.lua)."""

_FORGET = InteractionType.INTERACTION_TYPE_FORGET
_TYPE_NUMBERS: Mapping[str, int] = {
    name.removeprefix("INTERACTION_TYPE_"): value for name, value in InteractionType.items() if value
}


class Taken(NamedTuple):
    """What became of events.

    Attributes
    ----------
    items
        Ids of the items whose state may have changed, also by an earlier delivery of the same events.
    verdicts
        How many events were accepted, duplicate, and known (delivered again without effect).
    """

    items: set[bytes]
    verdicts: Counter[str]


class _Begun(NamedTuple):
    """A part whose users' scripts were sent."""

    part: Sequence[Event]
    users: tuple[bytes, ...]
    pending: Pending


class FeatureWriter:
    """Writes the features of users and items. Every method raises InfrastructureError when Redis fails."""

    def __init__(self, store: FeatureStore, settings: FeatureSettings) -> None:
        if 2 * settings.user_batch_max > min(settings.recent_kept, settings.dedup_window):
            raise MillraceError(
                f"MILLRACE_FEATURES_USER_BATCH_MAX={settings.user_batch_max} must be at most half of "
                f"MILLRACE_FEATURES_RECENT_KEPT={settings.recent_kept} and of "
                f"MILLRACE_FEATURES_DEDUP_WINDOW={settings.dedup_window}: a user must remember what may be delivered "
                "again after a crash"
            )
        self._store = store
        self._user_batch_max = settings.user_batch_max
        self._backward_weight = settings.backward_weight
        self._users = store.load(user_script(settings))
        self._items = store.load(item_script(settings))

        self._begun: _Begun | None = None
        self._taken = Taken(set(), Counter())

    def begin(self, events: Sequence[Event]) -> None:
        """Begin to write the events, which are in order within each partition.

        Of the last part the users' scripts are sent and not waited for, so that Redis works while the caller reads and
        checks the next batch. ``finish``, or the next ``begin``, does the rest.
        """
        for part in parts(events, self._user_batch_max):
            self._finish_part()
            users: dict[bytes, list[bytes]] = defaultdict(list)
            for event in part:
                users[event.user].append(event.packed)
            self._begun = _Begun(part, tuple(users), self._store.send(self._users, batched_calls(users)))

    def finish(self) -> Taken:
        """Write the items of what was begun; answers for everything since the last ``finish``."""
        self._finish_part()
        taken, self._taken = self._taken, Taken(set(), Counter())
        return taken

    def take(self, events: Sequence[Event]) -> Taken:
        """Begin and finish."""
        self.begin(events)
        return self.finish()

    def drop(self) -> None:
        """Forget what was begun: the connection was lost, and it will be delivered again."""
        self._begun, self._taken = None, Taken(set(), Counter())

    def _finish_part(self) -> None:
        if self._begun is None:
            return
        begun, self._begun = self._begun, None
        try:
            self._write_items(begun)
        except InfrastructureError:
            raise
        except BaseException:
            # These events' users are written and their items are not: without a connection nothing goes on before
            # they were delivered again.
            self._store.close()
            raise

    def _write_items(self, begun: _Begun) -> None:
        part, users, pending = begun
        replies = chain.from_iterable(self._store.receive(pending))
        answers = {user: iter(reply) for user, reply in zip(users, replies, strict=True)}
        touched, verdicts = self._taken
        items: dict[bytes, list[bytes]] = defaultdict(list)
        accepted = duplicate = 0
        backward = self._backward_weight
        for user, item, kind, position, at_ms, value, _ in part:
            answer = next(answers[user])
            if item:
                touched.add(item)
            if isinstance(answer, list):
                accepted += 1
                items[b"i:" + item].append(OWN.pack(kind, position, at_ms, value))
                for distance, earlier in enumerate(answer, start=1):
                    items[b"i:" + earlier].append(FOLLOWED.pack(0, position, at_ms, 1 / distance, len(item)) + item)
                    if backward:
                        own = FOLLOWED.pack(0, position, at_ms, backward / distance, len(earlier)) + earlier
                        items[b"i:" + item].append(own)
                touched.update(answer)
            elif answer == DUPLICATE:
                duplicate += 1
        # Not waited for either. Redis takes commands in the order in which they are sent: the next users come after
        # these items, and whoever reads an item's state to publish it reads it with these events in it.
        self._store.send(self._items, batched_calls(items))
        verdicts.update(accepted=accepted, duplicate=duplicate, known=len(part) - accepted - duplicate)


def parts(events: Sequence[Event], user_batch_max: int) -> Iterator[Sequence[Event]]:
    """The events in parts that can be repeated after a crash.

    No user has more than ``user_batch_max`` events in a part, and a FORGET, which erases the user's memory of what was
    accepted, has no event of its user in front of it.
    """
    start, counts = 0, Counter[bytes]()
    for place, event in enumerate(events):
        count = counts[event.user]
        if count == user_batch_max or (event.type == _FORGET and count):
            yield events[start:place]
            start, counts, count = place, Counter[bytes](), 0
        counts[event.user] = count + 1
    if start < len(events):
        yield events[start:]


def user_script(settings: FeatureSettings) -> Script:
    """``lua/users.lua`` with its numbers."""
    return load_script(
        "users",
        {
            "SEEN_KEPT": settings.dedup_window,
            "RECENT_KEPT": settings.recent_kept,
            # An event that is delivered again may have user_batch_max - 1 engagements in front of it in `recent`; the
            # walk back from it must still find what it found the first time.
            "WALK_MAX": settings.recent_kept - settings.user_batch_max,
            "CONTEXT_MAX": settings.session_context,
            "SESSION_GAP_MS": settings.session_gap_ms,
            "HALF_LIFE_MS": settings.user_half_life_ms,
            "TTL_MS": settings.user_ttl_ms,
            "DISLIKED_KEPT": DISLIKED_KEPT,
            **_TYPE_NUMBERS,
        },
    )


def item_script(settings: FeatureSettings) -> Script:
    """``lua/items.lua`` with its numbers."""
    return load_script(
        "items",
        {
            "SHORT_MS": settings.half_life_short_ms,
            "LONG_MS": settings.half_life_long_ms,
            "NEIGHBOUR_MS": settings.neighbour_half_life_ms,
            "NEIGHBOURS_KEPT": settings.neighbours_kept,
            "NEIGHBOURS_MAX": int(settings.neighbours_kept * NEIGHBOURS_SLACK),
            "TTL_MS": settings.item_ttl_ms,
            **_TYPE_NUMBERS,
        },
    )
