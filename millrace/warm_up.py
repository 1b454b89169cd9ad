"""Have everything compiled before it is needed: nobody's request waits for a compiler.

``python -m millrace.warm_up`` does so for all processes, once for each state of our sources (``make setup`` calls it).
A process whose functions are on disk already loads them within half a second.
"""

from __future__ import annotations

import time

import numpy as np
import structlog

from millrace.features.user_state import Engagement
from millrace.learning.learner import OnlineRanker
from millrace.learning.state import fresh
from millrace.ranking.candidates import CandidateLimits, CandidateRequest
from millrace.ranking.circumstances import circumstances
from millrace.ranking.context_counts import item_key
from millrace.ranking.corpus import Corpus
from millrace.ranking.features import FEATURE_NAMES, UserActivity
from millrace.ranking.first import first_ranker
from millrace.ranking.rank import rank
from millrace.settings import FeatureSettings, RecommenderSettings
from millrace.v1.common_pb2 import Context
from millrace.v1.item_pb2 import ItemState

log = structlog.stdlib.get_logger(__name__)

_NOW_MS = 1_700_000_000_000
_ITEMS = ("a", "b", "c", "d")


def warm_up_ranking() -> None:
    """What answers a request, and what takes an event into sessions and counts."""
    began = time.monotonic()
    corpus = Corpus.empty(FeatureSettings(), RecommenderSettings(mirror_items_max=len(_ITEMS), session_runs_max=2))
    known = circumstances(Context(device="any"))
    for item_id in _ITEMS:
        state = ItemState(item_id=item_id, version=1)
        state.popularity_short.value = state.popularity_long.value = 1.0
        corpus.table.apply(state, _NOW_MS)
        for user_id in ("one", "two", "three"):
            corpus.sessions.add(user_id, 1, item_id, _NOW_MS)
        corpus.contexts.add(known, item_key(item_id), _NOW_MS)
    corpus.popular.refresh()
    # Fewer than there are: who is left is chosen.
    limits = CandidateLimits(candidates_max=1, context_items=2, session_items=2, trending_items=9, fresh_items=1)
    request = CandidateRequest(
        k=1,
        user_id="me",
        recent=[Engagement(item_id, 1, _NOW_MS, 0, 0, 1) for item_id in _ITEMS[:2]],
        circumstances=known,
        now_ms=_NOW_MS,
        blocked=_ITEMS[:1],
    )
    for model in (first_ranker(), None):
        rank(corpus, request, UserActivity(1.0, _NOW_MS), model, _NOW_MS, limits, np.random.default_rng(0))
    _say("ranking", began)


def warm_up_learning() -> None:
    """What learns a slot."""
    began = time.monotonic()
    ranker = OnlineRanker(fresh(first_ranker(), "warm-up", "warm-up", epoch=1))
    ranker.learn(np.zeros((1, len(FEATURE_NAMES)), dtype=np.float32), [True])
    _say("learning", began)


def _say(what: str, began: float) -> None:
    log.info("compiled or loaded", what=what, seconds=round(time.monotonic() - began, 1))


if __name__ == "__main__":
    warm_up_ranking()
    warm_up_learning()
