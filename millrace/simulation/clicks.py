"""The click model: which slots of a page a shopper examines, which one they click, and what follows.

*Examination.* The shopper reads from the top (cascade: N. Craswell et al., "An experimental comparison of click
position-bias models", WSDM 2008) and gives up somewhere: the slot at rank r = 1, 2, ... is reached with probability
``r^-0.6``, the power law of position bias in T. Joachims et al., "Unbiased learning-to-rank with biased feedback",
WSDM 2017. Where the shopper gives up does not depend on the items (examination hypothesis: M. Richardson et al.,
"Predicting clicks", WWW 2007). Each examined slot is a view.

*Click.* Of an examined item the click has the probability ``sigmoid(BASE + appeal)``. The first click ends the page:
slots below it are not examined. The appeal is a sum in log-odds of

========== ==================================================================================================
taste      the shopper's liking of the item's category and style, times ``TASTE``
need       habit x (0 in another category; in the needed one exp(2.5 (cosine of the styles - 1)), 0 to 1)
quality    habit x the item's quality, the same for everyone
novelty    habit x exp(-age / 1 h)
familiar   habit, if the shopper opened the item before
tired      -1.5, if it was opened in this very session; -4 if it was ever bought
========== ==================================================================================================

*After the click.* The item goes into the cart with a probability that grows with the taste, and what is in the cart
is bought with probability 0.4, at its price.

An item that is not on sale any more can be examined but not clicked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from millrace.simulation.catalogue import Catalogue, Floats, Ints
from millrace.simulation.people import Habits, Taste

EXAMINATION_EXPONENT = 0.6
BASE = -5.2
"""Puts the click-through (clicks per slot, ten a page) of random items at 1.0 %, of the most clicked items at 2.1 %
and of the best possible lists at 7.7 %, measured with 1,000 items; a page has one click at most."""
TASTE = 0.8
STYLE_FOCUS = 2.5
"""Of a category, one item in twelve fits a need by more than half: what goes with a click can be learned."""
NOVELTY_S = 3600.0
TIRED, BOUGHT = -1.5, -4.0
CART_BASE, CART_TASTE = -1.5, 0.5
PURCHASE = 0.4


@dataclass(frozen=True, slots=True)
class Need:
    """What a session is about at the moment: a category, and a style (of length 1) in it."""

    category: int
    style: Floats


@dataclass(frozen=True, slots=True)
class Looked:
    """What became of a page.

    Attributes
    ----------
    shown, examined
        How many slots; the examined ones are the first.
    clicked
        Rank of the clicked slot, from 0; None if none was.
    chances
        float64[shown], probability of a click on each slot if it was examined.
    """

    shown: int
    examined: int
    clicked: int | None
    chances: Floats = field(default_factory=lambda: np.zeros(0), compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Expected:
    """What a page brings on average, over where shoppers give up and over their coins."""

    clicks: float
    examined: float


def liking(catalogue: Catalogue, rows: Ints, taste: Taste) -> Floats:
    """The taste for each item, log-odds: float64[rows]."""
    return taste.category[catalogue.category[rows]] + catalogue.style[rows] @ taste.style


def fitting(catalogue: Catalogue, rows: Ints, need: Need) -> Floats:
    """How well each item is what is needed, 0 to 1: float64[rows]."""
    similar = np.exp(STYLE_FOCUS * (catalogue.style[rows] @ need.style - 1))
    return np.where(catalogue.category[rows] == need.category, similar, 0.0)


def probabilities(
    catalogue: Catalogue, rows: Ints, taste: Taste, need: Need, habits: Habits, memory: Floats, now_s: float
) -> Floats:
    """Probability of a click on each item if it is examined: float64[rows].

    Parameters
    ----------
    rows
        int64[n] in the catalogue; -1: not on sale.
    memory
        float64[n], log-odds of what the shopper remembers of each (familiar, tired).
    """
    odds = (
        BASE
        + TASTE * liking(catalogue, rows, taste)
        + habits.need * fitting(catalogue, rows, need)
        + habits.quality * catalogue.quality[rows]
        + habits.novelty * np.exp(np.minimum(catalogue.born_s[rows] - now_s, 0.0) / NOVELTY_S)
        + memory
    )
    return np.where(rows >= 0, 1 / (1 + np.exp(-odds)), 0.0)


def reach(patience: float, shown: int) -> int:
    """How many slots are read without a click: rank r with probability r^-0.6 for uniform patience in (0, 1)."""
    if patience <= shown**-EXAMINATION_EXPONENT:
        return shown
    return int(patience ** (-1 / EXAMINATION_EXPONENT))


def look(chances: Floats, patience: float, coins: npt.NDArray[np.float64]) -> Looked:
    """Read a page.

    Parameters
    ----------
    chances
        Probability of a click on each slot if examined.
    patience, coins
        Uniform in (0, 1); a coin for each slot.
    """
    shown = len(chances)
    reached = reach(patience, shown) if shown else 0
    hits = np.flatnonzero(coins[:reached] < chances[:reached])
    if hits.size:
        clicked = int(hits[0])
        return Looked(shown, clicked + 1, clicked, chances)
    return Looked(shown, reached, None, chances)


def expected(chances: Floats) -> Expected:
    """The average of ``look`` over patience and coins: what is reached is examined, down to the first click."""
    reached = np.arange(1, len(chances) + 1) ** -EXAMINATION_EXPONENT
    unclicked = np.cumprod(np.concatenate(([1.0], 1 - chances)))[:-1]
    examined = reached * unclicked
    return Expected(float(examined @ chances), float(examined.sum()))


def cart_probability(liked: float) -> float:
    """Probability that a clicked item goes into the cart."""
    return 1 / (1 + math.exp(-(CART_BASE + CART_TASTE * liked)))
