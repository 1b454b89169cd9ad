"""Outcomes of a made-up world in which a known linear model says what is clicked."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from millrace.ranking.features import FEATURE_NAMES, FEATURE_SCHEMA
from millrace.v1.impression_pb2 import Impression, Slot
from millrace.v1.outcome_pb2 import DecidedSlot, ImpressionOrigin, Label, Outcome

D = len(FEATURE_NAMES)


def truth(seed: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Weights of the world."""
    return np.random.default_rng(seed).normal(0, 0.7, D)


def outcomes(count: int, seed: int = 1, users: int = 50, slots: int = 5) -> Iterator[Outcome]:
    """Outcomes whose labels follow the world's weights."""
    random, weights = np.random.default_rng(seed), truth(7)
    for number in range(count):
        features = random.normal(0, 1, (slots, D)).astype(np.float32)
        clicked = random.random(slots) < 1 / (1 + np.exp(-(features @ weights)))
        yield Outcome(
            request_id=f"r{seed}-{number}",
            user_id=f"user {random.integers(users)}",
            origin=ImpressionOrigin.IMPRESSION_ORIGIN_SERVED,
            decided_at_ms=1_700_000_000_000 + number,
            first=True,
            final=True,
            impression=Impression(request_id=f"r{seed}-{number}", feature_schema=FEATURE_SCHEMA, model_name="ranker"),
            slots=[
                DecidedSlot(
                    slot=Slot(item_id=f"item-{place}", rank=place, features=row),
                    label=Label.LABEL_POSITIVE if positive else Label.LABEL_NEGATIVE,
                )
                for place, (row, positive) in enumerate(zip(features.tolist(), clicked.tolist(), strict=True))
            ],
        )
