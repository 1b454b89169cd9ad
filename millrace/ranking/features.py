"""The features of a candidate: their names, their schema, and the one function that computes them.

The recommender, the learner and the training job import this module, so that a feature means the same where it is
served, logged and learned. n candidates give a float32[n, d] matrix whose columns are, in this order:

====================== ========================= ===============================================================
column                 unit                      source
====================== ========================= ===============================================================
covisit                expected follow-ups, >= 0 co-visitation: sum over the user's last items of P(candidate
                                                 follows item) / place of the item (1 = newest)
covisit_last           probability               P(candidate follows the user's newest item)
covisit_support        share, 0-1                of the user's last items, those that the candidate follows
covisit_log            log                       log(covisit + 0.001)
popularity_short       log1p of engagements      item state, decayed with the short half-life to now
popularity_long        log1p of engagements      item state, decayed with the long half-life to now
age                    log1p of hours            since publication, else first interaction; 0 if both are unknown
idle                   log1p of minutes          since the item's last interaction; 30 days if there was none
seen_ago               log1p of minutes          since the user's last engagement with it; 0 if not seen
seen_count             log1p of times            how often the user engaged with it (within the recent ones kept)
trend                  ratio, 0-1                popularity_short / (1 + popularity_long), before the logarithms
click_through          probability               clicks per view, smoothed towards 5 % with the weight of 20 views
approval               probability               likes among likes and dislikes, smoothed towards 1/2
seen                   0 or 1                    the user engaged with the item (within the recent ones kept)
from_trending_short    0 or 1                    it is in the list of what is popular now
from_trending_long     0 or 1                    it is in the list of what is popular today
from_fresh             0 or 1                    it was drawn from what is new in the catalogue
similar                share, 0-1                of the likeness of the nearest sessions, that of those with the item
similar_log            log                       log(similar + 0.001)
similar_near_log       log                       the same of the share weighted by nearness to a common item
after_log              log                       log(. + 0.001) of how often it closely follows the session's items
before_log             log                       the same of how often it closely precedes them
after_newest_log       log                       the same of how often it closely follows the newest one
newest                 0 or 1                    it is the item that the user turned to last
in_sessions            log1p of places           how often it stands in sessions; 0 if the user has none
around                 share, 0-1                how often it stands around the user's last items, beside the best one
around_log             log                       log(around + 0.001)
context_device, ...    log                       of the lift under the request's device, os, country, region, referrer
                                                 and placement; context_other: of its attributes; 0 if unknown
user_activity          log1p of engagements      the user's own, decayed with the user half-life to now
user_idle              log1p of minutes          since the user's last interaction; 30 days if there was none
====================== ========================= ===============================================================

Those from ``similar`` to ``around_log`` are of ``millrace.ranking.session_knn``, lifts of
``millrace.ranking.context_counts``.

Every value is finite by construction: times are clamped to 0 to 30 days (a request's as_of may lie before the
state that it meets), ratios are bounded, and logarithms are taken of values above zero.

Price and availability are not among them: the price of another shop says nothing, and what is not available is no
candidate.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from millrace.ranking.circumstances import FIELDS
from millrace.ranking.sources import FRESH, TRENDING_LONG, TRENDING_SHORT
from millrace.settings import DAY_MS, HOUR_MS, MINUTE_MS
from millrace.v1.item_pb2 import ItemState

FloatMatrix: TypeAlias = npt.NDArray[np.float32]
Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
Rows: TypeAlias = npt.NDArray[np.int32]

FEATURE_NAMES: tuple[str, ...] = (
    "covisit",
    "covisit_last",
    "covisit_support",
    "covisit_log",
    "popularity_short",
    "popularity_long",
    "age",
    "idle",
    "seen_ago",
    "seen_count",
    "trend",
    "click_through",
    "approval",
    "seen",
    "from_trending_short",
    "from_trending_long",
    "from_fresh",
    "similar",
    "similar_log",
    "similar_near_log",
    "after_log",
    "before_log",
    "after_newest_log",
    "newest",
    "in_sessions",
    "around",
    "around_log",
    *(f"context_{field}" for field in FIELDS),
    "user_activity",
    "user_idle",
)

# The number in front moves when a column keeps its name and changes its meaning.
FEATURE_SCHEMA = f"v1-{hashlib.sha256(','.join(FEATURE_NAMES).encode()).hexdigest()[:8]}"

# An item's or user's silence beyond the default TTL of features tells nothing more.
DURATION_MAX_MS = 30 * DAY_MS
# Keeps log(0) away: one follow-up in a thousand is told apart from none, fewer hardly.
COVISIT_FLOOR = 1e-3
# Rows of ``Candidates.signals``, and the first of the lifts among them.
LIFTS = 13
SIGNALS = LIFTS + len(FIELDS)
# Click-through of a typical recommendation slot, and the number of views after which an item's own figure counts
# as much as that prior.
CLICK_THROUGH_PRIOR, CLICK_THROUGH_PRIOR_VIEWS = 0.05, 20.0
# One like and one dislike in advance (Laplace).
APPROVAL_PRIOR = 1.0

ITEM_COLUMNS: tuple[str, ...] = (
    "popularity_short",
    "popularity_long",
    "short_as_of_ms",
    "long_as_of_ms",
    "born_ms",
    "last_seen_ms",
    "click_through",
    "approval",
)
"""What the features need of an item, as a row of float64 (a double holds milliseconds exactly for 285,000 years): the
decayed sums, the event times that they stand at, when it was published or first met (infinity: unknown) and last met
(0: never), Unix ms; then the smoothed shares of the table above."""


def item_row(state: ItemState) -> tuple[float, ...]:
    """The row (``ITEM_COLUMNS``) of an item's state."""
    counts, short, long = state.counts, state.popularity_short, state.popularity_long
    return (
        short.value,
        long.value,
        short.as_of_ms,
        long.as_of_ms,
        state.catalogue.published_at_ms or state.first_seen_ms or math.inf,
        state.last_seen_ms,
        click_through(counts.clicks, counts.views),
        approval(counts.likes, counts.dislikes),
    )


