"""What people turned to who had a session like this one: session-kNN, and pairs in their order.

For the items c of the session at hand, newest first at places p = 0, 1, ...:

nearest
    Runs are alike by the sum of 1 - p/10 (0.05 from p = 10 on) over the items that they share. The nearest give each of
    their items their share of all likeness; "near" weighs it by e^(-d/2), d places from the item shared (newest
    first), as STAN does (Garg et al. 2019, Sequence and time aware neighborhood).
pairs
    For each posting of c, items d = 1 to ``REACH`` places after or before it count 1/d, divided by the postings of c
    (and ``PAIR_PRIOR`` more) and by sqrt(1 + p).
around
    The same without order, and of items of the user's earlier sessions too, which come behind those of the session: a
    posting's neighbours count 1/sqrt(d), divided by (``AROUND_PRIOR`` + its item's postings)^0.7 and by 1 + p. What
    stands in many sessions stands around everything: who uses the sum divides it by the places of an item, to the
    power ``AROUND_OF_ITEM``. These powers lie between a probability (1 and 0) and a cosine (1/2 and 1/2).

The user's own sessions are left out: what is served must not depend on whether the index has the newest click yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from millrace.ranking.features import Floats, Ints, Rows
from millrace.ranking.session_index import REACH, RUN, SessionIndex, owner

NEAREST = 100
"""Runs that count as nearest."""
POSTINGS_NEWEST, POSTINGS = 200, 50
"""Postings looked at: of the session's newest item, of each other one."""
PAIR_PRIOR = 3.0
AROUND_PRIOR, AROUND_OF_ITEM = 5.0, 0.3
# Added to the best candidate's value: without it, whatever stood once around a rare item would be as good as can be.
AROUND_DOUBT = 0.3

# By distance, from -REACH on; nothing is beside itself.
_DISTANCES = np.arange(-REACH, REACH + 1)
_CLOSENESS = 1.0 / np.maximum(np.abs(_DISTANCES), 1)
_CLOSENESS[REACH] = 0.0
_AROUND = np.sqrt(_CLOSENESS)
_AFTER = (_DISTANCES > 0).astype(np.intp)
_NEAR = np.exp(-0.5 * np.abs(np.array([*range(RUN), *range(-RUN, 0)])))
# By place in the session at hand; longer ones do not get here.
_LIKENESS = np.maximum(1.0 - 0.1 * np.arange(1_000), 0.05)
_BY_PLACE = 1.0 / np.sqrt(1.0 + np.arange(1_000))
_AROUND_BY_PLACE = 1.0 / (1.0 + np.arange(1_000))
# A run that began later counts for a little more, so that of equally like ones the newest are taken.
_NEWER = 1e-3


@dataclass(frozen=True, slots=True)
class SessionSignals:
    """What sessions say about items, piece by piece.

    Attributes
    ----------
    rows
        int32[m], item rows, each as often as something speaks for it: first those of the nearest runs, then those of
        pairs, of which those with the newest item come last.
    share, near
        float64[l], what the first l add to the share of likeness, and to the same by nearness.
    pair, after
        float64[m - l], what the others add to what comes before (0) or after (1), intp[m - l].
    around
        float64[m - l], what they add to what stands around.
    of_newest
        How many at the end are pairs with the newest item.
    """

    rows: Rows
    share: Floats
    near: Floats
    pair: Floats
    after: npt.NDArray[np.intp]
    around: Floats
    of_newest: int

    def sums(self, places: npt.NDArray[np.intp], n: int) -> Floats:
        """Float64[6, n], by item: share, near, after, before, after the newest item alone, and around.

        ``places``: of each of ``rows``, its place among n items.
        """
        nearest, older = len(self.share), len(self.pair) - self.of_newest
        of_runs, of_pairs = places[:nearest], 2 * places[nearest:] + self.after
        sums = np.empty((6, n))
        sums[0] = np.bincount(of_runs, self.share, n)
        sums[1] = np.bincount(of_runs, self.near, n)
        of_newest = np.bincount(of_pairs[older:], self.pair[older:], 2 * n)
        of_all = np.bincount(of_pairs[:older], self.pair[:older], 2 * n)
        of_all = of_all + of_newest
        sums[2], sums[3], sums[4] = of_all[1::2], of_all[::2], of_newest[1::2]
        sums[5] = np.bincount(places[nearest:], self.around, n)
        return sums


