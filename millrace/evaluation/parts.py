"""The parts of the recommender that ``millrace evaluate --without`` leaves out, and which features each gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

POPULARITY, LABELS, REPEATS, LEARNING = "popularity", "labels", "repeats", "learning"


@dataclass(frozen=True, slots=True)
class Part:
    """A part.

    Attributes
    ----------
    what
        For people.
    columns
        Its features: names of ``FEATURE_NAMES``, or patterns of them (``context_*``).
    limits
        Those of ``CandidateLimits`` with which its generator proposes nothing, when they are 0.
    """

    what: str
    columns: Sequence[str] = ()
    limits: Sequence[str] = ()


PARTS: Mapping[str, Part] = {
    "neighbours": Part(
        "what follows the user's items in sessions, as candidates, and how often it does",
        ("covisit*",),
        ("context_items",),
    ),
    "sessions": Part(
        "what stands in sessions like the user's, as candidates, and what such sessions say of an item",
        ("similar*", "after_*", "before_*", "newest", "in_sessions", "around*"),
        ("session_items",),
    ),
    POPULARITY: Part(
        "what is trending, as candidates, and how popular an item is",
        ("popularity_*", "trend", "from_trending_*"),
        ("trending_items",),
    ),
    "context": Part("how popular an item is by device, region, referrer and so on", ("context_*",)),
    LABELS: Part("how far an item's labels in the catalogue are to the user's taste", ("taste*",)),
    REPEATS: Part("the user's own items, as candidates, and what the user has seen", ("seen*", "newest")),
    LEARNING: Part("the ranker learns; without, the first one stays as it is"),
}
"""Name -> part. ``newest`` is of two: what the user has seen, as the sessions' generator finds it."""

REST: Sequence[str] = ("age", "idle", "click_through", "approval", "from_fresh", "user_activity", "user_idle")
"""Features of no part: an item's age and idle time, what is thought of it, what is new, and the user's activity."""
