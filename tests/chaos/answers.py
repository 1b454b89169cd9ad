"""Answers whose every slot is in a ledger: what the joiner is held to whatever befalls it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from google.protobuf.message import Message

from millrace.settings import MINUTE_MS, KafkaSettings
from millrace.topics import IMPRESSIONS, INTERACTIONS
from millrace.v1.impression_pb2 import Impression
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.outcome_pb2 import Outcome
from tests.chaos.results import Found
from tests.outcome_support import T0, act, check_frames, impression, labels
from tests.stream_support import headers_of, read_all


@dataclass
class Shown:
    """What the ledger knows of an answer."""

    items: list[str]
    viewport: int
    clicked: set[str] = field(default_factory=set)
    disliked: set[str] = field(default_factory=set)
    viewed: set[str] = field(default_factory=set)

    def label(self, item: str) -> str:
        if item in self.clicked:
            return "positive"
        if item in self.disliked:
            return "negative"
        place = self.items.index(item)
        lowest = max((self.items.index(clicked) for clicked in self.clicked), default=-1)
        read = bool(self.viewed or self.clicked)
        seen = item in self.viewed or place < lowest if read else place < self.viewport
        return "negative" if seen else "unseen"


class AnswerLedger:
    """Makes answers and what users do with them, and knows what has to come of it."""

    def __init__(self, seed: int) -> None:
        self.shown: dict[str, Shown] = {}
        self.misplaced: set[str] = set()
        self._chance = random.Random(seed)

    def lot(self, number: int, answers: int, since_ms: int = T0) -> list[tuple[Impression | Interaction, str]]:
        """Records of some answers with their topics, some twice, a click now and then before its answer."""
        chance, records = self._chance, list[tuple[Impression | Interaction, str]]()
        for place in range(answers):
            request_id, user = f"r{number}-{place}", f"reader {chance.randrange(40)}"
            items = [f"item-{item}" for item in chance.sample(range(100), 8)]
            at_ms = since_ms + chance.randrange(10 * MINUTE_MS)
            shown = self.shown[request_id] = Shown(items, viewport=3)
            made = impression(request_id, user, items, at_ms, viewport=3)
            own: list[tuple[Impression | Interaction, str]] = [(made, IMPRESSIONS.name)]
            for kind, item in zip(chance.choices(("view", "click", "dislike"), (6, 3, 1), k=4), items, strict=False):
                # A slot is either clicked or disliked: which came first is a matter of the order.
                {"view": shown.viewed, "click": shown.clicked, "dislike": shown.disliked}[kind].add(item)
                event = act(user, item, kind, at_ms + 1, request_id, f"{request_id} {item}")  # type: ignore[arg-type]
                own.append((event, INTERACTIONS.name))
            if chance.random() < 0.1:
                wrong = act(user, "never shown", "click", at_ms + 1, request_id, f"{request_id} wrong")
                self.misplaced.add(wrong.event_id)
                own.append((wrong, INTERACTIONS.name))
            elif chance.random() < 0.1:
                own.append(chance.choice(own))
            if chance.random() < 0.1:
                chance.shuffle(own)
            records += own
        return records

    def expected(self) -> dict[tuple[str, str], str]:
        """Label of each slot."""
        return {
            (request_id, item): shown.label(item) for request_id, shown in self.shown.items() for item in shown.items
        }

    def found(self, events: int, outcomes: Iterable[Outcome]) -> Found:
        """Slots that were decided, against those that were shown."""
        found, expected = Found(events), self.expected()
        decided = Counter((outcome.request_id, one.slot.item_id) for outcome in outcomes for one in outcome.slots)
        for slot in expected.keys() | decided.keys():
            found.compare(slot in expected, decided[slot])
        return found

    def assert_equals(self, kafka: KafkaSettings, outcomes: Sequence[Outcome]) -> None:
        """Every slot is decided once and as the ledger says, and what named a wrong item is a dead letter, once."""
        check_frames(outcomes)
        assert labels(outcomes) == self.expected()
        dead = [
            (one.event_id, headers_of(message).get("dlq.field"))
            for message, one in zip(
                read_all(kafka, INTERACTIONS.dlq), values(kafka, INTERACTIONS.dlq, Interaction), strict=True
            )
            if isinstance(one, Interaction)
        ]
        assert sorted(dead) == sorted((event_id, b"item_id") for event_id in self.misplaced)
        assert not read_all(kafka, IMPRESSIONS.dlq)


def values(kafka: KafkaSettings, topic: str, kind: type[Message]) -> list[Message]:
    """Every committed message of a topic."""
    found = []
    for message in read_all(kafka, topic):
        value = message.value()
        assert isinstance(value, bytes)
        found.append(kind.FromString(value))
    return found
