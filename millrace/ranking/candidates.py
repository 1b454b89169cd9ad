"""Candidate generation: which few hundred of all items are ranked for a user.

Generators: co-visitation neighbours of the user's last items, sessions like the user's, what is popular now and these
days, the user's own recent items (where repeats are allowed), new items of the catalogue, and the items that the
request names. Everything happens on arrays of rows (see ``ItemTable``) and in one pool of candidates.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Protocol

import numpy as np
import numpy.typing as npt

from millrace.compiled import compiled
from millrace.ranking.circumstances import Circumstances
from millrace.ranking.corpus import Corpus
from millrace.ranking.features import Candidates, FloatMatrix, Floats, Ints, Rows, Signal
from millrace.ranking.first_stage import score_of_places
from millrace.ranking.item_table import NO_ROW, ItemTable
from millrace.ranking.pool import NO_PLACE, join
from millrace.ranking.popular import FRESH_KEPT, TRENDING_KEPT
from millrace.ranking.session_knn import AROUND_DOUBT, AROUND_OF_ITEM, AROUND_PRIOR, most_proposed, propose_of_sessions
from millrace.ranking.sources import FRESH, NEIGHBOURS, REPEAT, REQUESTED, TRENDING_LONG, TRENDING_SHORT
from millrace.settings import RecommenderSettings

# Items of the user's earlier sessions that similar sessions are sought by, behind those of the session.
OLDER_ITEMS = 5
# Of what is popular now and these days, and of what is new.
_LISTED_MAX = 2 * TRENDING_KEPT + FRESH_KEPT
_NONE: Rows = np.empty(0, dtype=np.int32)


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
    blocked: Collection[str] = ()
    restricted_to: Sequence[str] = ()
    repeats: bool = True


def generate(
    corpus: Corpus, request: CandidateRequest, limits: CandidateLimits, random: np.random.Generator
) -> Candidates:
    """The candidates for a request, in no particular order."""
    table, popular, pool = corpus.table, corpus.popular, corpus.pool
    known, seen_at_ms, seen_count = _known_items(table, request.recent)
    context = known[: limits.context_items]
    session = _session_items(table, request.recent, corpus.sessions.gap_ms, limits.session_items)
    older = [row for row in known[: limits.session_items].tolist() if row not in session] if session else []
    older = older[:OLDER_ITEMS]
    requested = _rows_of(table, request.restricted_to)
    pool.begin(
        table.neighbours.shape[1] * len(context)
        + most_proposed(len(session) + len(older))
        + len(known)
        + len(requested)
        + _LISTED_MAX
    )
    _propose_neighbours(context, table.neighbours, table.shares, *pool.arrays)
    propose_of_sessions(pool, corpus.sessions, session, older, request.user_id)
    _propose_known(known, seen_at_ms, seen_count, *pool.arrays)
    _propose_all(popular.short[: limits.trending_items], TRENDING_SHORT, *pool.arrays)
    _propose_all(popular.long[: limits.trending_items], TRENDING_LONG, *pool.arrays)
    _propose_all(_draw(popular.fresh, limits.fresh_items, random), FRESH, *pool.arrays)
    _propose_all(requested, REQUESTED, *pool.arrays)
    wanted, unwanted = REQUESTED if request.restricted_to else 0, 0 if request.repeats else REPEAT
    blocked = _rows_of(table, request.blocked)
    shown = _shown(wanted, unwanted, blocked, table.servable, *pool.arrays)
    if len(shown) < request.k and not wanted:
        # So much is left out that trending has to fill up from further down its list.
        _propose_all(popular.short, TRENDING_SHORT, *pool.arrays)
        _propose_all(popular.long, TRENDING_LONG, *pool.arrays)
        shown = _shown(wanted, unwanted, blocked, table.servable, *pool.arrays)
    if session:
        _describe(shown, session[0], corpus.sessions.places, pool.rows, pool.signals)
    most = max(limits.candidates_max, request.k)
    if len(shown) > most:
        scores = score_of_places(shown, pool, table, request.now_ms)
        # New items have nothing that speaks for them yet: cutting by score would always cut them.
        scores[pool.sources[shown] & FRESH != 0] = np.inf
        shown = shown[np.argpartition(-scores, most)[:most]]
    candidates = Candidates(pool.rows[shown], pool.sources[shown], pool.signals[shown])
    lifts = candidates.signals[:, Signal.LIFTS :]
    corpus.contexts.add_lifts(request.circumstances, candidates.rows, table.keys, request.now_ms, lifts)
    return candidates


@compiled
def _propose_neighbours(
    context: Rows,
    neighbours: Rows,
    shares: FloatMatrix,
    places: Rows,
    count: Ints,
    rows: Rows,
    sources: Ints,
    signals: Floats,
) -> None:
    """A neighbour of the item in place p (0 = newest) counts P(neighbour follows item) / (p + 1)."""
    for number in range(len(context)):
        own, own_shares = neighbours[context[number]], shares[context[number]]
        for at in range(len(own)):
            if own[at] == NO_ROW:
                continue
            place = places[own[at]]
            if place == NO_PLACE:
                place = join(own[at], places, count, rows, sources, signals)
            sources[place] |= NEIGHBOURS
            signals[place, Signal.COVISIT] += own_shares[at] / (number + 1)
            signals[place, Signal.COVISIT_SUPPORT] += 1.0 / len(context)
            if number == 0:
                signals[place, Signal.COVISIT_LAST] += own_shares[at]


@compiled
def _propose_known(
    known: Rows,
    seen_at_ms: Ints,
    seen_count: Ints,
    places: Rows,
    count: Ints,
    rows: Rows,
    sources: Ints,
    signals: Floats,
) -> None:
    for number in range(len(known)):
        place = join(known[number], places, count, rows, sources, signals)
        sources[place] |= REPEAT
        signals[place, Signal.SEEN_AT_MS], signals[place, Signal.SEEN_COUNT] = seen_at_ms[number], seen_count[number]


@compiled
def _propose_all(
    listed: Rows, source: int, places: Rows, count: Ints, rows: Rows, sources: Ints, signals: Floats
) -> None:
    for row in listed:
        sources[join(row, places, count, rows, sources, signals)] |= source


@compiled
def _shown(
    wanted: int,
    unwanted: int,
    blocked: Rows,
    servable: npt.NDArray[np.bool_],
    places: Rows,
    count: Ints,
    rows: Rows,
    sources: Ints,
    _signals: Floats,
) -> Ints:
    """The places of those that may be shown, int64[n]: of ``wanted`` sources, if any, and of none unwanted."""
    barred = np.zeros(count[0], dtype=np.bool_)
    for row in blocked:
        if places[row] != NO_PLACE:
            barred[places[row]] = True
    shown = np.empty(count[0], dtype=np.int64)
    number = 0
    for place in range(count[0]):
        if (
            servable[rows[place]]
            and not barred[place]
            and (not wanted or sources[place] & wanted)
            and not sources[place] & unwanted
        ):
            shown[number] = place
            number += 1
    return shown[:number]


@compiled
def _describe(shown: Ints, newest: int, in_sessions: Rows, rows: Rows, signals: Floats) -> None:
    """What is known of the candidates of a user with a session. What is not shown may lie above the best that is."""
    best = 0.0
    for place in shown:
        one, stands = signals[place], in_sessions[rows[place]]
        one[Signal.NEWEST] = rows[place] == newest
        one[Signal.IN_SESSIONS] = stands
        one[Signal.AROUND] /= (AROUND_PRIOR + stands) ** AROUND_OF_ITEM
        best = max(best, one[Signal.AROUND])
    for place in shown:
        signals[place, Signal.AROUND] = signals[place, Signal.AROUND] / (best + AROUND_DOUBT)


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


def _known_items(table: ItemTable, recent: Sequence[Engaged]) -> tuple[Rows, Ints, Ints]:
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
    return (
        np.array(list(count), dtype=np.int32),
        np.array(list(at_ms.values()), dtype=np.int64),
        np.array(list(count.values()), dtype=np.int64),
    )


def _rows_of(table: ItemTable, item_ids: Collection[str]) -> Rows:
    """Rows of the items that the table knows."""
    if not item_ids:
        return _NONE
    rows: Rows = np.fromiter(map(table.rows.get, item_ids, repeat(NO_ROW)), dtype=np.int32)
    known: Rows = rows[rows != NO_ROW]
    return known


def _draw(rows: Rows, number: int, random: np.random.Generator) -> Rows:
    """Up to ``number`` neighbouring rows of a list from a random place on: cheap, and over requests all come."""
    if len(rows) <= number:
        return rows
    start = int(random.integers(0, len(rows) - number + 1))
    return rows[start : start + number]
