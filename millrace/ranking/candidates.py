"""Candidate generation: which few hundred of all items are ranked for a user.

Generators: co-visitation neighbours of the user's last items, sessions like the user's, what is popular now and today,
the user's own recent items (where repeats are allowed), new items of the catalogue, and the items that the request
names. Everything happens on arrays of rows (see ``ItemTable``); no loop runs over candidates.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from millrace.ranking.circumstances import Circumstances
from millrace.ranking.corpus import Corpus
from millrace.ranking.features import LIFTS, SIGNALS, Candidates, Floats, Rows
from millrace.ranking.item_table import NO_ROW, ItemTable
from millrace.ranking.session_knn import AROUND_DOUBT, AROUND_OF_ITEM, AROUND_PRIOR, session_signals
from millrace.ranking.sources import FRESH, NEIGHBOURS, REPEAT, REQUESTED, SESSIONS
from millrace.settings import RecommenderSettings

# Items of the user's earlier sessions that similar sessions are sought by, behind those of the session.
OLDER_ITEMS = 5
# 1, 2, ... in a column: longer than any context is sensible.
_PLACES = np.arange(1.0, 1_001.0)[:, None]
# As many times the bit as these generators may propose items.
_BITS = {bit: np.full(10_000, bit, dtype=np.float64) for bit in (REPEAT, FRESH)}


class Engaged(Protocol):
    """An engagement of the user with an item at an event time, Unix ms."""

    @property
    def item_id(self) -> str: ...
    @property
    def at_ms(self) -> int: ...
    @property
    def session(self) -> int: ...


@dataclass(frozen=True, slots=True)
class CandidateLimits:
    """How many candidates each generator gives (see ``RecommenderSettings``)."""

    candidates_max: int
    context_items: int
    session_items: int
    trending_items: int
    fresh_items: int

    @classmethod
    def of(cls, settings: RecommenderSettings) -> CandidateLimits:
        """Those of a recommender."""
        return cls(
            candidates_max=settings.candidates_max,
            context_items=settings.context_items,
            session_items=settings.session_items,
            trending_items=settings.trending_items,
            fresh_items=settings.fresh_items,
        )


@dataclass(frozen=True, slots=True)
class CandidateRequest:
    """What one request asks of candidate generation.

    Attributes
    ----------
    k
        Number of items that are shown; so many candidates are found if there are so many items.
    user_id
        Whose request it is; the user's own sessions say nothing about what others turned to.
    recent
        The user's engagements, newest first; empty for an unknown user.
    circumstances
        Of the request; empty if nothing is known of them.
    now_ms
        Serving time, Unix ms.
    blocked
        Items that must not be shown: excluded by the request, or disliked by the user.
    restricted_to
        If not empty, only these items may be shown.
    repeats
        Whether items that the user knows may be shown.
    """

    k: int
    user_id: str = ""
    recent: Sequence[Engaged] = ()
    circumstances: Circumstances = ()
    now_ms: int = 0
    blocked: Iterable[str] = ()
    restricted_to: Sequence[str] = ()
    repeats: bool = True


def generate(
    corpus: Corpus, request: CandidateRequest, limits: CandidateLimits, random: np.random.Generator
) -> Candidates:
    """The candidates for a request, in no particular order."""
    candidates, shown = _propose(corpus, request, limits.trending_items, limits, random)
    if len(shown) < request.k and not request.restricted_to:
        # So much is left out that trending has to fill up from further down its list.
        trending_items = max(len(corpus.popular.short), len(corpus.popular.long))
        candidates, shown = _propose(corpus, request, trending_items, limits, random)
    most = max(limits.candidates_max, request.k)
    if len(shown) > most and not request.restricted_to:
        scores = own_scores(candidates, corpus)
        # The user's own and new items are not the most probable ones: cutting by score would always cut them.
        scores[candidates.sources & (REPEAT | FRESH) != 0] = np.inf
        shown = shown[np.argpartition(-scores[shown], most)[:most]]
    return candidates.take(shown)


def own_scores(candidates: Candidates, corpus: Corpus) -> Floats:
    """Scores float64[n] without a model: expected follow-ups, what sessions say, and the item's share of engagements.

    The first and the last are probabilities of "the next engagement is with this item": given the user's last items,
    and in general. The share of the nearest sessions that hold the item counts half.
    """
    covisit, nearest, after, before = candidates.signals[[0, 5, 7, 8]]
    scores: Floats = np.exp2(corpus.table.long_order[candidates.rows] - corpus.popular.long_norm)
    scores += covisit + 0.5 * nearest + after + before
    return scores


def _propose(
    corpus: Corpus,
    request: CandidateRequest,
    trending_items: int,
    limits: CandidateLimits,
    random: np.random.Generator,
) -> tuple[Candidates, npt.NDArray[np.intp]]:
    """Everything that a generator proposes, and the places of those that may be shown."""
    table, popular = corpus.table, corpus.popular
    known, seen_at_ms, seen_count = _known_items(table, request.recent)
    context = known[: limits.context_items]
    # A neighbour of the item in place p (1 = newest) counts P(neighbour follows item) / p.
    neighbours = table.neighbours[context].ravel()
    weights = (table.shares[context] / _PLACES[: len(context)]).ravel()
    of_newest = table.neighbours.shape[1] if len(context) else 0
    session = _session_items(table, request.recent, corpus.sessions.gap_ms, limits.session_items)
    older = [row for row in known[: limits.session_items].tolist() if row not in session] if session else []
    sessions = session_signals(corpus.sessions, session, older[:OLDER_ITEMS], request.user_id)
    trending, trending_bits = popular.trending(trending_items)
    fresh = _draw(popular.fresh, limits.fresh_items, random)
    requested = _rows_of(table, request.restricted_to)
    others = (
        _BITS[REPEAT][: len(known)],
        trending_bits,
        _BITS[FRESH][: len(fresh)],
        np.full(len(requested), float(REQUESTED)),
    )
    rows, place = table.distinct(np.concatenate((neighbours, sessions.rows, known, trending, fresh, requested)))
    n = len(rows)
    end = len(neighbours) + len(sessions.rows)
    of_neighbours, of_sessions, of_others = place[: len(neighbours)], place[len(neighbours) : end], place[end:]
    signals = np.zeros((SIGNALS, n))
    signals[0] = np.bincount(of_neighbours, weights, n)
    signals[1] = np.bincount(of_neighbours[:of_newest], weights[:of_newest], n)
    support = np.bincount(of_neighbours, minlength=n)
    np.divide(support, max(len(context), 1), out=signals[2])
    signals[3:5, of_others[: len(known)]] = seen_at_ms, seen_count
    sums = sessions.sums(of_sessions, n)
    signals[5:10] = sums[:5]
    if session:
        signals[10] = rows == session[0]
        signals[11] = corpus.sessions.places[rows]
        signals[12] = sums[5] / (AROUND_PRIOR + signals[11]) ** AROUND_OF_ITEM
    signals[LIFTS:] = corpus.contexts.lifts(request.circumstances, table.keys[rows], request.now_ms).T
    # Every other generator proposes an item once in each of its lists: their bits can be added up.
    sources = np.bincount(of_others, np.concatenate(others), n).astype(np.int64)
    sources[support > 0] |= NEIGHBOURS
    sources[(signals[5] > 0) | (signals[7] + signals[8] > 0)] |= SESSIONS

    shown = table.servable[rows]
    if request.restricted_to:
        shown &= sources & REQUESTED != 0
    if not request.repeats:
        shown &= sources & REPEAT == 0
    blocked = _rows_of(table, request.blocked)
    if len(blocked):
        shown &= ~np.isin(rows, blocked)
    places = np.flatnonzero(shown)
    # What is not shown may lie above the best that is.
    best = signals[12, places].max(initial=0.0)
    np.minimum(signals[12] / (best + AROUND_DOUBT), 1.0, out=signals[12])
    return Candidates(rows, sources, signals), places


def _session_items(table: ItemTable, recent: Sequence[Engaged], gap_ms: int, most: int) -> list[int]:
    """Rows of the items of the user's newest session, newest first and none twice."""
    rows: dict[int, None] = {}
    if not recent or not most:
        return []
    newer = recent[0]
    for engagement in recent:
        if engagement.session != newer.session or (not newer.session and abs(newer.at_ms - engagement.at_ms) >= gap_ms):
            break
        newer = engagement
        row = table.rows.get(engagement.item_id, NO_ROW)
        if row != NO_ROW:
            rows[row] = None
            if len(rows) == most:
                break
    return list(rows)


def _known_items(table: ItemTable, recent: Sequence[Engaged]) -> tuple[Rows, list[int], list[int]]:
    """Rows of the user's items, newest first and none twice, with the newest time and the number of engagements."""
    row_of = table.rows.get
    at_ms: dict[int, int] = {}
    count: dict[int, int] = {}
    for engagement in recent:
        row = row_of(engagement.item_id)
        if row is None:
            continue
        if row in count:
            count[row] += 1
            at_ms[row] = max(at_ms[row], engagement.at_ms)
        else:
            count[row] = 1
            at_ms[row] = engagement.at_ms
    return np.array(list(count), dtype=np.int32), list(at_ms.values()), list(count.values())


def _rows_of(table: ItemTable, item_ids: Iterable[str]) -> Rows:
    """Rows of the items that the table knows, each once."""
    rows = {row for item_id in item_ids if (row := table.rows.get(item_id)) is not None}
    return np.array(list(rows), dtype=np.int32)


def _draw(rows: Rows, number: int, random: np.random.Generator) -> Rows:
    """Up to ``number`` neighbouring rows of a list from a random place on: cheap, and over requests all come."""
    if len(rows) <= number:
        return rows
    start = int(random.integers(0, len(rows) - number + 1))
    return rows[start : start + number]
