"""One impression while some of its slots are undecided, and what is known of each of them."""

from __future__ import annotations

from collections.abc import Iterator

from millrace.v1.common_pb2 import Position
from millrace.v1.impression_pb2 import Impression
from millrace.v1.joiner_pb2 import ImpressionProgress
from millrace.v1.outcome_pb2 import ImpressionOrigin, Label, Outcome

POSITIVE, NEGATIVE, UNSEEN = Label.LABEL_POSITIVE, Label.LABEL_NEGATIVE, Label.LABEL_UNSEEN


class OpenImpression:
    """An impression and its undecided slots.

    Which slots count as seen when the attribution window closes (an examination model: users read from the top, N.
    Craswell et al., "An experimental comparison of click position-bias models", WSDM 2008): those with a view event
    and those above the lowest click; if there is neither, the first ``viewport`` slots.

    Attributes
    ----------
    closes_at_ms
        When its window closes, in the time of the joiner's clock.
    """

    __slots__ = (
        "_bare",
        "_begun",
        "_clicked_to",
        "_decided",
        "_open",
        "_places",
        "_viewed",
        "closes_at_ms",
        "impression",
        "position",
    )

    def __init__(self, impression: Impression, position: Position, window_ms: int) -> None:
        self.impression = impression
        self.position = position
        self.closes_at_ms = impression.served_at_ms + window_ms
        self._places: dict[str, int] | None = None
        self._bare: Impression | None = None
        # One bit for each slot.
        self._decided = self._viewed = 0
        self._clicked_to = 0
        self._begun = False
        self._open = len(impression.slots)

    @property
    def finished(self) -> bool:
        """Whether every slot is decided."""
        return self._open == 0

    def place_of(self, item_id: str) -> int | None:
        """Rank of the item; None if it was not shown."""
        if self._places is None:
            # The first place where an item is shown twice (which no answer of ours does).
            self._places = {slot.item_id: slot.rank for slot in reversed(self.impression.slots)}
        return self._places.get(item_id)

    def view(self, place: int) -> bool:
        """The slot came into view; whether that is news."""
        bit = 1 << place
        if self._viewed & bit:
            return False
        self._viewed |= bit
        return True

    def click(self, place: int) -> bool:
        """Everything down to the slot was read; whether that is news."""
        if place < self._clicked_to:
            return False
        self._clicked_to = place + 1
        return True

    def is_decided(self, place: int) -> bool:
        """Whether the slot stands in an outcome."""
        return bool(self._decided >> place & 1)

    def decide(
        self, place: int, label: Label.ValueType, kind: int, at_ms: int, event_id: str, decided_at_ms: int
    ) -> Outcome:
        """The outcome of an interaction with one slot."""
        self._decided |= 1 << place
        self._open -= 1
        outcome = self._outcome(decided_at_ms)
        outcome.slots.add(
            slot=self.impression.slots[place],
            label=label,
            interaction_type=kind,
            interaction_at_ms=at_ms,
            event_id=event_id,
        )
        return outcome

    def close(self, decided_at_ms: int) -> Outcome:
        """The outcome of time: every slot that is left."""
        labels = {place: NEGATIVE if self._seen(place) else UNSEEN for place in self._undecided()}
        self._open = 0
        outcome = self._outcome(decided_at_ms)
        slots, add = self.impression.slots, outcome.slots.add
        for place, label in labels.items():
            add(slot=slots[place], label=label)
        return outcome

    def progress(self) -> ImpressionProgress:
        """What a restart must know besides the impression."""
        return ImpressionProgress(
            decided=_places(self._decided),
            viewed=_places(self._viewed),
            clicked_to=self._clicked_to,
            begun=self._begun,
        )

    def restore(self, progress: ImpressionProgress) -> None:
        """Go on from what was known."""
        self._decided = sum(1 << place for place in progress.decided)
        self._viewed = sum(1 << place for place in progress.viewed)
        self._clicked_to = progress.clicked_to
        self._begun = progress.begun
        self._open = len(self.impression.slots) - len(progress.decided)

    def _undecided(self) -> Iterator[int]:
        return (place for place in range(len(self.impression.slots)) if not self._decided >> place & 1)

    def _seen(self, place: int) -> bool:
        if self._viewed or self._clicked_to:
            return bool(self._viewed >> place & 1) or place < self._clicked_to
        return place < self.impression.viewport

    def _outcome(self, decided_at_ms: int) -> Outcome:
        if self._bare is None:
            self._bare = Impression()
            self._bare.CopyFrom(self.impression)
            self._bare.ClearField("slots")
        first, self._begun = not self._begun, True
        return Outcome(
            request_id=self.impression.request_id,
            user_id=self.impression.user_id,
            origin=ImpressionOrigin.IMPRESSION_ORIGIN_SERVED,
            decided_at_ms=decided_at_ms,
            final=self._open == 0,
            first=first,
            impression=self._bare,
            impression_position=self.position,
        )


def _places(bits: int) -> list[int]:
    return [place for place in range(bits.bit_length()) if bits >> place & 1]
