"""Where in a window the world changed, and whether enough has come since then to learn it and to judge by it."""

from __future__ import annotations

import numpy as np

from millrace.registry.gates import Gate
from millrace.settings import TrainingSettings
from millrace.training import gates
from millrace.training.fit import Parts
from millrace.training.slots import CLICKED, SlotFile, examples


def place(slots: SlotFile, since_ms: int) -> int:
    """Number of the slot that parts best what was served before a time (Unix milliseconds) from what was served since.

    The log is in the order of decisions: for the length of the attribution window after a change, clicks of the new
    world stand among what was not clicked in the old one. With the old ones these clicks are left out, so that of both
    labels as much is missing; and one that comes a day late moves nothing.
    """
    found, wrong, least, at = 0, 0, 0, 0
    for block in slots.blocks():
        # Old ones before the place are right, new ones are wrong.
        sums = wrong + np.cumsum(np.where(block["served_ms"] >= since_ms, 1, -1))
        if sums.min() <= least:
            least = int(sums.min())
            found = at + len(sums) - int(sums[::-1].argmin())
        wrong, at = int(sums[-1]), at + len(sums)
    return found


def count(slots: SlotFile, start: int) -> tuple[int, int]:
    """Examples from a slot on, and the clicks among them."""
    taught = [examples(block)["label"] for block in slots.blocks(start)]
    return sum(map(len, taught)), sum(int((labels == CLICKED).sum()) for labels in taught)


def enough(slots: SlotFile, parts: Parts, settings: TrainingSettings) -> Gate:
    """Gate ``enough_data``, of what came since the change; without one, of the whole window."""
    _, newest_clicks = count(slots, parts.choosing)
    return gates.enough_data(*count(slots, parts.change), newest_clicks, settings, since_change=parts.change > 0)
