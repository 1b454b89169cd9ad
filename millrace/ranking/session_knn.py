"""What people turned to who had a session like this one: session-kNN, and pairs in their order.

For the items c of the session at hand, newest first at places p = 0, 1, ...:

nearest
    Runs are alike by the sum of 1 - p/10 (0.05 from p = 10 on) over the items that they share. The nearest give each of
    their items their share of all likeness (``Signal.SIMILAR``); ``SIMILAR_NEAR`` weighs it by e^(-d/2), d places from
    the item shared (newest first), as STAN does (Garg et al. 2019, Sequence and time aware neighborhood).
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

import math

import numpy as np

from millrace.compiled import compiled
from millrace.ranking.features import Floats, Ints, Rows, Signal
from millrace.ranking.item_table import NO_ROW
from millrace.ranking.pool import NO_PLACE, CandidatePool, join
from millrace.ranking.session_index import NOWHERE, REACH, RUN, SessionIndex, owner
from millrace.ranking.sources import SESSIONS

NEAREST = 100
"""Runs that count as nearest."""
POSTINGS_NEWEST, POSTINGS, POSTINGS_FAR = 200, 50, 15
"""Postings looked at: of the session's newest item, of those up to ``FAR`` places behind it, and of those further back,
which say the least of what comes next and are the most in a long session."""
FAR = 8
PAIR_PRIOR = 3.0
AROUND_PRIOR, AROUND_OF_ITEM = 5.0, 0.3
AROUND_DOUBT = 0.3
"""Added to the best candidate's value: without it, whatever stood once around a rare item would be as good as can be.
"""

# A run that began later counts for a little more, so that of equally like ones the newest are taken.
_NEWER = 1e-3
# By distance.
_CLOSENESS = np.array([0.0, *(1.0 / np.arange(1, REACH + 1))])
_AROUND = np.sqrt(_CLOSENESS)
_NEAR = np.exp(-0.5 * np.arange(RUN))


def most_proposed(items: int) -> int:
    """How many items are proposed at most for a user with so many."""
    return NEAREST * RUN + _postings_most(items) * 2 * REACH


def _postings_most(items: int) -> int:
    return POSTINGS_NEWEST + min(items, FAR) * POSTINGS + max(items - FAR, 0) * POSTINGS_FAR


def propose_of_sessions(
    pool: CandidatePool, index: SessionIndex, own_items: Ints, of_session: int, user_id: str
) -> None:
    """Propose what the sessions of others say to a user's.

    Parameters
    ----------
    own_items
        Rows, none twice: of the items of the user's session, newest first, then of what the user turned to before.
    of_session
        How many are of the session; nothing is proposed if none is.
    """
    if not of_session:
        return
    _propose(
        own_items,
        of_session,
        owner(user_id),
        index.rows,
        index.lengths,
        index.begun,
        index.owners,
        index.newest,
        index.earlier,
        index.alike,
        *pool.arrays,
    )


@compiled
def _propose(
    own_items: Ints,
    of_session: int,
    user: int,
    run_rows: Rows,
    lengths: Rows,
    begun: Ints,
    owners: Ints,
    newest: Rows,
    earlier: Rows,
    alike: Floats,
    places: Rows,
    count: Ints,
    rows: Rows,
    sources: Ints,
    signals: Floats,
) -> None:
    """``alike``: float64[runs], zeros, and zeros it is left."""
    found, ends = _postings(own_items, user, owners, newest, earlier)
    runs, shared, likeness = _nearest(found, ends[:of_session], begun, alike)
    for number in range(len(runs)):
        start = runs[number] * RUN
        for at in range(start, start + lengths[runs[number]]):
            row = run_rows[at]
            if row == NO_ROW:
                continue
            place = places[row]
            if place == NO_PLACE:
                place = join(row, places, count, rows, sources, signals)
            signals[place, Signal.SIMILAR] += likeness[number]
            signals[place, Signal.SIMILAR_NEAR] += likeness[number] * _NEAR[abs(at - shared[number])]

    begin = 0
    for number in range(len(own_items)):
        seen = ends[number] - begin
        in_session = number < of_session
        pair = 1.0 / math.sqrt(1.0 + number) / (seen + PAIR_PRIOR)
        around = 1.0 / (1.0 + number) / (seen + AROUND_PRIOR) ** 0.7
        for posting in found[begin : ends[number]]:
            start = posting // RUN * RUN
            end = start + lengths[posting // RUN]
            # Two loops, of which neither asks on which side it is: they take two thirds of the time of one.
            for at in range(max(posting - REACH, start), posting):
                row = run_rows[at]
                if row == NO_ROW:
                    continue
                place = places[row]
                if place == NO_PLACE:
                    place = join(row, places, count, rows, sources, signals)
                signals[place, Signal.AROUND] += around * _AROUND[posting - at]
                if in_session:
                    signals[place, Signal.BEFORE] += pair * _CLOSENESS[posting - at]
            for at in range(posting + 1, min(posting + REACH + 1, end)):
                row = run_rows[at]
                if row == NO_ROW:
                    continue
                place = places[row]
                if place == NO_PLACE:
                    place = join(row, places, count, rows, sources, signals)
                signals[place, Signal.AROUND] += around * _AROUND[at - posting]
                if in_session:
                    signals[place, Signal.AFTER] += pair * _CLOSENESS[at - posting]
                    if number == 0:
                        signals[place, Signal.AFTER_NEWEST] += pair * _CLOSENESS[at - posting]
        begin = ends[number]

    for place in range(count[0]):
        if signals[place, Signal.SIMILAR] or signals[place, Signal.AFTER] or signals[place, Signal.BEFORE]:
            sources[place] |= SESSIONS


@compiled
def _postings(own_items: Ints, user: int, owners: Ints, newest: Rows, earlier: Rows) -> tuple[Ints, Ints]:
    """Places of the user's items in others' sessions, item by item, and for each item where its places end."""
    found = np.empty(POSTINGS_NEWEST + len(own_items) * POSTINGS, dtype=np.int64)
    ends = np.empty(len(own_items), dtype=np.int64)
    many = 0
    for number in range(len(own_items)):
        left = POSTINGS_NEWEST if number == 0 else POSTINGS if number <= FAR else POSTINGS_FAR
        place = np.int64(newest[own_items[number]])
        while place != NOWHERE and left:
            if owners[place // RUN] != user:
                found[many] = place
                many += 1
            left -= 1
            place = np.int64(earlier[place])
        ends[number] = many
    return found[:many], ends


@compiled
def _nearest(found: Ints, ends: Ints, begun: Ints, alike: Floats) -> tuple[Ints, Ints, Floats]:
    """The nearest runs: their slots, where each shares its newest item with the session, and their shares of likeness.

    ``found``, ``ends``: postings of the session's items.
    """
    most = ends[-1]
    runs, shared = np.empty(most, dtype=np.int64), np.empty(most, dtype=np.int64)
    met = begin = 0
    for number in range(len(ends)):
        for posting in found[begin : ends[number]]:
            run = posting // RUN
            if not alike[run]:
                runs[met], shared[met] = run, posting
                met += 1
            alike[run] += max(1.0 - 0.1 * number, 0.05)
        begin = ends[number]
    if not met:
        return runs, shared, np.empty(0)
    oldest, youngest = begun[runs[0]], begun[runs[0]]
    for number in range(met):
        oldest, youngest = min(oldest, begun[runs[number]]), max(youngest, begun[runs[number]])
    order = np.empty(met)
    for number in range(met):
        order[number] = alike[runs[number]] - _NEWER * (youngest - begun[runs[number]]) / max(youngest - oldest, 1)
    least = largest(order, NEAREST) if met > NEAREST else -np.inf
    nearest, total = 0, 0.0
    likeness = np.empty(met)
    for number in range(met):
        if order[number] >= least:
            runs[nearest], shared[nearest], likeness[nearest] = runs[number], shared[number], alike[runs[number]]
            total += likeness[nearest]
            nearest += 1
        alike[runs[number]] = 0.0
    for number in range(nearest):
        likeness[number] /= total
    return runs[:nearest], shared[:nearest], likeness[:nearest]


@compiled
def largest(numbers: Floats, k: int) -> float:
    """The k-th largest (Hoare 1961, Algorithm 65: Find)."""
    numbers = numbers.copy()
    wanted, low, high = len(numbers) - k, 0, len(numbers) - 1
    while low < high:
        pivot, left, right = numbers[wanted], low, high
        while left <= right:
            while numbers[left] < pivot:
                left += 1
            while numbers[right] > pivot:
                right -= 1
            if left <= right:
                numbers[left], numbers[right] = numbers[right], numbers[left]
                left, right = left + 1, right - 1
        if right < wanted:
            low = left
        if left > wanted:
            high = right
    return float(numbers[wanted])
