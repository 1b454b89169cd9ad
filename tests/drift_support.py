"""A version with a reference, and outcomes that it meets."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np

from millrace.drift.block import Baseline, Block
from millrace.drift.measures import CALIBRATION, CLICK_THROUGH, LOG_LOSS, SCORE
from millrace.drift.reference import Reference
from millrace.drift.storing import Labels, ModelReference
from millrace.ranking.features import FEATURE_NAMES, FEATURE_SCHEMA
from millrace.settings import DAY_MS, HOUR_MS
from millrace.v1.impression_pb2 import Impression, Slot
from millrace.v1.outcome_pb2 import DecidedSlot, ImpressionOrigin, Label, Outcome

D = len(FEATURE_NAMES)
RATE = 0.1
T0 = 1_700_000_000_000 // DAY_MS * DAY_MS


@cache
def reference() -> ModelReference:
    """Normal features and scores of seven days, and a tenth of the slots clicked, of 70,000."""
    random = np.random.default_rng(1)
    days = np.repeat(np.arange(7), 500)
    values = tuple(Reference.of_numbers(name, random.normal(size=len(days)), days) for name in FEATURE_NAMES)
    scores = Reference.of_numbers(SCORE, random.uniform(0, 2 * RATE, len(days)), days)
    clicks = Labels(Baseline.of([Block(1_000, 1_000 * RATE, 1_000.0)] * 70))
    calibration = Labels(Baseline.of([Block(1_000, 1_000 * RATE, 1_000 * RATE)] * 70))
    losses = Labels(Baseline.of([Block(1_000, 46.0, 1_000.0)] * 70))
    labels = {CLICK_THROUGH: clicks, CALIBRATION: calibration, LOG_LOSS: losses, f"{CLICK_THROUGH}:new": clicks}
    return ModelReference((*values, scores), labels)


def served(
    count: int, start_ms: int, hours: float, seed: int, rate: float = RATE, shift: float = 0.0, version: str = "2"
) -> Iterator[Outcome]:
    """Outcomes of five slots, evenly over some hours; ``shift`` moves the first feature."""
    random = np.random.default_rng(seed)
    for number in range(count):
        features = random.normal(size=(5, D)).astype(np.float32)
        features[:, 0] += shift
        clicked = random.random(5) < rate
        yield Outcome(
            request_id=f"r{seed}-{number}",
            user_id="one",  # of one partition: hours of serving are sent in a second
            origin=ImpressionOrigin.IMPRESSION_ORIGIN_SERVED,
            decided_at_ms=start_ms + round(number * hours * HOUR_MS / count),
            first=True,
            final=True,
            impression=Impression(
                request_id=f"r{seed}-{number}",
                served_at_ms=start_ms + round(number * hours * HOUR_MS / count),
                feature_schema=FEATURE_SCHEMA,
                model_name="watched",
                model_version=version,
                segment=("new", "casual")[number % 2],
            ),
            slots=[
                DecidedSlot(
                    slot=Slot(item_id=f"i{place}", rank=place, features=row, score=float(random.uniform(0, 2 * RATE))),
                    label=Label.LABEL_POSITIVE if positive else Label.LABEL_NEGATIVE,
                )
                for place, (row, positive) in enumerate(zip(features.tolist(), clicked.tolist(), strict=True))
            ],
        )
