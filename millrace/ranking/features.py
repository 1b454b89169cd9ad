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
from_trending_long     0 or 1                    it is in the list of what is popular these days
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
taste                  log                       of the lift of the item's labels among the user's items; 0 if unknown
taste_session          log                       the same among the items of the user's session
====================== ========================= ===============================================================

Those from ``similar`` to ``around_log`` are of ``millrace.ranking.session_knn``, lifts of
``millrace.ranking.context_counts``, tastes of ``millrace.ranking.labels``.

Every value is finite by construction: times are clamped to 0 to 30 days (a request's as_of may lie before the
state that it meets), ratios are bounded, and logarithms are taken of values above zero.

Price and availability are not among them: the price of another shop says nothing, and what is not available is no
candidate.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from millrace.ranking.circumstances import FIELDS
from millrace.settings import DAY_MS
from millrace.v1.item_pb2 import ItemState

FloatMatrix: TypeAlias = npt.NDArray[np.float32]
Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
Rows: TypeAlias = npt.NDArray[np.int32]


class Feature(IntEnum):
    """The columns, in order."""

    COVISIT = 0
    COVISIT_LAST = 1
    COVISIT_SUPPORT = 2
    COVISIT_LOG = 3
    POPULARITY_SHORT = 4
    POPULARITY_LONG = 5
    AGE = 6
    IDLE = 7
    SEEN_AGO = 8
    SEEN_COUNT = 9
    TREND = 10
    CLICK_THROUGH = 11
    APPROVAL = 12
    SEEN = 13
    FROM_TRENDING_SHORT = 14
    FROM_TRENDING_LONG = 15
    FROM_FRESH = 16
    SIMILAR = 17
    SIMILAR_LOG = 18
    SIMILAR_NEAR_LOG = 19
    AFTER_LOG = 20
    BEFORE_LOG = 21
    AFTER_NEWEST_LOG = 22
    NEWEST = 23
    IN_SESSIONS = 24
    AROUND = 25
    AROUND_LOG = 26
    CONTEXT_DEVICE = 27
    CONTEXT_OS = 28
    CONTEXT_COUNTRY = 29
    CONTEXT_REGION = 30
    CONTEXT_REFERRER = 31
    CONTEXT_PLACEMENT = 32
    CONTEXT_OTHER = 33
    USER_ACTIVITY = 34
    USER_IDLE = 35
    TASTE = 36
    TASTE_SESSION = 37


FEATURE_NAMES: tuple[str, ...] = tuple(feature.name.lower() for feature in Feature)

# The number in front moves when a column keeps its name and changes its meaning.
FEATURE_SCHEMA = f"v1-{hashlib.sha256(','.join(FEATURE_NAMES).encode()).hexdigest()[:8]}"


class Signal(IntEnum):
    """What generators know of a candidate, before there are features: columns of ``Candidates.signals``.

    covisit, covisit_last and covisit_support of the table above; when last (Unix ms) and how often the user engaged
    with the item (0 for never); similar and the figures behind similar_near_log to after_newest_log; around; whether
    it is the newest; how often it stands in sessions (0 if the user has none). From ``LIFTS`` on they are looked up for
    those few that the model ranks: the lifts, one for each field, and the tastes.
    """

    COVISIT = 0
    COVISIT_LAST = 1
    COVISIT_SUPPORT = 2
    SEEN_AT_MS = 3
    SEEN_COUNT = 4
    SIMILAR = 5
    SIMILAR_NEAR = 6
    AFTER = 7
    BEFORE = 8
    AFTER_NEWEST = 9
    AROUND = 10
    NEWEST = 11
    IN_SESSIONS = 12
    LIFTS = 13
    TASTE = 20
    TASTE_SESSION = 21


SIGNALS = len(Signal) - 1 + len(FIELDS)

# An item's or user's silence beyond the default TTL of features tells nothing more.
DURATION_MAX_MS = 30 * DAY_MS
# Keeps log(0) away: one follow-up in a thousand is told apart from none, fewer hardly.
COVISIT_FLOOR = 1e-3
# Click-through of a typical recommendation slot, and the number of views after which an item's own figure counts
# as much as that prior.
CLICK_THROUGH_PRIOR, CLICK_THROUGH_PRIOR_VIEWS = 0.05, 20.0
# One like and one dislike in advance (Laplace).
APPROVAL_PRIOR = 1.0


class ItemColumn(IntEnum):
    """What the features need of an item, as a row of float64 (a double holds milliseconds exactly for 285,000 years).

    The decayed sums, the event times that they stand at, when it was published or first met (infinity: unknown) and
    last met (0: never), Unix ms; then the smoothed shares of the table above.
    """

    POPULARITY_SHORT = 0
    POPULARITY_LONG = 1
    SHORT_AS_OF_MS = 2
    LONG_AS_OF_MS = 3
    BORN_MS = 4
    LAST_SEEN_MS = 5
    CLICK_THROUGH = 6
    APPROVAL = 7


def item_row(state: ItemState) -> tuple[float, ...]:
    """The row (``ItemColumn``) of an item's state."""
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
        float64[n, SIGNALS], columns in the order of ``Signal``.
    """

    rows: Rows
    sources: Ints
    signals: Floats

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, chosen: npt.NDArray[np.intp]) -> Candidates:
        """The chosen ones, in that order."""
        return Candidates(self.rows[chosen], self.sources[chosen], self.signals[chosen])
