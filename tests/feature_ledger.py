"""The ledger: a naive model of the features, from the events and nothing else. The oracle of the feature tests.

It shares no code with ``millrace.features``: lists in place of packed strings, sums computed anew in place of
updates. Events come in the order of the log, each once.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import exp2
from typing import NamedTuple

from millrace.settings import FeatureSettings
from millrace.v1.interaction_pb2 import Interaction, InteractionType

VIEW = InteractionType.INTERACTION_TYPE_VIEW
CLICK = InteractionType.INTERACTION_TYPE_CLICK
PURCHASE = InteractionType.INTERACTION_TYPE_PURCHASE
DISLIKE = InteractionType.INTERACTION_TYPE_DISLIKE
RATING = InteractionType.INTERACTION_TYPE_RATING
FORGET = InteractionType.INTERACTION_TYPE_FORGET


class Logged(NamedTuple):
    """An event in the log."""

    partition: int
    offset: int
    event: Interaction


@dataclass
class LedgerUser:
    accepted: list[Interaction] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    """Of what was accepted."""
    engagements: list[Interaction] = field(default_factory=list)
    """What was accepted and says that the user likes the item."""
    known: tuple[int, int] = (0, -1)
    erased: bool = False

    def forget(self) -> None:
        for kept in (self.accepted, self.ids, self.engagements):
            kept.clear()
        self.erased = True


@dataclass
class LedgerItem:
    events: list[Interaction] = field(default_factory=list)
    followers: dict[str, list[tuple[float, int]]] = field(default_factory=lambda: defaultdict(list))
    """Following item -> weight and event time of each time that it followed."""

    def counts(self) -> Counter[int]:
        return Counter(event.type for event in self.events)

    def popularity(self, half_life_ms: float, at_ms: int) -> float:
        return sum(
            exp2((event.occurred_at_ms - at_ms) / half_life_ms)
            for event in self.events
            if event.type not in (VIEW, DISLIKE)
        )

    def neighbours(self, half_life_ms: float, at_ms: int) -> dict[str, float]:
        return {
            item: sum(weight * exp2((time - at_ms) / half_life_ms) for weight, time in times)
            for item, times in self.followers.items()
        }

    def value(self, kind: int) -> float:
        return sum(event.value for event in self.events if event.type == kind)


class Ledger:
    """What the features should be."""

    def __init__(self, settings: FeatureSettings, log: Iterable[Logged] = ()) -> None:
        self._settings = settings
        self.users: dict[str, LedgerUser] = defaultdict(LedgerUser)
        self.items: dict[str, LedgerItem] = defaultdict(LedgerItem)
        self.duplicates = 0
        for logged in log:
            self.add(logged)

    def add(self, logged: Logged) -> None:
        event, user = logged.event, self.users[logged.event.user_id]
        user.known = logged.partition, logged.offset
        if event.type == FORGET:
            user.forget()
        elif event.event_id in user.ids[-self._settings.dedup_window :]:
            self.duplicates += 1
        else:
            if event.type not in (VIEW, DISLIKE):
                for distance, earlier in enumerate(self._context(event, user.engagements), start=1):
                    self.items[earlier].followers[event.item_id].append((1 / distance, event.occurred_at_ms))
                    if backward := self._settings.backward_weight / distance:
                        self.items[event.item_id].followers[earlier].append((backward, event.occurred_at_ms))
                user.engagements.append(event)
            user.accepted.append(event)
            user.ids.append(event.event_id)
            self.items[event.item_id].events.append(event)

    def _context(self, event: Interaction, before: Sequence[Interaction]) -> list[str]:
        settings = self._settings
        items: list[str] = []
        time = event.occurred_at_ms
        for past in reversed(before[-(settings.recent_kept - settings.user_batch_max) :]):
            if len(items) == settings.session_context:
                break
            if past.session_id != event.session_id:
                continue
            if not event.session_id:
                if abs(time - past.occurred_at_ms) >= settings.session_gap_ms:
                    break
                time = past.occurred_at_ms
            if past.item_id != event.item_id and past.item_id not in items:
                items.append(past.item_id)
        return items


def user_counts(ledger: Ledger) -> Mapping[str, Counter[int]]:
    """Accepted interactions of each user by type; users with none are left out."""
    return {
        name: Counter(event.type for event in user.accepted) for name, user in ledger.users.items() if user.accepted
    }