_NONE, _NO_PLACE = np.empty(0), np.empty(0, dtype=np.intp)
_NOTHING = SessionSignals(np.empty(0, dtype=np.int32), _NONE, _NONE, _NONE, _NO_PLACE, _NONE, 0)


def session_signals(index: SessionIndex, session: Sequence[int], older: Sequence[int], user_id: str) -> SessionSignals:
    """What the sessions of others say to a user's.

    Parameters
    ----------
    session
        Rows of its items, newest first and none twice.
    older
        Rows of what the user turned to before, likewise.
    """
    if not session:
        return _NOTHING
    # The newest item comes last: of several items that a run shares, the newest then decides where it is shared.
    own_items = [*session, *older]
    lists = [index.postings(row, POSTINGS if place else POSTINGS_NEWEST) for place, row in enumerate(own_items)][::-1]
    postings = np.concatenate(lists)
    runs, slots, places = index.slots(postings)
    at = np.repeat(np.arange(len(lists) - 1, -1, -1), [len(own) for own in lists])
    own = index.owners[slots] == owner(user_id)
    if own.any():
        others = np.flatnonzero(~own)
        runs, slots, places, at = runs[others], slots[others], places[others], at[others]
    if not len(places):
        return _NOTHING
    first = int(np.count_nonzero(at >= len(session)))
    rows, share, near = _nearest(index, runs[first:], slots[first:], places[first:], at[first:])
    counts = np.bincount(at, minlength=len(lists))
    weights = _BY_PLACE[: len(lists)] / (counts + PAIR_PRIOR)
    weights[len(session) :] = 0.0
    around_weights = _AROUND_BY_PLACE[: len(lists)] / (counts + AROUND_PRIOR) ** 0.7
    starts, lengths = index.items(slots)
    begin = np.maximum(places - REACH, starts)
    beside, posting = _ranges(begin, np.minimum(places + REACH + 1, starts + lengths) - begin)
    distance = beside - places[posting] + REACH
    return SessionSignals(
        rows=np.concatenate((rows, index.rows[beside])),
        share=share,
        near=near,
        pair=weights[at[posting]] * _CLOSENESS[distance],
        after=_AFTER[distance],
        around=around_weights[at[posting]] * _AROUND[distance],
        of_newest=len(posting) - int(np.searchsorted(posting, len(places) - counts[0])),
    )


def _nearest(index: SessionIndex, runs: Ints, slots: Ints, places: Ints, at: Ints) -> tuple[Rows, Floats, Floats]:
    """Items of the nearest runs, and what each adds to share and near."""
    if not len(runs):
        return _NOTHING.rows, _NONE, _NONE
    last, own = index.distinct(slots)
    alike = np.bincount(own, _LIKENESS[at], len(last))
    if len(last) > NEAREST:
        begun = runs[last]
        newest = begun.max()
        order = alike - _NEWER * ((newest - begun) / (newest - begun.min()))
        chosen = np.argpartition(-order, NEAREST)[:NEAREST]
        last, alike = last[chosen], alike[chosen]
    items, run = _ranges(*index.items(slots[last]))
    shares = (alike / alike.sum())[run]
    return index.rows[items], shares, shares * _NEAR[items - places[last][run]]


def _ranges(starts: Ints, lengths: Ints) -> tuple[Ints, Ints]:
    """The numbers of n ranges, one range after the other, and for each number the place of its range."""
    of = np.repeat(np.arange(len(starts)), lengths)
    ends = np.cumsum(lengths)
    return np.arange(len(of)) + (starts - ends + lengths)[of], of
