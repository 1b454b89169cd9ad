"""A made-up stream whose next clicks can be learned: each item is mostly followed by the one after it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from millrace.settings import SECOND_MS
from millrace.v1.interaction_pb2 import Interaction, InteractionType

T0 = 1_700_000_000_000
CLICK = InteractionType.INTERACTION_TYPE_CLICK


def click(number: int, user: str, item: str, session: str = "", at_ms: int | None = None) -> Interaction:
    return Interaction(
        event_id=f"e{number}",
        user_id=user,
        item_id=item,
        type=CLICK,
        occurred_at_ms=T0 + number * SECOND_MS if at_ms is None else at_ms,
        session_id=session,
    )


def stream(
    sessions: int, seed: int = 1, items: int = 60, length: int = 5, follow: float = 0.7
) -> Iterator[Interaction]:
    """Sessions one after the other, a click a second: with probability ``follow`` the next item, else any."""
    random = np.random.default_rng(seed)
    number = 0
    for session in range(sessions):
        item = int(random.integers(items))
        for _ in range(length):
            yield click(number, f"u{session}", f"i{item}", f"s{session}")
            number += 1
            item = (item + 1) % items if random.random() < follow else int(random.integers(items))
