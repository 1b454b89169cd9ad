"""Segments of users: rules on recency, frequency and value.

Each user is in exactly one segment, the first that holds:

=========== ==================================================================================================
segment     rule
=========== ==================================================================================================
unknown     nothing is known of the user
lapsed      last seen 14 days ago or longer
new         fewer than 3 engagements so far
buyer       purchases, decayed (half-life of a week by default), of 1 or more: about one bought a week, or lately two
frequent    engagements, decayed likewise, of 20 or more: about two a day
casual      everybody else
=========== ==================================================================================================

Recency, frequency and (monetary) value are the classic three of database marketing (Hughes 1994). Value is the number
of purchases here and not their sum: a bound in money would have to be set for each shop and currency. The bounds
are rules of thumb; nothing learns from them, they only divide figures and drift signals.
"""

from __future__ import annotations

from millrace.features.user_state import ENGAGEMENT_TYPES, UserState
from millrace.settings import DAY_MS
from millrace.v1.interaction_pb2 import InteractionType

SEGMENTS: tuple[str, ...] = ("unknown", "lapsed", "new", "buyer", "frequent", "casual")

LAPSED_MS = 14 * DAY_MS
NEW_ENGAGEMENTS = 3
BUYER_PURCHASES = 1.0
FREQUENT_ENGAGEMENTS = 20.0


def segment(state: UserState | None, now_ms: int, half_life_ms: float = 7 * DAY_MS) -> str:
    """The user's segment as of ``now_ms``.

    Parameters
    ----------
    half_life_ms
        The user half-life that the state was decayed with (``FeatureSettings.user_half_life_ms``).
    """
    if state is None:
        return "unknown"
    if now_ms - state.last_seen_ms >= LAPSED_MS:
        return "lapsed"
    if sum(count for kind, count in state.counts.items() if kind in ENGAGEMENT_TYPES) < NEW_ENGAGEMENTS:
        return "new"
    purchases = state.decayed.get(InteractionType.INTERACTION_TYPE_PURCHASE)
    if purchases is not None and purchases.at(now_ms, half_life_ms) >= BUYER_PURCHASES:
        return "buyer"
    if state.engagements(now_ms, half_life_ms) >= FREQUENT_ENGAGEMENTS:
        return "frequent"
    return "casual"
