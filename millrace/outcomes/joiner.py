"""Joins the impressions and the interactions of one partition into outcomes.

    impression ──► open ──click, like, ...──► slot positive ─┐
                    │ └─────────dislike─────► slot negative ─┼──► outcome
                    └──window over──► seen: negative, else unseen

An interaction that names an answer belongs to it, and waits for it for a while; one that names none belongs to the
user's newest open answer that shows the item. What belongs to no answer is organic. An answer of an experiment that
failed, or has no items, gives an outcome without slots when its window is over.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from millrace.errors import InvalidField
from millrace.features.user_state import ENGAGEMENT_TYPES
from millrace.outcomes.clock import EventClock
from millrace.outcomes.open_impression import NEGATIVE, POSITIVE, OpenImpression
from millrace.outcomes.taken import TakenWindow, hashed
from millrace.v1.common_pb2 import Position
from millrace.v1.impression_pb2 import Impression
from millrace.v1.interaction_pb2 import Interaction, InteractionType
from millrace.v1.joiner_pb2 import JoinerClock, JoinerState, WaitingInteraction
from millrace.v1.joiner_pb2 import OpenImpression as OpenImpressionState
from millrace.v1.outcome_pb2 import Outcome

_VIEW = InteractionType.INTERACTION_TYPE_VIEW
_FORGET = InteractionType.INTERACTION_TYPE_FORGET

CLOCK_KEY = "c"


class Verdict(Enum):
    """What became of an interaction."""

    LABELLED = "labelled"
    """It decided a slot."""
    VIEWED = "viewed"
    """It marked a slot as seen."""
    REPEATED = "repeated"
    """Its slot was decided, or seen, before."""
    WAITING = "waiting"
    """The answer that it names has not come yet."""
    LATE = "late"
    """The answer that it names is closed."""
    ORGANIC = "organic"
    """No answer is behind it."""
    DUPLICATE = "duplicate"
    """Its event_id was taken before."""
    FORGOTTEN = "forgotten"
    """The user asked to be forgotten."""


@dataclass(frozen=True, slots=True)
class JoinerLimits:
    """Settings of the joiner (see ``JoinerSettings``), milliseconds and counts."""

    window_ms: int
    grace_ms: int
    dedup_window: int
    open_max: int


@dataclass(frozen=True, slots=True)
class Misplaced:
    """A waiting interaction whose answer came and does not fit it."""

    offset: int
    error: InvalidField


class PartitionJoiner:
    """State of one partition number. Every method appends what it decided to ``outcomes``; callers empty it.

    Attributes
    ----------
    outcomes
        Outcomes decided since the caller last emptied the list.
    organic
        Interactions without an answer since the caller last emptied the list: (interaction, its offset).
    misplaced
        Interactions that waited and turned out to be wrong.
    closed_early
        Impressions decided before their window was over, because too many were open.
    """

    def __init__(self, limits: JoinerLimits) -> None:
        self._limits = limits
        self.clock = EventClock()
        self.outcomes: list[Outcome] = []
        self.organic: list[tuple[Interaction, int]] = []
        self.misplaced: list[tuple[Interaction, Misplaced]] = []
        self.closed_early = 0
        self._open: dict[str, OpenImpression] = {}
        self._by_user: dict[str, list[OpenImpression]] = {}
        self._closing: list[tuple[int, str]] = []
        # request_id -> interactions that name it, oldest first; and all of them by the time they came.
        self._waiting: dict[str, list[WaitingInteraction]] = {}
        self._expiring: deque[tuple[int, str]] = deque()
        self._waiting_count = 0
        self._taken = TakenWindow(limits.dedup_window)
        # Parts that a commit has to write: key -> what made it change.
        self._opened: dict[str, OpenImpression] = {}
        self._progressed: dict[str, OpenImpression] = {}
        self._held: dict[str, WaitingInteraction] = {}
        self._ended: set[str] = set()
        self._saved: set[str] = set()
        self._clock_saved = 0

    @property
    def open_count(self) -> int:
        """Impressions with undecided slots."""
        return len(self._open)

    @property
    def waiting_count(self) -> int:
        """Interactions that wait for their answer."""
        return self._waiting_count

    def impression(self, impression: Impression, position: Position, append_time_ms: int) -> bool:
        """Open an impression; False if it came before."""
        self.clock.event(impression.served_at_ms, append_time_ms)
        self.advance()
        request_id = impression.request_id
        key = hashed("request", request_id)
        if key in self._taken:
            return False
        self._taken.add(key)
        waiting = self._release(request_id)
        # Also an answer of an experiment that shows nothing: it counts in its arm, and not before the others do.
        if impression.slots or impression.experiment_id:
            entry = OpenImpression(impression, position, self._limits.window_ms)
            self._insert(entry)
            self._opened[f"i{request_id}"] = entry
        for held in waiting:
            try:
                self._attribute(held.interaction, held.offset, waited=True)
            except InvalidField as error:
                self.misplaced.append((held.interaction, Misplaced(held.offset, error)))
        if len(self._open) > self._limits.open_max:
            self._close_oldest()
        return True

    def interaction(self, event: Interaction, offset: int, append_time_ms: int) -> Verdict:
        """Take an interaction.

        Raises
        ------
        InvalidField
            It names an answer that did not show the item, or was another user's.
        """
        self.clock.event(event.occurred_at_ms, append_time_ms)
        self.advance()
        key = hashed(event.user_id, event.event_id)
        if key in self._taken:
            return Verdict.DUPLICATE
        verdict = self._attribute(event, offset)
        self._taken.add(key)
        return verdict

    def advance(self) -> None:
        """Close the windows and end the waiting that are over by the clock."""
        now_ms = self.clock.now_ms
        while self._closing and self._closing[0][0] <= now_ms:
            self._close(heapq.heappop(self._closing)[1])
        over_ms = now_ms - self._limits.grace_ms
        while self._expiring and self._expiring[0][0] < over_ms:
            since_ms, request_id = self._expiring.popleft()
            held = self._waiting.get(request_id)
            if held and held[0].since_ms <= since_ms:
                for one in self._release(request_id):
                    # The answer was lost, or is not ours.
                    self._organic(one.interaction, one.offset)

    def idle(self, monotonic_s: float) -> None:
        """Nothing is left to read (monotonic time, seconds)."""
        self.clock.idle(monotonic_s)
        self.advance()

    def changes(self) -> Iterator[tuple[str, JoinerState | None]]:
        """Parts of the state that changed since the last time, by key; None: the part is no more."""
        for key in sorted(self._ended):
            yield key, None
        for key, entry in self._opened.items():
            self._saved.add(key)
            yield (
                key,
                JoinerState(impression=OpenImpressionState(impression=entry.impression, position=entry.position)),
            )
        for key, entry in self._progressed.items():
            self._saved.add(key)
            yield key, JoinerState(progress=entry.progress())
        for key, held in self._held.items():
            self._saved.add(key)
            yield key, JoinerState(waiting=held)
        for place, taken in self._taken.changes():
            yield f"d{place}", JoinerState(taken=taken)
        if self.clock.now_ms != self._clock_saved:
            self._clock_saved = self.clock.now_ms
            yield CLOCK_KEY, JoinerState(clock=JoinerClock(now_ms=self.clock.now_ms))
        for changed in (self._ended, self._opened, self._progressed, self._held):
            changed.clear()

    @classmethod
    def restored(cls, limits: JoinerLimits, parts: dict[str, JoinerState]) -> PartitionJoiner:
        """The state that ``changes`` wrote, all parts by key."""
        joiner = cls(limits)
        joiner._saved.update(key for key in parts if key[0] in "ipw")
        waiting = []
        for key, state in parts.items():
            part = state.WhichOneof("part")
            if part == "impression":
                entry = OpenImpression(state.impression.impression, state.impression.position, limits.window_ms)
                progress = parts.get("p" + key[1:])
                if progress is not None:
                    entry.restore(progress.progress)
                joiner._insert(entry)
            elif part == "waiting":
                waiting.append(state.waiting)
            elif part == "taken":
                joiner._taken.load(state.taken)
            elif part == "clock":
                joiner.clock = EventClock(state.clock.now_ms)
                joiner._clock_saved = state.clock.now_ms
        for held in sorted(waiting, key=lambda one: one.offset):
            joiner._hold(held)
        return joiner

    def _attribute(self, event: Interaction, offset: int, waited: bool = False) -> Verdict:
        if event.type == _FORGET:
            self._forget(event.user_id)
            return Verdict.FORGOTTEN
        if event.request_id:
            entry = self._open.get(event.request_id)
            if entry is None or not entry.impression.slots:
                if waited or hashed("request", event.request_id) in self._taken:
                    return Verdict.LATE
                held = WaitingInteraction(interaction=event, offset=offset, since_ms=self.clock.now_ms)
                self._hold(held)
                self._held[f"w{offset}"] = held
                return Verdict.WAITING
            if entry.impression.user_id != event.user_id:
                raise InvalidField("user_id", repr(event.user_id), f"the user of answer {event.request_id!r}")
            place = entry.place_of(event.item_id)
            if place is None:
                raise InvalidField(
                    "item_id", f"{event.item_id!r} was not shown", f"an item of answer {event.request_id!r}"
                )
        else:
            found = self._newest_with(event.user_id, event.item_id)
            if found is None:
                return self._organic(event, offset)
            entry, place = found
        return self._label(entry, place, event)

    def _label(self, entry: OpenImpression, place: int, event: Interaction) -> Verdict:
        request_id, kind = entry.impression.request_id, event.type
        if kind == _VIEW:
            if not entry.view(place):
                return Verdict.REPEATED
            self._progressed[f"p{request_id}"] = entry
            return Verdict.VIEWED
        engaged = kind in ENGAGEMENT_TYPES
        if engaged and entry.click(place):
            self._progressed[f"p{request_id}"] = entry
        if entry.is_decided(place):
            return Verdict.REPEATED
        self.outcomes.append(
            entry.decide(
                place,
                POSITIVE if engaged else NEGATIVE,
                kind,
                event.occurred_at_ms,
                event.event_id,
                self.clock.now_ms,
            )
        )
        if entry.finished:
            self._remove(entry)
        else:
            self._progressed[f"p{request_id}"] = entry
        return Verdict.LABELLED

    def _organic(self, event: Interaction, offset: int) -> Verdict:
        if event.type in ENGAGEMENT_TYPES:
            self.organic.append((event, offset))
        return Verdict.ORGANIC

    def _newest_with(self, user_id: str, item_id: str) -> tuple[OpenImpression, int] | None:
        for entry in reversed(self._by_user.get(user_id, ())):
            place = entry.place_of(item_id)
            if place is not None:
                return entry, place
        return None

    def _insert(self, entry: OpenImpression) -> None:
        impression = entry.impression
        self._open[impression.request_id] = entry
        own = self._by_user.setdefault(impression.user_id, [])
        own.append(entry)
        if len(own) > 1 and own[-2].closes_at_ms > entry.closes_at_ms:
            own.sort(key=lambda one: one.closes_at_ms)
        heapq.heappush(self._closing, (entry.closes_at_ms, impression.request_id))

    def _close(self, request_id: str) -> None:
        entry = self._open.get(request_id)
        if entry is not None:
            self.outcomes.append(entry.close(self.clock.now_ms))
            self._remove(entry)

    def _close_oldest(self) -> None:
        """Make room: a hundredth of what may be open, so that this is rare."""
        for _ in range(max(1, self._limits.open_max // 100)):
            while self._closing:
                request_id = heapq.heappop(self._closing)[1]
                if request_id in self._open:
                    self._close(request_id)
                    self.closed_early += 1
                    break

    def _remove(self, entry: OpenImpression) -> None:
        impression = entry.impression
        request_id, user_id = impression.request_id, impression.user_id
        del self._open[request_id]
        own = self._by_user[user_id]
        own.remove(entry)
        if not own:
            del self._by_user[user_id]
        for key, changed in ((f"i{request_id}", self._opened), (f"p{request_id}", self._progressed)):
            changed.pop(key, None)
            self._end(key)

    def _hold(self, held: WaitingInteraction) -> None:
        request_id = held.interaction.request_id
        self._waiting.setdefault(request_id, []).append(held)
        self._expiring.append((held.since_ms, request_id))
        self._waiting_count += 1

    def _release(self, request_id: str) -> list[WaitingInteraction]:
        waiting = self._waiting.pop(request_id, [])
        self._waiting_count -= len(waiting)
        for held in waiting:
            key = f"w{held.offset}"
            self._held.pop(key, None)
            self._end(key)
        return waiting

    def _end(self, key: str) -> None:
        """A part is no more; nothing has to be written of one that nobody saved."""
        if key in self._saved:
            self._saved.discard(key)
            self._ended.add(key)

    def _forget(self, user_id: str) -> None:
        for entry in self._by_user.get(user_id, [])[:]:
            self._remove(entry)
        theirs = [
            request_id
            for request_id, waiting in self._waiting.items()
            if any(held.interaction.user_id == user_id for held in waiting)
        ]
        for request_id in theirs:
            for held in self._release(request_id):
                if held.interaction.user_id != user_id:
                    self._hold(held)
                    self._held[f"w{held.offset}"] = held
