"""Requests that every version has to answer, on a shop of eight items: through the functions that serve.

``python -m millrace.training.golden DIR`` loads the version in a folder as a recommender does, in a process of its own,
and prints as JSON what is wrong (``problems``) and the scores of the rows in ``DIR/rows.npy``, as they are
(``scores``).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from millrace.errors import MillraceError
from millrace.features.user_state import Engagement
from millrace.ranking.candidates import CandidateLimits, CandidateRequest
from millrace.ranking.circumstances import circumstances
from millrace.ranking.context_counts import item_key
from millrace.ranking.corpus import Corpus
from millrace.ranking.features import FEATURE_SCHEMA, UserActivity
from millrace.ranking.model import RankingModel, UnusableModel
from millrace.ranking.rank import RankedItems, rank
from millrace.settings import FeatureSettings, RecommenderSettings
from millrace.v1.common_pb2 import Context
from millrace.v1.item_pb2 import ItemState

ROWS_FILE = "rows.npy"
"""float32[n, d], features as they were logged."""

_ITEMS = tuple("abcdefgh")
_NOW_MS = 1_700_000_000_000
_K = 4
_RECENT = tuple(Engagement(item_id, 1, _NOW_MS - 60_000 * place, 0, 0, 1) for place, item_id in enumerate("ba"))
_PHONE = circumstances(Context(device="phone"))

REQUESTS: Mapping[str, CandidateRequest] = {
    "an unknown user": CandidateRequest(k=_K, now_ms=_NOW_MS),
    "a user with a history": CandidateRequest(k=_K, user_id="me", recent=_RECENT, now_ms=_NOW_MS),
    "on a phone": CandidateRequest(k=_K, user_id="me", recent=_RECENT, circumstances=_PHONE, now_ms=_NOW_MS),
    "no repeats": CandidateRequest(k=_K, user_id="me", recent=_RECENT, now_ms=_NOW_MS, repeats=False),
    "three items are blocked": CandidateRequest(k=_K, recent=_RECENT, now_ms=_NOW_MS, blocked=("c", "d", "e")),
    "among three": CandidateRequest(k=3, recent=_RECENT, now_ms=_NOW_MS, restricted_to=("a", "c", "h")),
}


def problems(model: RankingModel) -> list[str]:
    """What is wrong with the model's answers to ``REQUESTS``; empty if nothing is."""
    corpus = _shop()
    return [
        f"{name}: {problem}"
        for name, request in REQUESTS.items()
        if (problem := _wrong(request, *(_answer(corpus, request, model) for _ in range(2))))
    ]


def load(folder: Path) -> RankingModel:
    """The version in a folder, if this code serves it. Raises UnusableModel."""
    model = RankingModel.load(folder)
    if model.feature_schema != FEATURE_SCHEMA:
        raise UnusableModel(f"ranks by features {model.feature_schema}; this code computes {FEATURE_SCHEMA}")
    return model


def _wrong(request: CandidateRequest, answer: RankedItems, again: RankedItems) -> str:
    """What is wrong with two answers to a request; empty if nothing is."""
    known = {engaged.item_id for engaged in request.recent} if not request.repeats else set()
    hidden = known | set(request.blocked)
    allowed = set(request.restricted_to or _ITEMS) - hidden
    if len(answer.item_ids) != request.k or len(set(answer.item_ids)) < request.k:
        return f"{len(set(answer.item_ids))} items for {request.k}"
    if not set(answer.item_ids) <= allowed:
        return f"shows {', '.join(sorted(set(answer.item_ids) - allowed))}"
    if not (np.isfinite(answer.scores).all() and (answer.scores >= 0).all() and (answer.scores <= 1).all()):
        return f"scores that are no probabilities: {answer.scores.tolist()}"
    if (np.diff(answer.scores) > 0).any():
        return "not the best first"
    if answer.item_ids != again.item_ids or (answer.scores != again.scores).any():
        return "another answer at the second time"
    return ""


def _answer(corpus: Corpus, request: CandidateRequest, model: RankingModel) -> RankedItems:
    limits = replace(CandidateLimits.of(RecommenderSettings()), fresh_items=0)  # fresh items are drawn
    activity = UserActivity(len(request.recent), _NOW_MS if request.recent else 0)
    return rank(corpus, request, activity, model, _NOW_MS, limits, np.random.default_rng(0))


def _shop() -> Corpus:
    settings = RecommenderSettings(mirror_items_max=len(_ITEMS), session_runs_max=2)
    corpus = Corpus.empty(FeatureSettings(), settings)
    for place, item_id in enumerate(_ITEMS):
        state = ItemState(item_id=item_id, version=1)
        for popularity in (state.popularity_short, state.popularity_long):
            popularity.value, popularity.as_of_ms = 10.0 / (1 + place), _NOW_MS
        corpus.table.apply(state, _NOW_MS)
        for user_id in ("one", "two", "three"):
            corpus.sessions.add(user_id, 1, item_id, _NOW_MS)
        corpus.contexts.add(_PHONE, item_key(item_id), _NOW_MS)
    corpus.popular.refresh()
    return corpus


def main() -> None:
    """Answer for the version in a folder."""
    folder = Path(sys.argv[1])
    try:
        model = load(folder)
        answer = {
            "problems": problems(model),
            "scores": model.score(np.load(folder / ROWS_FILE, allow_pickle=False)).tolist(),
        }
    except MillraceError as error:
        answer = {"unusable": str(error)}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
