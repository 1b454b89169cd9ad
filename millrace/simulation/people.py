"""Shoppers: what they like, which nobody outside can see."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from millrace.simulation.catalogue import CATEGORIES, STYLES, Floats
from millrace.simulation.chance import Purpose, chance

COMMON_SCALE, PERSONAL_SCALE = 0.7, 1.3
"""Standard deviations of the liking for a category: of what all share, and of what each has alone (log-odds)."""
STYLE_SCALE = 1.0
"""Standard deviation of the liking for an item by its style (log-odds)."""
DRIFT_PERIOD_S = 2 * 86_400.0
"""A taste goes once round in two days: after an hour it is still 99 % the same, after half a day nothing of it."""
ACTIVITY_EXPONENT = 0.6
"""The r-th most active shopper comes with weight 1/r^0.6: a few come often, most come rarely."""


@dataclass(frozen=True, slots=True)
class Habits:
    """How much each side of an item counts for everyone's clicks (log-odds at full strength).

    Attributes
    ----------
    need
        It is what the session is about.
    quality
        Each unit of the item's quality.
    novelty
        It is brand-new.
    familiarity
        The shopper opened it before.
    """

    need: float = 4.0
    quality: float = 0.3
    novelty: float = 0.5
    familiarity: float = 0.5


@dataclass(frozen=True, slots=True)
class Taste:
    """What one shopper likes now.

    Attributes
    ----------
    category
        float64[categories], log-odds.
    style
        float64[styles]; its product with an item's style is in log-odds.
    """

    category: Floats
    style: Floats


class People:
    """All shoppers; the same for the same seed.

    A taste drifts: it is a point that moves on a circle, cos(t) a + sin(t) b with random a and b, so that it changes
    slowly and for ever while the spread among people stays. ``shift`` changes everyone at once: each category's
    liking goes to another category, half of the dimensions of style turn round, and the habits are drawn anew.

    Parameters
    ----------
    drift_period_s
        How long a taste takes to go once round.

    Attributes
    ----------
    habits
        Of everyone, as of the last shift.
    shifts
        How many there were.
    """

    def __init__(self, size: int, seed: int, drift_period_s: float = DRIFT_PERIOD_S) -> None:
        self._seed = seed
        self._drift_period_s = drift_period_s
        self.habits = Habits()
        self.shifts = 0
        rng = chance(seed, Purpose.PEOPLE)
        self._common: Floats = COMMON_SCALE * rng.standard_normal(len(CATEGORIES))
        self._category: Floats = PERSONAL_SCALE * rng.standard_normal((2, size, len(CATEGORIES)))
        # An item's style has length 1: the product with it has the scale of one component.
        self._style: Floats = STYLE_SCALE * rng.standard_normal((2, size, len(STYLES)))
        self._places = np.arange(len(CATEGORIES))
        self._signs: Floats = np.ones(len(STYLES))
        weights = np.arange(1, size + 1) ** -ACTIVITY_EXPONENT
        self._active: Floats = np.cumsum(weights) / weights.sum()

    def __len__(self) -> int:
        return len(self._active)

    def taste(self, shopper: int, now_s: float) -> Taste:
        """What this shopper likes at a moment."""
        angle = 2 * math.pi * now_s / self._drift_period_s
        near, far = math.cos(angle), math.sin(angle)
        category = self._common + near * self._category[0, shopper] + far * self._category[1, shopper]
        style = near * self._style[0, shopper] + far * self._style[1, shopper]
        return Taste(category[self._places], style * self._signs)

    def who(self, share: float) -> int:
        """The shopper at this share, 0 to 1, of all arrivals."""
        return min(int(np.searchsorted(self._active, share, side="right")), len(self) - 1)

    def shift(self) -> None:
        """Everyone likes something else from now on."""
        self.shifts += 1
        rng = chance(self._seed, Purpose.SHIFTS, self.shifts)
        # One round through all categories in random order: none keeps its place.
        order = rng.permutation(len(CATEGORIES))
        moved = np.empty_like(order)
        moved[order] = np.roll(order, 1)
        self._places = self._places[moved]
        self._signs[rng.permutation(len(STYLES))[: len(STYLES) // 2]] *= -1
        self.habits = Habits(
            need=rng.uniform(2.0, 5.0),
            quality=rng.uniform(0.0, 0.6),
            novelty=rng.uniform(-1.0, 2.0),
            familiarity=rng.uniform(-2.0, 2.0),
        )
