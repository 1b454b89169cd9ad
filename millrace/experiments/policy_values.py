"""What an order of items would have earned on answers in random order: a version's, beside the one that was meant.

The position-based estimator of S. Li et al., "Offline evaluation of ranking policies with click models", KDD 2018: a
click on an item is weighted with how much more attention the item would get in the place where the order that is
judged puts it than it got on average in the random order. So every click counts, and not only those on items that stood
where they are wanted, which are one in k. It is without bias where place and item each play their own part in a click,
whatever that of the place is. The attention that each place gets is in the log itself, for all items stood there
equally often.

Attention, and the expectations of the doubly robust estimate (a rate for the item's rank by the model that answered,
times the attention), are those of the other half of the users: nobody's clicks weigh themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from millrace.experiments.off_policy import (
    Estimate,
    Floats,
    Logged,
    doubly_robust,
    doubly_robust_terms,
    ipw,
    relative,
    snips,
)
from millrace.experiments.shuffled import ShuffledAnswer
from millrace.ranking.model import RankingModel

Ints = npt.NDArray[np.int64]

# Showings in advance, at the rate of all: a rate from a handful would swing.
_IN_ADVANCE = 20.0


@dataclass(frozen=True, slots=True)
class ShuffledItems:
    """Every item of every answer, n of them, answer by answer.

    Attributes
    ----------
    users
        int64[n], number of the user.
    sizes
        int64[n], number k of items in the answer.
    places
        int64[n], where the item stood, from 0.
    meant, wanted
        int64[n], where the model that answered and the version that is judged would have put it.
    clicked
        float64[n], 1 for a click.
    """

    users: Ints
    sizes: Ints
    places: Ints
    meant: Ints
    wanted: Ints
    clicked: Floats


@dataclass(frozen=True, slots=True)
class PolicyValues:
    """Clicks of a slot, by estimator (``ipw``, ``snips``, ``dr``), and the relative difference of the two orders.

    ``refusal``: why nothing can be said; empty if something can.
    """

    version: dict[str, Estimate]
    champion: dict[str, Estimate]
    effect: Estimate
    refusal: str


def line_up(answers: Sequence[ShuffledAnswer], model: RankingModel) -> ShuffledItems:
    """The items of some answers (one or more), and where a model wants them."""
    sizes = np.array([len(one.places) for one in answers])
    numbers = {user: number for number, user in enumerate(dict.fromkeys(one.user_id for one in answers))}
    answer = np.repeat(np.arange(len(answers)), sizes)
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    return ShuffledItems(
        users=np.array([numbers[one.user_id] for one in answers])[answer],
        sizes=sizes[answer],
        places=np.concatenate([one.places for one in answers]),
        meant=_ranks(answer, starts, np.concatenate([one.scores for one in answers])),
        wanted=_ranks(answer, starts, model.score(np.concatenate([one.features for one in answers]))),
        clicked=np.concatenate([one.clicked for one in answers]).astype(np.float64),
    )


def policy_values(items: ShuffledItems) -> PolicyValues:
    """What the version's order would have earned, and the one that was meant."""
    half = items.users % 2
    by_place = _rates_of_others(items, items.places)
    attention = by_place / by_place.max(axis=1, keepdims=True)
    so_far = np.cumsum(attention, axis=1) / np.arange(1, attention.shape[1] + 1)
    average = so_far[half, items.sizes - 1]
    rate = _rates_of_others(items, items.meant)[half, items.meant]
    expected = rate * attention[half, items.places] / average
    found, terms, refusals = {}, {}, []
    for name, order in (("version", items.wanted), ("champion", items.meant)):
        logged = Logged(items.clicked, average, attention[half, order], items.users)
        in_order = rate * logged.weights
        found[name] = {"ipw": ipw(logged), "snips": snips(logged), "dr": doubly_robust(logged, expected, in_order)}
        terms[name] = logged, doubly_robust_terms(logged, expected, in_order)
        refusals.append(_disorder(items, order))
    effect = relative(*terms["version"], *terms["champion"])
    refusals.append(effect.refusal)
    return PolicyValues(found["version"], found["champion"], effect, next(filter(None, refusals), ""))


def _disorder(items: ShuffledItems, order: Ints) -> str:
    """What speaks against it that each item was as likely to stand where ``order`` wants it as elsewhere."""
    in_place = (items.places == order).astype(np.float64)
    return Logged(items.clicked, 1.0 / items.sizes, in_place, items.users).refusal()


def _rates_of_others(items: ShuffledItems, which: Ints) -> Floats:
    """float64[2, most], clicks of an item by ``which`` of its numbers, for each half of the users from the other."""
    most = int(items.sizes.max())
    rates = np.empty((2, most))
    for half in (0, 1):
        others = items.users % 2 != half
        clicked, which_here = items.clicked[others], which[others]
        # Of no clicks at all nothing follows: every place and item is as good as another.
        mean = float(clicked.mean()) if clicked.any() else 1.0
        counts = np.bincount(which_here, minlength=most) + _IN_ADVANCE
        rates[half] = (np.bincount(which_here, clicked, most) + _IN_ADVANCE * mean) / counts
    return rates


def _ranks(answer: Ints, starts: Ints, scores: npt.NDArray[np.float32]) -> Ints:
    """Rank of each item in its answer, best first; ties in the order of the items, which places have no part in."""
    order = np.lexsort((-scores, answer))
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order))
    return ranks - starts
