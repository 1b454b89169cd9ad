"""Candidate generation: which few hundred of all items are ranked for a user.

Generators: co-visitation neighbours of the user's last items, sessions like the user's, what is popular now and these
days, the user's own recent items (where repeats are allowed), new items of the catalogue, and the items that the
request names. Everything happens on arrays of rows (see ``ItemTable``) and in one pool of candidates.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import attrgetter
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from millrace.compiled import compiled
from millrace.ranking.circumstances import Circumstances
from millrace.ranking.corpus import Corpus
from millrace.ranking.features import SIGNALS, Candidates, FloatMatrix, Floats, Ints, Rows, Signal
from millrace.ranking.first_stage import best_places
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
_NEVER: Ints = np.empty(0, dtype=np.int64)
# By how often an item stands in sessions: powers take as long as all else that is done with a candidate.
_STANDING = (AROUND_PRIOR + np.arange(1_000)) ** AROUND_OF_ITEM
_ITEM_ID, _AT_MS, _SESSION = attrgetter("item_id"), attrgetter("at_ms"), attrgetter("session")


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
    history = _history(table, request.recent, corpus.sessions.gap_ms, limits.session_items)
    known = history.known
    context = known[: limits.context_items]
    requested = _rows_of(table, request.restricted_to)
    pool.begin(
        table.neighbours.shape[1] * len(context)
        + most_proposed(len(history.own_items))
        + len(known)
        + len(requested)
        + _LISTED_MAX
    )
    _propose_neighbours(context, table.neighbours, table.shares, *pool.arrays)
    propose_of_sessions(pool, corpus.sessions, history.own_items, history.of_session, request.user_id)
    _propose_listed(
        known,
        history.seen_at_ms,
        history.seen_count,
        popular.short[: limits.trending_items],
        popular.long[: limits.trending_items],
        _draw(popular.fresh, limits.fresh_items, random),
        requested,
        *pool.arrays,
    )
    wanted, unwanted = REQUESTED if request.restricted_to else 0, 0 if request.repeats else REPEAT
    blocked = _rows_of(table, request.blocked)
    shown = _shown(wanted, unwanted, blocked, table.servable, *pool.arrays)
    if len(shown) < request.k and not wanted:
        # So much is left out that trending has to fill up from further down its list.
        _propose_listed(_NONE, _NEVER, _NEVER, popular.short, popular.long, _NONE, _NONE, *pool.arrays)
        shown = _shown(wanted, unwanted, blocked, table.servable, *pool.arrays)
    if history.of_session:
        _describe(shown, history.own_items[0], corpus.sessions.places, pool.rows, pool.signals)
    most = max(limits.candidates_max, request.k)
    if len(shown) > most:
        # New items have nothing that speaks for them yet: cutting by score would always cut them.
        shown = best_places(shown, most, pool, table, request.now_ms, always=FRESH)
    candidates = Candidates(*_take(shown, pool.rows, pool.sources, pool.signals))
    lifts = candidates.signals[:, Signal.LIFTS : Signal.TASTE]
    corpus.contexts.add_lifts(request.circumstances, candidates.rows, table.keys, request.now_ms, lifts)
    session = slice(history.in_session)
    for signal, items, times in (
        (Signal.TASTE, known, history.seen_count),
        (Signal.TASTE_SESSION, known[session], history.seen_count[session]),
    ):
        table.labels.add_tastes(items, times, candidates.rows, candidates.signals[:, signal])
    return candidates


class _History(NamedTuple):
    """What a user's engagements say, in rows of items.

    Attributes
    ----------
    known, seen_at_ms, seen_count
        The user's items, newest first and none twice; the newest time and the number of engagements with each.
    in_session
        How many of them, the first, are of the user's newest session.
    own_items, of_session
        The first of these, so many; then up to ``OLDER_ITEMS`` of those before the session.
    """

    known: Rows
    seen_at_ms: Ints
    seen_count: Ints
    in_session: int
    own_items: Ints
    of_session: int


_NO_HISTORY = _History(_NONE, _NEVER, _NEVER, 0, _NEVER, 0)


def _history(table: ItemTable, recent: Sequence[Engaged], gap_ms: int, session_items: int) -> _History:
    """Items that the table does not know are passed over."""
    if not recent:
        return _NO_HISTORY
    many = len(recent)
    rows = np.fromiter(map(table.rows.get, map(_ITEM_ID, recent), repeat(NO_ROW)), np.int32, many)
    at_ms, sessions = (
        np.fromiter(map(_AT_MS, recent), np.int64, many),
        np.fromiter(map(_SESSION, recent), np.int64, many),
    )
    return _History(*_gather(rows, at_ms, sessions, gap_ms, session_items))


@compiled
def _gather(
    rows: Rows, at_ms: Ints, sessions: Ints, gap_ms: int, session_items: int
) -> tuple[Rows, Ints, Ints, int, Ints, int]:
    known = np.empty(len(rows), dtype=np.int32)
    seen_at_ms, seen_count = np.empty(len(rows), dtype=np.int64), np.empty(len(rows), dtype=np.int64)
    own_items = np.empty(min(session_items, len(rows)) + OLDER_ITEMS, dtype=np.int64)
    many = in_session = 0
    goes_on = True
    for number in range(len(rows)):
        if number and goes_on:
            apart = sessions[number] != sessions[number - 1]
            pause = not sessions[number] and abs(at_ms[number - 1] - at_ms[number]) >= gap_ms
            goes_on = not apart and not pause
        if rows[number] == NO_ROW:
            continue
        at = 0
        while at < many and known[at] != rows[number]:
            at += 1
        if at < many:
            seen_at_ms[at] = max(seen_at_ms[at], at_ms[number])
            seen_count[at] += 1
            continue
        known[many], seen_at_ms[many], seen_count[many] = rows[number], at_ms[number], 1
        many += 1
        in_session += goes_on
    end = of_session = min(in_session, session_items)
    own_items[:end] = known[:end]
    if of_session:
        for at in range(of_session, min(many, session_items)):
            if end < of_session + OLDER_ITEMS:
                own_items[end] = known[at]
                end += 1
    return known[:many], seen_at_ms[:many], seen_count[:many], in_session, own_items[:end], of_session


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
        item = context[number]
        for at in range(neighbours.shape[1]):
            row = neighbours[item, at]
            if row == NO_ROW:
                continue
            place = places[row]
            if place == NO_PLACE:
                place = join(row, places, count, rows, sources, signals)
            sources[place] |= NEIGHBOURS
            signals[place, Signal.COVISIT] += shares[item, at] / (number + 1)
            signals[place, Signal.COVISIT_SUPPORT] += 1.0 / len(context)
            if number == 0:
                signals[place, Signal.COVISIT_LAST] += shares[item, at]


@compiled
def _propose_listed(
    known: Rows,
    seen_at_ms: Ints,
    seen_count: Ints,
    short: Rows,
    long: Rows,
    fresh: Rows,
    requested: Rows,
    places: Rows,
    count: Ints,
    rows: Rows,
    sources: Ints,
    signals: Floats,
) -> None:
    """The user's items, and those of lists."""
    for listed, source in (
        (known, REPEAT),
        (short, TRENDING_SHORT),
        (long, TRENDING_LONG),
        (fresh, FRESH),
        (requested, REQUESTED),
    ):
        for row in listed:
            place = places[row]
            if place == NO_PLACE:
                place = join(row, places, count, rows, sources, signals)
            sources[place] |= source
    for number in range(len(known)):
        place = places[known[number]]
        signals[place, Signal.SEEN_AT_MS], signals[place, Signal.SEEN_COUNT] = seen_at_ms[number], seen_count[number]


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
        row = rows[place]
        stands = in_sessions[row]
        signals[place, Signal.NEWEST] = row == newest
        signals[place, Signal.IN_SESSIONS] = stands
        around = signals[place, Signal.AROUND]
        if around:
            around /= _STANDING[stands] if stands < len(_STANDING) else (AROUND_PRIOR + stands) ** AROUND_OF_ITEM
            signals[place, Signal.AROUND] = around
            best = max(best, around)
    for place in shown:
        signals[place, Signal.AROUND] /= best + AROUND_DOUBT


@compiled
def _take(chosen: Ints, rows: Rows, sources: Ints, signals: Floats) -> tuple[Rows, Ints, Floats]:
    """Copies, in that order; lifts are not known yet."""
    many, pooled = len(chosen), signals.shape[1]
    own_rows, own_sources = np.empty(many, dtype=np.int32), np.empty(many, dtype=np.int64)
    own_signals = np.zeros((many, SIGNALS))
    for number in range(many):
        place = chosen[number]
        own_rows[number], own_sources[number] = rows[place], sources[place]
        for column in range(pooled):
            own_signals[number, column] = signals[place, column]
    return own_rows, own_sources, own_signals


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
