"""The one function that computes features. What each means stands in ``millrace.ranking.features``."""

from __future__ import annotations

import math

import numpy as np

from millrace.compiled import compiled
from millrace.ranking.circumstances import FIELDS
from millrace.ranking.features import (
    COVISIT_FLOOR,
    DURATION_MAX_MS,
    FEATURE_NAMES,
    Candidates,
    Feature,
    FloatMatrix,
    Floats,
    HalfLives,
    Ints,
    ItemColumn,
    Rows,
    Signal,
    UserActivity,
)
from millrace.ranking.sources import FRESH, TRENDING_LONG, TRENDING_SHORT
from millrace.settings import HOUR_MS, MINUTE_MS


def compute_features(
    candidates: Candidates, items: Floats, user: UserActivity, now_ms: int, half_lives: HalfLives
) -> FloatMatrix:
    """The features of n candidates.

    Parameters
    ----------
    candidates
        The n candidates.
    items
        float64[rows, len(ItemColumn)], the table of items, in which each candidate has its row.
    user
        What is known of the user.
    now_ms
        Serving time, Unix ms.
    half_lives
        Of the popularities.

    Returns
    -------
    float32[n, d], columns in the order of ``FEATURE_NAMES``.
    """
    features = np.empty((len(candidates), len(FEATURE_NAMES)), dtype=np.float32)
    _compute(
        candidates.rows,
        candidates.sources,
        candidates.signals,
        items,
        float(now_ms),
        half_lives.short_ms,
        half_lives.long_ms,
        math.log1p(user.engagements),
        math.log1p(_ago(float(now_ms), user.last_seen_ms) / MINUTE_MS),
        features,
    )
    return features


@compiled
def _compute(
    rows: Rows,
    sources: Ints,
    signals: Floats,
    items: Floats,
    now_ms: float,
    short_ms: float,
    long_ms: float,
    user_activity: float,
    user_idle: float,
    features: FloatMatrix,
) -> None:
    for n in range(len(rows)):
        row = rows[n]
        features[n, Feature.COVISIT] = signals[n, Signal.COVISIT]
        features[n, Feature.COVISIT_LAST] = signals[n, Signal.COVISIT_LAST]
        features[n, Feature.COVISIT_SUPPORT] = signals[n, Signal.COVISIT_SUPPORT]
        features[n, Feature.COVISIT_LOG] = math.log(signals[n, Signal.COVISIT] + COVISIT_FLOOR)

        # A sum from after now stays as it is.
        short = items[row, ItemColumn.POPULARITY_SHORT] * 2.0 ** -(
            max(now_ms - items[row, ItemColumn.SHORT_AS_OF_MS], 0.0) / short_ms
        )
        long = items[row, ItemColumn.POPULARITY_LONG] * 2.0 ** -(
            max(now_ms - items[row, ItemColumn.LONG_AS_OF_MS], 0.0) / long_ms
        )
        features[n, Feature.POPULARITY_SHORT] = math.log1p(short)
        features[n, Feature.POPULARITY_LONG] = math.log1p(long)
        # The short sum never exceeds the long one, unless the two stand at different times after now.
        features[n, Feature.TREND] = min(short / (1.0 + long), 1.0)
        features[n, Feature.AGE] = math.log1p(_ago(now_ms, items[row, ItemColumn.BORN_MS]) / HOUR_MS)
        features[n, Feature.IDLE] = math.log1p(_ago(now_ms, items[row, ItemColumn.LAST_SEEN_MS]) / MINUTE_MS)
        features[n, Feature.CLICK_THROUGH] = items[row, ItemColumn.CLICK_THROUGH]
        features[n, Feature.APPROVAL] = items[row, ItemColumn.APPROVAL]

        seen = signals[n, Signal.SEEN_COUNT] > 0.0
        features[n, Feature.SEEN] = seen
        features[n, Feature.SEEN_COUNT] = math.log1p(signals[n, Signal.SEEN_COUNT])
        features[n, Feature.SEEN_AGO] = (
            math.log1p(_ago(now_ms, signals[n, Signal.SEEN_AT_MS]) / MINUTE_MS) if seen else 0.0
        )

        features[n, Feature.FROM_TRENDING_SHORT] = sources[n] & TRENDING_SHORT != 0
        features[n, Feature.FROM_TRENDING_LONG] = sources[n] & TRENDING_LONG != 0
        features[n, Feature.FROM_FRESH] = sources[n] & FRESH != 0

        features[n, Feature.SIMILAR] = signals[n, Signal.SIMILAR]
        features[n, Feature.SIMILAR_LOG] = math.log(signals[n, Signal.SIMILAR] + COVISIT_FLOOR)
        features[n, Feature.SIMILAR_NEAR_LOG] = math.log(signals[n, Signal.SIMILAR_NEAR] + COVISIT_FLOOR)
        features[n, Feature.AFTER_LOG] = math.log(signals[n, Signal.AFTER] + COVISIT_FLOOR)
        features[n, Feature.BEFORE_LOG] = math.log(signals[n, Signal.BEFORE] + COVISIT_FLOOR)
        features[n, Feature.AFTER_NEWEST_LOG] = math.log(signals[n, Signal.AFTER_NEWEST] + COVISIT_FLOOR)
        features[n, Feature.NEWEST] = signals[n, Signal.NEWEST]
        features[n, Feature.IN_SESSIONS] = math.log1p(signals[n, Signal.IN_SESSIONS])
        features[n, Feature.AROUND] = signals[n, Signal.AROUND]
        features[n, Feature.AROUND_LOG] = math.log(signals[n, Signal.AROUND] + COVISIT_FLOOR)
        for field in range(len(FIELDS)):
            features[n, Feature.CONTEXT_DEVICE + field] = signals[n, Signal.LIFTS + field]
        features[n, Feature.TASTE] = signals[n, Signal.TASTE]
        features[n, Feature.TASTE_SESSION] = signals[n, Signal.TASTE_SESSION]
        features[n, Feature.USER_ACTIVITY] = user_activity
        features[n, Feature.USER_IDLE] = user_idle


@compiled
def _ago(now_ms: float, then_ms: float) -> float:
    """Milliseconds since then; nothing lies in the future, nor more than ``DURATION_MAX_MS`` back."""
    return min(max(now_ms - then_ms, 0.0), float(DURATION_MAX_MS))
