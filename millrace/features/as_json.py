"""A user's features for JSON, the same of the command line and of the gateway."""

from __future__ import annotations

from typing import Any

from millrace.enums import name_of
from millrace.features.segments import segment
from millrace.features.user_state import UserState
from millrace.topics import INTERACTIONS
from millrace.v1.interaction_pb2 import InteractionType


def user_as_dict(user_id: str, state: UserState, now_ms: int, half_life_ms: float) -> dict[str, Any]:
    """All features, with the segment as of ``now_ms`` (Unix milliseconds); times are Unix milliseconds."""
    return {
        "user_id": user_id,
        "segment": segment(state, now_ms, half_life_ms),
        "counts": {_type(kind): count for kind, count in state.counts.items()},
        "decayed": {
            _type(kind): {"value": total.value, "as_of_ms": total.as_of_ms} for kind, total in state.decayed.items()
        },
        "first_seen_ms": state.first_seen_ms,
        "last_seen_ms": state.last_seen_ms,
        "purchase_value": state.purchase_value,
        "recent": [{"item_id": item.item_id, "type": _type(item.type), "at_ms": item.at_ms} for item in state.recent],
        "disliked": sorted(state.disliked),
        "known": {"topic": INTERACTIONS.name, "partition": state.known.partition, "offset": state.known.offset},
    }


def _type(kind: int) -> str:
    """Also of a type that only the updater knows, which was upgraded before this process."""
    return name_of(InteractionType.DESCRIPTOR, kind)
