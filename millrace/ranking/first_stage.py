"""The first stage of ranking: one number for each of many items, to choose the few that the model ranks.

Several hundred items are proposed, and of most of them nothing speaks but that they are popular. What the model takes
half a microsecond to look at, this takes a twentieth. It is also the order in which items stand where no model is.

The score multiplies how much each generator says for an item, by powers that are the same everywhere:

    (around + c) * ((similar + c) * (after + before + c) * (1 + short) * (1 + long))^(1/4) * (covisit + c)^(1/8)

with the signals of ``millrace.ranking.features.Signal``, the popularities decayed to now, and c = 0.001. With sums in
place of products one large number decides. On news, in a shop and with films, of 170 to 870 candidates the best 120 by
it hold what the model would have put among its first 20 (decision 19).
"""

from __future__ import annotations

import math

import numpy as np

from millrace.compiled import compiled
from millrace.ranking.features import COVISIT_FLOOR, Candidates, Floats, Ints, ItemColumn, Rows, Signal
from millrace.ranking.item_table import ItemTable
from millrace.ranking.pool import CandidatePool
from millrace.ranking.session_knn import largest


def first_scores(candidates: Candidates, table: ItemTable, now_ms: int) -> Floats:
    """The scores, float64[n], of candidates as of an event time, Unix ms. They are no probabilities."""
    places = np.arange(len(candidates))
    return _score(
        places,
        candidates.rows,
        candidates.signals,
        table.items,
        float(now_ms),
        table.half_lives.short_ms,
        table.half_lives.long_ms,
    )


def score_of_places(places: Ints, pool: CandidatePool, table: ItemTable, now_ms: int) -> Floats:
    """The same for candidates that are still in the pool, by their places int64[n]."""
    return _score(
        places,
        pool.rows,
        pool.signals,
        table.items,
        float(now_ms),
        table.half_lives.short_ms,
        table.half_lives.long_ms,
    )


def best_places(places: Ints, most: int, pool: CandidatePool, table: ItemTable, now_ms: int, always: int) -> Ints:
    """Those of the places that score highest, int64[most], in the order given; of equal ones the first.

    ``always``: bits of the sources whose items are among them whatever they score.
    """
    return _best(
        places,
        most,
        always,
        pool.rows,
        pool.sources,
        pool.signals,
        table.items,
        float(now_ms),
        table.half_lives.short_ms,
        table.half_lives.long_ms,
    )


@compiled
def _best(
    places: Ints,
    most: int,
    always: int,
    rows: Rows,
    sources: Ints,
    signals: Floats,
    items: Floats,
    now_ms: float,
    short_ms: float,
    long_ms: float,
) -> Ints:
    scores = _score(places, rows, signals, items, now_ms, short_ms, long_ms)
    for at in range(len(places)):
        if sources[places[at]] & always:
            scores[at] = np.inf
    least = largest(scores, most)
    above = 0
    for at in range(len(places)):
        above += scores[at] > least
    equal = most - above
    chosen = np.empty(most, dtype=np.int64)
    number = 0
    for at in range(len(places)):
        if scores[at] > least:
            chosen[number] = places[at]
            number += 1
        elif scores[at] == least and equal:
            chosen[number] = places[at]
            number, equal = number + 1, equal - 1
    return chosen


@compiled
def _score(
    places: Ints, rows: Rows, signals: Floats, items: Floats, now_ms: float, short_ms: float, long_ms: float
) -> Floats:
    scores = np.empty(len(places))
    for at in range(len(places)):
        place = places[at]
        row = rows[place]
        # A sum from after now stays as it is.
        short = items[row, ItemColumn.POPULARITY_SHORT] * 2.0 ** -(
            max(now_ms - items[row, ItemColumn.SHORT_AS_OF_MS], 0.0) / short_ms
        )
        long = items[row, ItemColumn.POPULARITY_LONG] * 2.0 ** -(
            max(now_ms - items[row, ItemColumn.LONG_AS_OF_MS], 0.0) / long_ms
        )
        fourth = (
            (signals[place, Signal.SIMILAR] + COVISIT_FLOOR)
            * (signals[place, Signal.AFTER] + signals[place, Signal.BEFORE] + COVISIT_FLOOR)
            * (1.0 + short)
            * (1.0 + long)
            * math.sqrt(signals[place, Signal.COVISIT] + COVISIT_FLOOR)
        )
        scores[at] = (signals[place, Signal.AROUND] + COVISIT_FLOOR) * math.sqrt(math.sqrt(fourth))
    return scores