def click_through(clicks: int, views: int) -> float:
    """Clicks per view, smoothed."""
    # Clicks without views (a replayed history has none) say nothing of click-through: they count up to the views.
    clicked = min(clicks, views) + CLICK_THROUGH_PRIOR * CLICK_THROUGH_PRIOR_VIEWS
    return clicked / (views + CLICK_THROUGH_PRIOR_VIEWS)


def approval(likes: int, dislikes: int) -> float:
    """Likes among likes and dislikes, smoothed."""
    return (likes + APPROVAL_PRIOR) / (likes + dislikes + 2 * APPROVAL_PRIOR)


@dataclass(frozen=True)
class HalfLives:
    """Half-lives of the decayed sums, milliseconds (from ``FeatureSettings``)."""

    short_ms: int
    long_ms: int

    @cached_property
    def rates(self) -> Floats:
        """Binary logarithm of what is left after a millisecond, float64[2, 1]."""
        return np.array([[-1.0 / self.short_ms], [-1.0 / self.long_ms]])


@dataclass(frozen=True, slots=True)
class UserActivity:
    """What the features need of the user.

    Attributes
    ----------
    engagements
        Engagements decayed to serving time; 0 for an unknown user.
    last_seen_ms
        Event time of the last interaction, Unix ms; 0 if there was none.
    """

    engagements: float = 0.0
    last_seen_ms: int = 0


@dataclass(frozen=True, slots=True)
class Candidates:
    """n candidates, as parallel arrays.

    Attributes
    ----------
    rows
        int32[n], place of each item in the table of items; no item twice.
    sources
        int64[n], bits of the generators that proposed the item (``millrace.ranking.sources``).
    signals
        float64[SIGNALS, n]: covisit, covisit_last and covisit_support of the table above; when last (Unix ms) and how
        often the user engaged with the item (0 for never); the first five of ``SessionSignals.sums``; whether it is
        the newest; how often it stands in sessions (0 if the user has none); around; and the lifts.
    """

    rows: Rows
    sources: Ints
    signals: Floats

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, chosen: npt.NDArray[np.intp]) -> Candidates:
        """The chosen ones, in that order."""
        return Candidates(self.rows[chosen], self.sources[chosen], self.signals[:, chosen])


_SOURCE_FLAGS = np.array([[TRENDING_SHORT], [TRENDING_LONG], [FRESH]])


# Of age, idle and seen_ago.
_DURATION_UNITS_MS = np.array([[HOUR_MS], [MINUTE_MS], [MINUTE_MS]], dtype=np.float64)


def compute_features(
    candidates: Candidates, items: Floats, user: UserActivity, now_ms: int, half_lives: HalfLives
) -> FloatMatrix:
    """The features of n candidates.

    Parameters
    ----------
    candidates
        The n candidates.
    items
        float64[n, len(ITEM_COLUMNS)], the row of each candidate's item (the table indexed by ``candidates.rows``).
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
    n = len(candidates)
    by_column, signals = items.T, candidates.signals
    # Times since: short_as_of, long_as_of, born, last_seen, and the user's last engagement. A sum from after now
    # stays as it is, and nothing lies in the future.
    ago = np.empty((5, n))
    np.subtract(now_ms, by_column[2:6], out=ago[:4])
    np.subtract(now_ms, signals[3], out=ago[4])
    np.maximum(ago, 0.0, out=ago)
    popularity = np.exp2(ago[:2] * half_lives.rates)
    popularity *= by_column[:2]
    durations = np.minimum(ago[2:], DURATION_MAX_MS, out=ago[2:])

    # One row for each feature: contiguous while it is written; turned round once at the end.
    features = np.empty((len(FEATURE_NAMES), n))
    features[:3] = signals[:3]
    np.log(signals[0] + COVISIT_FLOOR, out=features[3])
    features[4:6] = popularity
    np.divide(durations, _DURATION_UNITS_MS, out=features[6:9])
    features[9] = signals[4]
    np.greater(signals[4], 0.0, out=features[13])
    features[8] *= features[13]
    np.log1p(features[4:10], out=features[4:10])
    # The short sum never exceeds the long one, unless the two stand at different times after now.
    np.minimum(popularity[0] / (1.0 + popularity[1]), 1.0, out=features[10])
    features[11:13] = by_column[6:8]
    np.not_equal(candidates.sources & _SOURCE_FLAGS, 0, out=features[14:17])
    features[17] = signals[5]
    np.add(signals[5:10], COVISIT_FLOOR, out=features[18:23])
    np.log(features[18:23], out=features[18:23])
    features[23] = signals[10]
    np.log1p(signals[11], out=features[24])
    features[25] = signals[12]
    np.log(signals[12] + COVISIT_FLOOR, out=features[26])
    features[27:-2] = signals[LIFTS:]
    features[-2] = math.log1p(user.engagements)
    features[-1] = math.log1p(min(max(now_ms - user.last_seen_ms, 0), DURATION_MAX_MS) / MINUTE_MS)
    return np.ascontiguousarray(features.T, dtype=np.float32)
