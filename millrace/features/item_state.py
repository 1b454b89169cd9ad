"""One item's features as they stand in Redis, and as the ``ItemState`` that mirrors get.

The statistics are a hash ``i:<item_id>``, written by ``lua/items.lua`` only:

=================== ==============================================================================================
field               content
=================== ==============================================================================================
state               ``STATE``
neighbours          for each neighbour 0x1f, its id, 0x1e and its place as six digits, in the order of places from 1
weights             doubles: landmark (ms), time of the newest event in the weights (ms), then the weight of each place
                    as of the landmark
guards              the newest position (u64, offset << 16 | partition) taken from each partition of ``interactions``
=================== ==============================================================================================

All numbers are little-endian. ``version`` grows with every change, also across expiry: microseconds of Redis' clock, or
one more than before.

The catalogue entry is a hash ``c:<item_id>`` without TTL, written by ``lua/catalogue.lua`` only: ``item`` (protobuf),
``version``, and guards of the topic ``items``.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from math import exp2

from millrace.settings import FeatureSettings
from millrace.v1.item_pb2 import ItemState, Neighbours

STATE = struct.Struct("<16d")
"""Version; accepted interactions of each type, 1 (VIEW) to 8 (CUSTOM); engagements decayed with the short and with
the long half-life, and the time of these sums (ms); event times of the earliest and the latest interaction (ms; 0:
none); sum of all ratings; money earned."""

ITEM_FIELDS: tuple[str, ...] = ("state", "neighbours", "weights")
"""Fields of ``i:<item_id>`` that ``decode_item`` takes, in its order."""
CATALOGUE_FIELDS: tuple[str, ...] = ("item", "version")
"""Fields of ``c:<item_id>`` that ``decode_item`` takes, in its order."""

_COUNTS = ("views", "clicks", "add_to_carts", "purchases", "likes", "dislikes", "ratings", "customs")

PLACE = "\x1e000001"
"""What follows the id of a neighbour: a separator and six digits."""


def item_key(item_id: str) -> str:
    """Key of the item's statistics."""
    return f"i:{item_id}"


def catalogue_key(item_id: str) -> str:
    """Key of the item's catalogue entry."""
    return f"c:{item_id}"


def decode_item(
    item_id: str, values: Sequence[bytes | None], entry: Sequence[bytes | None], settings: FeatureSettings
) -> ItemState | None:
    """The state from the values of ``ITEM_FIELDS`` and ``CATALOGUE_FIELDS`` (HMGET, not decoded to text).

    None: the item is neither in the statistics (never seen, or expired) nor in the catalogue.
    """
    catalogue, catalogue_version = entry
    packed, neighbours, weights = values
    if packed is None and catalogue is None:
        return None
    state = ItemState(item_id=item_id, version=int(catalogue_version or 0))
    if catalogue is not None:
        state.catalogue.MergeFromString(catalogue)
    if packed is not None:
        _decode_statistics(packed, state)
    if neighbours is not None and weights is not None:
        _decode_neighbours(neighbours, weights, settings, state.neighbours)
    return state


def _decode_statistics(packed: bytes, state: ItemState) -> None:
    version, *counts, short, long, as_of_ms, first_ms, last_ms, rating_sum, purchase_value = STATE.unpack(packed)
    state.version = max(state.version, int(version))
    for name, count in zip(_COUNTS, counts, strict=True):
        if count:
            setattr(state.counts, name, int(count))
    if as_of_ms:
        state.popularity_short.value, state.popularity_long.value = short, long
        state.popularity_short.as_of_ms = state.popularity_long.as_of_ms = int(as_of_ms)
    state.first_seen_ms, state.last_seen_ms = int(first_ms), int(last_ms)
    state.rating_sum, state.purchase_value = rating_sum, purchase_value


def _decode_neighbours(names: bytes, weights: bytes, settings: FeatureSettings, neighbours: Neighbours) -> None:
    """The heaviest neighbours, heaviest first, weights decayed to the newest of their events.

    Redis keeps a few more than ``neighbours_kept``, so that it does not have to sort after each new one.
    """
    items = [entry[: -len(PLACE)] for entry in names.decode().split("\x1f")[1:]]
    landmark_ms, as_of_ms, *unscaled = struct.unpack(f"<{len(items) + 2}d", weights)
    scale = exp2((landmark_ms - as_of_ms) / settings.neighbour_half_life_ms)
    # Of equal weights the item id decides.
    heaviest = sorted(zip([-weight for weight in unscaled], items, strict=True))[: settings.neighbours_kept]
    neighbours.item_ids.extend([item for _, item in heaviest])
    neighbours.weights.extend([weight * -scale for weight, _ in heaviest])
    neighbours.as_of_ms = int(as_of_ms)
