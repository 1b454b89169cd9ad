"""From outcomes to what a watch counts: features and scores of some answers, labels of all."""

from __future__ import annotations

import math
from zlib import crc32

import numpy as np

from millrace.drift.block import Block
from millrace.drift.measures import CALIBRATION, CLICK_THROUGH, LOG_LOSS, LOSS_LIMIT, of_segment
from millrace.drift.watch import Watch
from millrace.settings import HOUR_MS, MINUTE_MS
from millrace.v1.outcome_pb2 import Label, Outcome

# Scores and losses are rounded to so small a part of 1 that sums are exact: how a stream was cut into batches, and how
# often its reader was killed, changes nothing.
_EXACT = 2.0**24
_SEEN = {Label.LABEL_POSITIVE: 1, Label.LABEL_NEGATIVE: 0}


class Taking:
    """Gathers outcomes of a batch, which are then counted together: that is many times cheaper than one by one.

    Parameters
    ----------
    share
        Of the answers whose features are counted, by a hash of the answer's id: all slots of an answer, or none.
    """

    def __init__(self, watch: Watch, share: float) -> None:
        self._watch = watch
        self._below = round(share * 2**32)
        self._width = len(watch.values)
        self._rows: dict[int, list[list[float]]] = {}
        # Minute and segment -> slots, clicks, predicted clicks and losses.
        self._sums: dict[tuple[int, str], list[float]] = {}

    def take(self, outcome: Outcome) -> None:
        """Take a served outcome of the watched version."""
        impression = outcome.impression
        served_ms = impression.served_at_ms
        self._watch.saw(served_ms)
        sums = self._sums.get((served_ms // MINUTE_MS, impression.segment))
        if sums is None:
            sums = self._sums[served_ms // MINUTE_MS, impression.segment] = [0.0, 0.0, 0.0, 0.0]
        for decided in outcome.slots:
            label = _SEEN.get(decided.label)
            score = decided.slot.score
            if label is not None and 0 <= score <= 1:
                sums[0] += 1
                sums[1] += label
                sums[2] += round(score * _EXACT) / _EXACT
                sums[3] += round(_loss(score, label) * _EXACT) / _EXACT
        if crc32(outcome.request_id.encode()) < self._below:
            rows = self._rows.setdefault(served_ms // HOUR_MS, [])
            for decided in outcome.slots:
                row = [*decided.slot.features, decided.slot.score]
                if len(row) == self._width:
                    rows.append(row)

    def count(self) -> tuple[set[int], int]:
        """Count what was gathered: the hours whose values have changed, and of how many slots."""
        for (minute, segment), (slots, clicks, predicted, losses) in self._sums.items():
            count, at_ms = int(slots), minute * MINUTE_MS
            if count:
                clicked = Block(count, clicks, slots)
                self._watch.label(CLICK_THROUGH, at_ms, clicked)
                self._watch.label(of_segment(CLICK_THROUGH, segment), at_ms, clicked)
                self._watch.label(CALIBRATION, at_ms, Block(count, clicks, predicted))
                self._watch.label(LOG_LOSS, at_ms, Block(count, losses, slots))
        self._sums = {}
        changed, counted = set(), 0
        for hour, rows in self._rows.items():
            if rows:
                self._watch.count(hour, np.array(rows, dtype=np.float32))
                changed.add(hour)
                counted += len(rows)
        self._rows = {}
        return changed & self._watch.hours.keys(), counted


def _loss(score: float, label: int) -> float:
    """Log loss as a share of the limit that it is cut at."""
    right = score if label else 1.0 - score
    return min(-math.log(right) / LOSS_LIMIT, 1.0) if right > 0 else 1.0
