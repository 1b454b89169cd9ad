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
        item, signal, feature = items[rows[n]], signals[n], features[n]
        feature[Feature.COVISIT] = signal[Signal.COVISIT]
        feature[Feature.COVISIT_LAST] = signal[Signal.COVISIT_LAST]
        feature[Feature.COVISIT_SUPPORT] = signal[Signal.COVISIT_SUPPORT]
        feature[Feature.COVISIT_LOG] = math.log(signal[Signal.COVISIT] + COVISIT_FLOOR)

        # A sum from after now stays as it is.
        short = item[ItemColumn.POPULARITY_SHORT] * 2.0 ** -(
            max(now_ms - item[ItemColumn.SHORT_AS_OF_MS], 0.0) / short_ms
        )
        long = item[ItemColumn.POPULARITY_LONG] * 2.0 ** -(max(now_ms - item[ItemColumn.LONG_AS_OF_MS], 0.0) / long_ms)
        feature[Feature.POPULARITY_SHORT] = math.log1p(short)
        feature[Feature.POPULARITY_LONG] = math.log1p(long)
        # The short sum never exceeds the long one, unless the two stand at different times after now.
        feature[Feature.TREND] = min(short / (1.0 + long), 1.0)
        feature[Feature.AGE] = math.log1p(_ago(now_ms, item[ItemColumn.BORN_MS]) / HOUR_MS)
        feature[Feature.IDLE] = math.log1p(_ago(now_ms, item[ItemColumn.LAST_SEEN_MS]) / MINUTE_MS)
        feature[Feature.CLICK_THROUGH] = item[ItemColumn.CLICK_THROUGH]
        feature[Feature.APPROVAL] = item[ItemColumn.APPROVAL]

        seen = signal[Signal.SEEN_COUNT] > 0.0
        feature[Feature.SEEN] = seen
        feature[Feature.SEEN_COUNT] = math.log1p(signal[Signal.SEEN_COUNT])
        feature[Feature.SEEN_AGO] = math.log1p(_ago(now_ms, signal[Signal.SEEN_AT_MS]) / MINUTE_MS) if seen else 0.0

        feature[Feature.FROM_TRENDING_SHORT] = sources[n] & TRENDING_SHORT != 0
        feature[Feature.FROM_TRENDING_LONG] = sources[n] & TRENDING_LONG != 0
        feature[Feature.FROM_FRESH] = sources[n] & FRESH != 0

        feature[Feature.SIMILAR] = signal[Signal.SIMILAR]
        feature[Feature.SIMILAR_LOG] = math.log(signal[Signal.SIMILAR] + COVISIT_FLOOR)
        feature[Feature.SIMILAR_NEAR_LOG] = math.log(signal[Signal.SIMILAR_NEAR] + COVISIT_FLOOR)
        feature[Feature.AFTER_LOG] = math.log(signal[Signal.AFTER] + COVISIT_FLOOR)
        feature[Feature.BEFORE_LOG] = math.log(signal[Signal.BEFORE] + COVISIT_FLOOR)
        feature[Feature.AFTER_NEWEST_LOG] = math.log(signal[Signal.AFTER_NEWEST] + COVISIT_FLOOR)
        feature[Feature.NEWEST] = signal[Signal.NEWEST]
        feature[Feature.IN_SESSIONS] = math.log1p(signal[Signal.IN_SESSIONS])
        feature[Feature.AROUND] = signal[Signal.AROUND]
        feature[Feature.AROUND_LOG] = math.log(signal[Signal.AROUND] + COVISIT_FLOOR)
        for field in range(len(FIELDS)):
            feature[Feature.CONTEXT_DEVICE + field] = signal[Signal.LIFTS + field]
        feature[Feature.USER_ACTIVITY] = user_activity
        feature[Feature.USER_IDLE] = user_idle


@compiled
def _ago(now_ms: float, then_ms: float) -> float:
    """Milliseconds since then; nothing lies in the future, nor more than ``DURATION_MAX_MS`` back."""
    return min(max(now_ms - then_ms, 0.0), float(DURATION_MAX_MS))
