"""What items are labelled with, and what a user's items say of the labels that the user likes.

The labels of an item are its category and tags in the catalogue: a film's genres, a shop's departments. They are known
before anybody has turned to the item, so that they say something of new ones. Labels are hashed to numbers, the same
in every process; that two of them share a number is rare and does little.

The taste for a label is the logarithm of a lift, as under circumstances (``context_counts``): how many times as often
it stands among the user's items as it would if the user were like everybody,

    log((n_label + 1) / (n * share_label + 1))

with n items of the user, each divided among its labels, and the share of the label of everybody's engagements,
decayed like ``popularity_long``. An item's taste is the mean over its labels; 0 if it has none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice
from math import exp2
from typing import TypeAlias
from zlib import crc32

import numpy as np
import numpy.typing as npt

from millrace.compiled import compiled
from millrace.ranking.features import Floats, Ints, Rows
from millrace.v1.item_pb2 import Item

Labels: TypeAlias = npt.NDArray[np.uint16]

LABELS = 1 << 14
"""Numbers of labels, from 1; 0 is none."""
LABELS_KEPT = 8
"""Labels of an item beyond, in the catalogue's order, are passed over."""
TASTE_PRIOR = 1.0
"""Items as expected that are added to those seen: few items say little."""

# The landmark moves up when weights have grown by 2^256, as for co-visitation.
_RESCALE_AT = 256


def labels_of(item: Item) -> list[int]:
    """The numbers of an item's labels, at most ``LABELS_KEPT`` and none twice."""
    return numbers_of((item.category, *item.tags))


def numbers_of(labels: Iterable[str]) -> list[int]:
    """The same of labels by name; an empty name is none."""
    numbers = dict.fromkeys(1 + crc32(label.encode()) % (LABELS - 1) for label in labels if label)
    return list(islice(numbers, LABELS_KEPT))


class ItemLabels:
    """The labels of a table's items, and how popular each label is.

    Attributes
    ----------
    of_rows
        uint16[rows_max, LABELS_KEPT], the labels of each item, then 0.
    """

    def __init__(self, rows_max: int, half_life_ms: int) -> None:
        self._half_life_ms = half_life_ms
        self.of_rows = np.zeros((rows_max, LABELS_KEPT), dtype=np.uint16)
        # Decayed engagements with items of each label, of all labels at 0, as of the landmark.
        self._weights = np.zeros(LABELS)
        self._landmark_ms: float | None = None
        self._profile = np.zeros(LABELS)

    def label(self, row: int, labels: list[int], popularity: float, as_of_ms: float) -> None:
        """An item has these labels now. ``popularity``: of the item, decayed, as of an event time, Unix ms."""
        own = self.of_rows[row]
        if own[: len(labels)].tolist() == labels and not own[len(labels) :].any():
            return
        self.count(row, -popularity, as_of_ms)
        own[: len(labels)] = labels
        own[len(labels) :] = 0
        self.count(row, popularity, as_of_ms)

    def count(self, row: int, popularity: float, as_of_ms: float) -> None:
        """Add an item's decayed popularity, as of an event time, Unix ms, to that of its labels."""
        if not popularity or not self.of_rows[row, 0]:
            return
        if self._landmark_ms is None:
            self._landmark_ms = as_of_ms
        elif as_of_ms - self._landmark_ms > _RESCALE_AT * self._half_life_ms:
            self._weights *= exp2((self._landmark_ms - as_of_ms) / self._half_life_ms)
            self._landmark_ms = as_of_ms
        weight = popularity * exp2((as_of_ms - self._landmark_ms) / self._half_life_ms)
        _count(self.of_rows, row, weight, self._weights)

    def add_tastes(self, known: Rows, times: Ints, rows: Rows, tastes: Floats) -> None:
        """Write the taste for each of n items into ``tastes``, float64[n].

        Parameters
        ----------
        known, times
            The rows of the user's items, and how often the user engaged with each.
        rows
            int32[n], those of the items.
        """
        if self._landmark_ms is not None and len(known):
            _tastes(known, times, rows, self.of_rows, self._weights, self._profile, tastes)


@compiled
def _many(of_rows: Labels, row: int) -> int:
    many = 0
    while many < LABELS_KEPT and of_rows[row, many]:
        many += 1
    return many


@compiled
def _count(of_rows: Labels, row: int, weight: float, weights: Floats) -> None:
    many = _many(of_rows, row)
    weights[0] += weight
    for at in range(many):
        weights[of_rows[row, at]] += weight / many


@compiled
def _tastes(
    known: Rows, times: Ints, rows: Rows, of_rows: Labels, weights: Floats, profile: Floats, tastes: Floats
) -> None:
    """``profile``: float64[LABELS], zeros, and zeros it is left."""
    labelled = 0.0
    for number in range(len(known)):
        many = _many(of_rows, known[number])
        labelled += times[number] if many else 0
        for at in range(many):
            profile[of_rows[known[number], at]] += times[number] / many
    if labelled and weights[0] > 0.0:
        for number in range(len(rows)):
            many = _many(of_rows, rows[number])
            lift = 1.0
            for at in range(many):
                label = of_rows[rows[number], at]
                # What was taken back may leave a rounding error behind.
                share = max(weights[label], 0.0) / weights[0]
                lift *= (profile[label] + TASTE_PRIOR) / (labelled * share + TASTE_PRIOR)
            if many:
                tastes[number] = math.log(lift) / many
    for number in range(len(known)):
        for at in range(LABELS_KEPT):
            profile[of_rows[known[number], at]] = 0.0
